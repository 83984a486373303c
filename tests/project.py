"""What pyproject.toml says, for tests that hold the tree to it."""

from __future__ import annotations

import tomllib
from typing import Any

from tests.conftest import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))

SOURCE_ROOTS = {package: ROOT / folder for package, folder in PROJECT["tool"]["setuptools"]["package-dir"].items()}
"""The folder of each import package."""
