"""What is shipped is what is in the tree, and what is generated is what its source says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.dockerfile import copy, read_stages
from tests.project import PROJECT, SOURCE_ROOTS

MAX_LINES = 400


def files_of(folder: Path) -> set[str]:
    """All files below a folder, as relative paths, but for what Python itself leaves there."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_every_package_of_the_tree_is_listed() -> None:
    found = {
        ".".join((package, *path.parent.relative_to(root).parts))
        for package, root in SOURCE_ROOTS.items()
        for path in root.rglob("__init__.py")
    }
    listed = PROJECT["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(found), "a package that is not listed is missing from the wheel"


def test_the_wheel_holds_the_tree(tmp_path: Path) -> None:
    for value in read_stages(ROOT / "Dockerfile")[0].values("COPY"):
        copy(value, ROOT, tmp_path)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", "wheels", "."]
    subprocess.run(command, cwd=tmp_path, check=True)
    (wheel,) = (tmp_path / "wheels").iterdir()
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert shipped == {f"{package}/{name}" for package, root in SOURCE_ROOTS.items() for name in files_of(root)}


def test_every_package_tells_that_it_is_typed() -> None:
    assert [package for package, root in SOURCE_ROOTS.items() if not (root / "py.typed").exists()] == []


def test_the_stubs_are_what_make_proto_writes(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    folders = ("lathe/v1", "server/lathe_server/open_inference")
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    command = ["make", "-s", "VENV=.venv", "-o", ".venv/.installed", "proto"]  # taken as installed: the tests run in it
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    generated, committed = (
        {path.name: path.read_bytes() for folder in folders for path in (root / folder).glob("*_pb2*")}
        for root in (tmp_path, ROOT)
    )
    assert generated.keys() == committed.keys()
    assert [name for name in generated if generated[name] != committed[name]] == [], "run `make proto`"


def test_the_contract_passes_buf() -> None:
    buf = shutil.which("buf", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert buf, "buf comes with the dev extra"
    done = subprocess.run([buf, "lint"], cwd=ROOT / "proto", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("package", SOURCE_ROOTS)
def test_a_module_is_short_enough_to_hold_one_idea(package: str) -> None:
    lines = {
        path.relative_to(ROOT).as_posix(): len(path.read_text("utf-8").splitlines())
        for path in SOURCE_ROOTS[package].rglob("*.py")
        if "_pb2" not in path.name
    }
    assert {name: count for name, count in lines.items() if count >= MAX_LINES} == {}
