"""The faces that judge an embedding network, less those that made a variant.

| data | what is measured |
|---|---|
| a file of pairs, or a folder with a `pairs.txt` | accuracy on the pairs; the rest on all pictures that they name |
| a folder with a folder of pictures for each person | everything but the accuracy, which needs pairs |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lathe.errors import InvalidInput, NotFound
from lathe.used_pictures import UsedPictures
from lathe_compression.pairs import Pair, read_pairs
from lathe_compression.pictures import PICTURE_SUFFIXES, file_digest
from lathe_compression.verification import LabelledPairs

PAIRS_FILE = "pairs.txt"


@dataclass(frozen=True)
class FaceData:
    """Attributes:
    name: of the file of pairs with its folder, or of the folder.
    paths: of the pictures that judge, each once.
    subjects: whose each is.
    pairs: by their places among the pictures; none for a folder of people.
    folds: that the file has.
    left_out: pictures that made a variant.
    pairs_left_out: pairs that name one of these.
    """

    name: str
    paths: Sequence[Path]
    subjects: Sequence[str]
    pairs: LabelledPairs
    folds: int
    left_out: int
    pairs_left_out: int


def load_faces(data: Path, used: UsedPictures) -> FaceData:
    """Reads a file of pairs or a folder of people.

    Args:
        used: pictures that made a variant: they never judge it.

    Raises:
        NotFound: no such file or folder, or pictures that it names are missing.
        InvalidInput: it makes no sense, or no picture is left.
    """
    if data.is_dir() and (data / PAIRS_FILE).is_file():
        data /= PAIRS_FILE
    if data.is_dir():
        paths = _people(data)
        subjects = {path: path.parent.name for path in paths}
        name, folds, pairs = data.resolve().name, 0, list[tuple[Path, Path, Pair]]()
    else:
        found = read_pairs(data)
        pictures = found.pictures()
        paths = list(pictures.values())
        subjects = {path: picture.subject for picture, path in pictures.items()}
        name, folds = f"{found.root.resolve().name}/{data.name}", found.folds
        pairs = [(pictures[pair.first], pictures[pair.second], pair) for pair in found.pairs]
    kept = [path for path in paths if not used or file_digest(path) not in used]
    if not kept:
        raise InvalidInput("every picture was used to make the variant; none is left to judge it")
    place = {path: number for number, path in enumerate(kept)}
    kept_pairs = [
        (place[one], place[other], pair.fold) for one, other, pair in pairs if one in place and other in place
    ]
    return FaceData(
        name=name,
        paths=kept,
        subjects=[subjects[path] for path in kept],
        pairs=LabelledPairs(*np.array(kept_pairs, np.intp).reshape(-1, 3).T),
        folds=folds,
        left_out=len(paths) - len(kept),
        pairs_left_out=len(pairs) - len(kept_pairs),
    )


def _people(folder: Path) -> list[Path]:
    """The pictures of every person's folder."""
    paths = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in PICTURE_SUFFIXES)
    if not paths:
        raise NotFound(f"{folder} holds neither a {PAIRS_FILE} nor a folder of pictures for each person")
    return paths
