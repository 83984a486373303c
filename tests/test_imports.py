"""Who may import whom: docs/decisions/0001, held over the syntax trees, and once by really importing."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import packages_distributions

import pytest

from tests.project import PROJECT, SOURCE_ROOTS

MAY_IMPORT = {
    "lathe": (),
    "lathe_server": ("lathe",),
    "lathe_compression": ("lathe", "lathe_server.vision", "lathe_server.engines"),
    "lathe_loadtest": ("lathe",),
}
"""Beside itself. A name stands for what is below it, too."""

MAY_REACH_ALL_LAZILY = ("lathe.cli", "lathe.demo")
"""They run the other three, and each run imports only what it needs."""


@dataclass(frozen=True)
class Import:
    """One imported name.

    Attributes:
        by: the module that imports.
        name: dotted, with the member where it is `from module import member`.
        is_lazy: it happens in a function, or for the type checker alone.
    """

    by: str
    name: str
    is_lazy: bool
    line: int

    def is_within(self, *roots: str) -> bool:
        return is_within(self.name, *roots)


def is_within(name: str, *roots: str) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in roots)


def imports_of(source: str, module: str, *, is_package: bool = False) -> Iterator[Import]:
    """Every import of a module, wherever it stands in it."""
    yield from _imports_below(ast.parse(source), module.split("."), is_package, is_lazy=False)


def _imports_below(node: ast.AST, module: list[str], is_package: bool, is_lazy: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        names: list[str] = []
        if isinstance(child, ast.Import):
            names = [alias.name for alias in child.names]
        elif isinstance(child, ast.ImportFrom):
            above = module[: len(module) - child.level + is_package] if child.level else []
            origin = ".".join([*above, *([child.module] if child.module else [])])
            names = [f"{origin}.{alias.name}" for alias in child.names]
        for name in names:
            yield Import(".".join(module), name, is_lazy, child.lineno)  # type: ignore[attr-defined]
        is_checked_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _imports_below(child, module, is_package, is_lazy or is_checked_only or is_function)


def forbidden(imported: Import) -> bool:
    """Whether an import breaks the layout."""
    package = imported.by.partition(".")[0]
    if imported.is_within("torch"):
        return package != "lathe_compression"
    if not imported.is_within(*MAY_IMPORT):
        return False
    if imported.is_within(package, *MAY_IMPORT[package]):
        return False
    return not (imported.is_lazy and is_within(imported.by, *MAY_REACH_ALL_LAZILY))


def imports_of_the_tree() -> list[Import]:
    found: list[Import] = []
    for package, root in SOURCE_ROOTS.items():
        for path in root.rglob("*.py"):
            parts = [package, *path.relative_to(root).with_suffix("").parts]
            is_package = parts[-1] == "__init__"
            module = ".".join(parts[:-1] if is_package else parts)
            found += imports_of(path.read_text("utf-8"), module, is_package=is_package)
    return found


TREE = imports_of_the_tree()


@pytest.mark.parametrize(
    ("by", "source", "is_forbidden"),
    [
        ("lathe.client", "from lathe.errors import LatheError", False),
        ("lathe.client", "import lathe_server.settings", True),
        ("lathe.client", "def f():\n from lathe_server import settings", True),
        ("lathe.cli.serve", "from lathe_server.settings import Settings", True),
        ("lathe.cli.serve", "def f():\n from lathe_server.settings import Settings", False),
        ("lathe.cli.serve", "if TYPE_CHECKING:\n from lathe_server.settings import Settings", False),
        ("lathe.cli.serve", "try:\n import lathe_server\nexcept ImportError: pass", True),
        ("lathe.cli.compress", "def f():\n import torch", True),
        ("lathe_server.router", "from lathe import repository", False),
        ("lathe_server.router", "def f():\n import lathe_compression", True),
        ("lathe_server.router", "from .manager import Manager", False),
        ("lathe_server.router", "import torch.nn", True),
        ("lathe_compression.judge", "from lathe_server.vision.detections import Thresholds", False),
        ("lathe_compression.judge", "from lathe_server import vision", False),
        ("lathe_compression.judge", "from lathe_server import manager", True),
        ("lathe_compression.judge", "import lathe_server", True),
        ("lathe_compression.export", "import torch", False),
        ("lathe_loadtest.camera", "from lathe_server.vision import fit", True),
    ],
)
def test_the_rule_itself(by: str, source: str, is_forbidden: bool) -> None:
    assert [forbidden(imported) for imported in imports_of(source, by)] == [is_forbidden]


def test_nobody_imports_whom_it_may_not() -> None:
    assert [imported for imported in TREE if forbidden(imported)] == []


def distribution_names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w.-]", requirement)[0].replace("_", "-").lower() for requirement in requirements}


OPTIONAL = {
    "cryptography",
    "faiss",
    "fsspec",
    "hdrh",
    "hpack",
    "mlflow",
    "model_signing",
    "opentelemetry",
    "openvino",
    "pynvml",
}
"""Used where it is installed, and asked for before it is imported."""


def test_whatever_is_imported_is_a_declared_dependency() -> None:
    owners = packages_distributions()
    base = distribution_names(PROJECT["project"]["dependencies"])
    extra = distribution_names(PROJECT["project"]["optional-dependencies"]["compression"])
    undeclared = set()
    for imported in TREE:
        top = imported.name.partition(".")[0]
        if top in MAY_IMPORT or top in OPTIONAL or top in sys.stdlib_module_names:
            continue
        allowed = base | extra if imported.by.startswith(("lathe_compression", "lathe_loadtest.bench")) else base
        if not {owner.replace("_", "-").lower() for owner in owners.get(top, [])} & allowed:
            undeclared.add((imported.by, top))
    assert undeclared == set()


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        (("lathe",), {"grpc", "numpy", "lathe_server"}),
        (("lathe.cli",), {"grpc", "numpy", "rich", "torch", "lathe_server", "lathe_compression", "lathe_loadtest"}),
        (("lathe_server.server",), {"torch", "onnx", "av", "faiss", "lathe_compression", "lathe_loadtest"}),
        (
            ("lathe_compression.evaluate", "lathe_compression.judge", "lathe_compression.pictures"),
            {"torch", "onnx", "grpc_health", "lathe_server.server"},
        ),
        (("lathe_loadtest.camera",), {"torch", "onnx", "lathe_server", "lathe_compression"}),
    ],
)
def test_importing_brings_no_more_than_is_needed(modules: tuple[str, ...], absent: set[str]) -> None:
    script = f"import {', '.join(modules)}, json, sys; print(json.dumps(list(sys.modules)))"
    roots = os.pathsep.join(str(root.parent) for root in SOURCE_ROOTS.values())
    environment = os.environ | {"PYTHONPATH": roots}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert absent & set(json.loads(done.stdout)) == set()
