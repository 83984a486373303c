"""Every example in a docstring gives what it says."""

from __future__ import annotations

import doctest
import importlib

import pytest

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
