"""Every example in a docstring gives what it says, and those for clients run."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.conftest import ROOT, RunningServer
from tests.project import SOURCE_ROOTS

WITH_EXAMPLES = sorted(
    ".".join(path.relative_to(root.parent).with_suffix("").parts)
    for root in SOURCE_ROOTS.values()
    for path in root.rglob("*.py")
    if ">>>" in path.read_text("utf-8")
)


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_are_true(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted
    assert not result.failed


CLIENTS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/clients.md").read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("example", CLIENTS, ids=range(len(CLIENTS)))
def test_examples_of_clients_run(
    example: str, shared_server: RunningServer, spot_jpeg: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("picture.jpg").write_bytes(spot_jpeg)
    Path("token").write_text("lathe_0\n")
    Authority(tmp_path, "root")
    there = {"127.0.0.1:8500": shared_server.grpc, "127.0.0.1:8502": shared_server.control, '"face"': '"spots"'}
    for written, meant in there.items():
        example = example.replace(written, meant)
    exec(compile(example, "docs/clients.md", "exec"), {})
