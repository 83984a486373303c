"""Pairs of faces in the format of Labeled Faces in the Wild (Huang et al., 2007).

    4<TAB>300                               folds, and pairs of each kind in a fold
    Abel_Pacheco<TAB>1<TAB>4                two pictures of one person
    Robert_Downey_Jr<TAB>1<TAB>Tommy_Shane_Steiner<TAB>1

In each fold come so many pairs of one person and as many of two. A header of one number is of a single fold. The
pictures lie beside the file, as NAME/NAME_0001.jpg.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lathe.errors import InvalidInput, NotFound

SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")

_MAX_NUMBER = 9999


@dataclass(frozen=True, order=True, slots=True)
class FacePicture:
    """A person's picture of this number."""

    subject: str
    number: int

    def path(self, root: Path) -> Path:
        """Where it lies: with the suffix that there is, else as LFW has it."""
        stem = root / self.subject / f"{self.subject}_{self.number:04}"
        candidates = [stem.with_name(f"{stem.name}{suffix}") for suffix in SUFFIXES]
        return next((path for path in candidates if path.is_file()), candidates[0])


@dataclass(frozen=True, slots=True)
class Pair:
    """Attributes:
    fold: from 0 up.
    """

    first: FacePicture
    second: FacePicture
    fold: int

    @property
    def is_same(self) -> bool:
        """Whether both are of one person."""
        return self.first.subject == self.second.subject


@dataclass(frozen=True)
class Pairs:
    """All pairs of a file, fold by fold.

    Attributes:
        root: the folder of the pictures.
    """

    root: Path
    folds: int
    pairs: Sequence[Pair]

    def pictures(self) -> dict[FacePicture, Path]:
        """The distinct ones, by subject and number.

        Raises:
            NotFound: some are missing.
        """
        named = sorted({picture for pair in self.pairs for picture in (pair.first, pair.second)})
        paths = {picture: picture.path(self.root) for picture in named}
        missing = [path for path in paths.values() if not path.is_file()]
        if missing:
            raise NotFound(
                f"{len(missing)} of the {len(paths)} pictures that the pairs name are missing beside them, "
                f"{missing[0].relative_to(self.root)} among them"
            )
        return paths


def read_pairs(path: Path) -> Pairs:
    """Reads a file of pairs; empty lines at its end are none.

    Raises:
        NotFound: there is no such file.
        InvalidInput: what is wrong, with its line.
    """
    if not path.is_file():
        raise NotFound(f"there is no file of pairs {path}")
    try:
        lines = path.read_text("utf-8").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path.name} is not a file of pairs: it is not UTF-8") from error
    if not lines:
        raise InvalidInput(f"{path.name} is empty: its first line must say how many folds and pairs there are")
    folds, each = _header(lines[0], path.name)
    wanted = folds * 2 * each
    if len(lines) - 1 != wanted:
        raise InvalidInput(
            f"{path.name} must have {wanted} lines after its header ({folds} × {each} pairs of one person and as many "
            f"of two), and has {len(lines) - 1}"
        )
    pairs = []
    for number, line in enumerate(lines[1:]):
        fold, place = divmod(number, 2 * each)
        where = f"{path.name}, line {number + 2}"
        pair = _pair(line, fold, where)
        if pair.is_same != (place < each):
            kinds = ("two people", "one person") if place < each else ("one person", "two people")
            raise InvalidInput(f"{where}: a pair of {kinds[0]} where fold {fold + 1} must have one of {kinds[1]}")
        pairs.append(pair)
    return Pairs(path.parent, folds, pairs)


def _header(line: str, name: str) -> tuple[int, int]:
    """Folds, and pairs of each kind in a fold."""
    words = line.split()
    if len(words) not in (1, 2) or not all(_is_number(word) for word in words):
        raise InvalidInput(
            f"{name}, line 1: the header must be the number of folds and of pairs, or of pairs alone, from 1 to "
            f"{_MAX_NUMBER}"
        )
    folds, each = (1, *map(int, words))[-2:]
    return folds, each


def _pair(line: str, fold: int, where: str) -> Pair:
    words = line.split("\t") if "\t" in line else line.split()
    if len(words) == 3:
        names, numbers = (words[0], words[0]), words[1:]
    elif len(words) == 4:
        names, numbers = (words[0], words[2]), [words[1], words[3]]
    else:
        raise InvalidInput(f"{where}: {len(words)} columns; three are of one person, four of two")
    for name in names:
        if not name.strip() or name.startswith(".") or set(name) & set("/\\\0"):
            raise InvalidInput(f"{where}: a person's name must be that of a folder beside the file")
    for number in numbers:
        if not _is_number(number):
            raise InvalidInput(f"{where}: a picture's number must be a whole one from 1 to {_MAX_NUMBER}")
    first, second = (FacePicture(name, int(number)) for name, number in zip(names, numbers, strict=True))
    if first == second:
        raise InvalidInput(f"{where}: a picture is paired with itself")
    if len(words) == 4 and first.subject == second.subject:
        raise InvalidInput(f"{where}: four columns are of two people, and this is one")
    return Pair(first, second, fold)


def _is_number(word: str) -> bool:
    """Whole, and from 1 to 9999."""
    return word.isascii() and word.isdecimal() and len(word) <= len(str(_MAX_NUMBER)) and int(word) > 0
