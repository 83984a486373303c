"""The faces that judge an embedding network: the pictures of a file of pairs, less those that made a variant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lathe.errors import InvalidInput, NotFound
from lathe.used_pictures import UsedPictures
from lathe_compression.pairs import read_pairs
from lathe_compression.pictures import file_digest
from lathe_compression.verification import LabelledPairs

PAIRS_FILE = "pairs.txt"


@dataclass(frozen=True)
class FaceData:
    """Attributes:
    name: of the file of pairs and its folder.
    paths: of the pictures that judge, each once.
    subjects: whose each is.
    pairs: by their places among the pictures.
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
    """Reads a file of pairs, or the `pairs.txt` of a folder.

    Args:
        used: pictures that made a variant: they never judge it.

    Raises:
        NotFound: no such file, or pictures that it names are missing.
        InvalidInput: it makes no sense, or no picture is left.
    """
    if data.is_dir() and not (data / PAIRS_FILE).is_file():
        raise NotFound(f"an embedding network is judged by a file of pairs, and {data} holds no {PAIRS_FILE}")
    found = read_pairs(data / PAIRS_FILE if data.is_dir() else data)
    pictures = found.pictures()
    kept = [picture for picture, path in pictures.items() if not used or file_digest(path) not in used]
    if not kept:
        raise InvalidInput("every picture was used to make the variant; none is left to judge it")
    place = {picture: number for number, picture in enumerate(kept)}
    pairs = [pair for pair in found.pairs if pair.first in place and pair.second in place]
    return FaceData(
        name=f"{found.root.resolve().name}/{PAIRS_FILE if data.is_dir() else data.name}",
        paths=[pictures[picture] for picture in kept],
        subjects=[picture.subject for picture in kept],
        pairs=LabelledPairs(
            np.array([place[pair.first] for pair in pairs], np.intp),
            np.array([place[pair.second] for pair in pairs], np.intp),
            np.array([pair.fold for pair in pairs], np.intp),
        ),
        folds=found.folds,
        left_out=len(pictures) - len(kept),
        pairs_left_out=len(found.pairs) - len(pairs),
    )
