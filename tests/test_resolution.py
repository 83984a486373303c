"""Every supported Python finds all packages as wheels: nobody has to compile.

torch is left out: the index answers for it with hundreds of megabytes a version, and its CPU build is installed from
wherever the user takes it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.project import PROJECT

VERSIONS = [
    classifier.rpartition(" ")[2]
    for classifier in PROJECT["project"]["classifiers"]
    if classifier.startswith("Programming Language :: Python :: 3.")
]
NOT_REACHED = ("Failed to establish a new connection", "Name or service not known", "name resolution", "timed out")


def test_the_supported_versions_are_those_of_the_decision() -> None:
    assert VERSIONS == ["3.11", "3.12", "3.13", "3.14"]


@pytest.mark.parametrize("version", VERSIONS)
def test_all_packages_are_to_be_had_as_wheels(version: str, tmp_path: Path) -> None:
    project = PROJECT["project"]
    extra = [name for name in project["optional-dependencies"]["compression"] if not name.startswith("torch")]
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--only-binary=:all:"]
    command += ["--quiet", "--retries=1", f"--python-version={version}", f"--target={tmp_path}"]
    command += ["--constraint", str(ROOT / "constraints.txt"), *project["dependencies"], *extra]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and any(sign in done.stderr for sign in NOT_REACHED):
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
