"""Files of pairs: what they mean, and what is wrong with those that mean nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from lathe.errors import InvalidInput, NotFound
from lathe_compression.pairs import FacePicture, Pairs, read_pairs

TWO_FOLDS = """2\t2
Ann\t1\t2
Bob\t1\t3
Ann\t1\tBob\t1
Ann\t2\tBob\t3
Cid\t1\t2
Cid\t2\t3
Cid\t1\tDora\t1
Cid\t3\tDora\t10
"""
ONE_FOLD = "1\nAnn\t1\t2\nAnn\t1\tBob\t1\n"


def read(tmp_path: Path, content: str | bytes) -> Pairs:
    path = tmp_path / "pairs.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_pairs(path)


def test_folds_and_kinds(tmp_path: Path) -> None:
    found = read(tmp_path, TWO_FOLDS)
    assert (found.folds, len(found.pairs)) == (2, 8)
    assert [pair.fold for pair in found.pairs] == [0] * 4 + [1] * 4
    assert [pair.is_same for pair in found.pairs] == [True, True, False, False] * 2
    assert found.pairs[3].second == FacePicture("Bob", 3)


def test_header_of_one_number_is_one_fold(tmp_path: Path) -> None:
    found = read(tmp_path, ONE_FOLD)
    assert (found.folds, [pair.is_same for pair in found.pairs]) == (1, [True, False])


@pytest.mark.parametrize("end", ["", "\n\n", "\r\n"])
def test_ends_of_lines_and_of_the_file_do_not_matter(end: str, tmp_path: Path) -> None:
    found = read(tmp_path, ONE_FOLD.rstrip().replace("\n", "\r\n") + end)
    assert found.pairs[1].second == FacePicture("Bob", 1)


def test_names_may_hold_spaces_between_tabs(tmp_path: Path) -> None:
    assert read(tmp_path, "1\nAnn Lee\t1\t2\nAnn Lee\t1\tBob\t1\n").pairs[0].first.subject == "Ann Lee"


def test_pictures_are_looked_for_beside_the_file(tmp_path: Path) -> None:
    found = read(tmp_path, ONE_FOLD)
    names = ("Ann/Ann_0001.jpg", "Ann/Ann_0002.JPG", "Bob/Bob_0001.jpg")
    for name in names[:2]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(NotFound, match=r"1 of the 3 pictures .* missing beside them, Bob/Bob_0001\.jpg among them"):
        found.pictures()
    (tmp_path / "Bob").mkdir()
    (tmp_path / names[2]).touch()
    assert list(found.pictures().values()) == [tmp_path / name for name in names]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "is empty"),
        (b"\xff\xfe\x00", "is not UTF-8"),
        ("ten\n", "line 1: the header must be"),
        ("0\t3\n", "line 1: the header must be"),
        ("1\t2\t3\n", "line 1: the header must be"),
        ("-1\n", "line 1: the header must be"),
        ("1\t99999999999\n", "line 1: the header must be"),
        ("2\t1\nAnn\t1\t2\n", "must have 4 lines after its header .*, and has 1"),
        (ONE_FOLD + "Ann\t1\t3\n", "must have 2 lines after its header .*, and has 3"),
        ("1\nAnn\t1\tBob\t1\nAnn\t1\t2\n", "line 2: a pair of two people where fold 1 must have one of one person"),
        ("1\nAnn\t1\t2\nBob\t1\t2\n", "line 3: a pair of one person where fold 1 must have one of two people"),
        ("1\nAnn\t1\nAnn\t1\tBob\t1\n", "line 2: 2 columns; three are of one person, four of two"),
        ("1\nAnn\t1\t2\nAnn\t1\tBob\t1\t7\n", "line 3: 5 columns"),
        ("1\nAnn\t1\t2\n\n", "must have 2 lines"),
        ("1\nAnn\tone\t2\nAnn\t1\tBob\t1\n", "line 2: a picture's number must be a whole one from 1 to 9999"),
        ("1\nAnn\t0\t2\nAnn\t1\tBob\t1\n", "line 2: a picture's number"),
        ("1\nAnn\t1\t10000\nAnn\t1\tBob\t1\n", "line 2: a picture's number"),
        ("1\nAnn\t2\t2\nAnn\t1\tBob\t1\n", "line 2: a picture is paired with itself"),
        ("1\nAnn\t1\t2\nAnn\t1\tAnn\t2\n", "line 3: four columns are of two people, and this is one"),
        ("1\n../Ann\t1\t2\nAnn\t1\tBob\t1\n", "line 2: a person's name must be that of a folder"),
        ("1\n..\t1\t2\nAnn\t1\tBob\t1\n", "line 2: a person's name must be that of a folder"),
        ("1\nAnn\t1\t2\nAnn\t1\t \t1\n", "line 3: a person's name must be that of a folder"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(content: str | bytes, told: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=told):
        read(tmp_path, content)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no file of pairs"):
        read_pairs(tmp_path / "pairs.txt")
