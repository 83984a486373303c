"""The decision thresholds of a card, measured on labelled faces: within its space, and across from another one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from lathe.v1 import card_pb2
from lathe_compression.comparisons import Faces
from lathe_compression.error_rates import FMRS, OperatingPoint, error_rates

Subjects = NDArray[np.integer] | NDArray[np.str_] | Sequence[str]

MARGIN = 0.01
"""How much worse the false non-match rate may be across two spaces, for enrolled vectors to stay."""


def thresholds_of(
    embeddings: NDArray[np.floating], subjects: Subjects, fmrs: Sequence[float] = FMRS, data: str = ""
) -> list[card_pb2.MatchThreshold]:
    """Thresholds between vectors of one space, the highest false match rate first.

    Args:
        embeddings: N × D, a row of NaN where no face was found.
        subjects: N, the person on each picture.
        fmrs: a rate that the comparisons are too few for is left out.
        data: what the faces are called in the card.
    """
    faces = Faces(np.asarray(subjects), embeddings)
    return _carded(error_rates(faces, sorted(fmrs, reverse=True)).at.values(), data)


def cross_thresholds(
    enrolled: NDArray[np.floating],
    probes: NDArray[np.floating],
    subjects: Subjects,
    fmrs: Sequence[float] = FMRS,
    data: str = "",
    margin: float = MARGIN,
) -> list[card_pb2.MatchThreshold]:
    """Thresholds between an enrolled vector of another space and one of this, where it is proven that the enrolled ones
    may stay; so none where nothing is proven, and then the other space is not for the card.

    Proven is a rate at which the false non-match rate across the two is worse than within the enrolled space by no more
    than the margin, with all of the 95 % interval of the paired difference: as sure as the faces allow.

    Args:
        enrolled, probes: N × D, of the same pictures.
    """
    rates = sorted(fmrs, reverse=True)
    people = np.asarray(subjects)
    across = error_rates(Faces(people, probes, enrolled), rates).at
    within = error_rates(Faces(people, enrolled), rates).at
    proven = [
        point
        for fmr, point in across.items()
        if fmr in within and point.fnmr.less(within[fmr].fnmr).interval().high <= margin
    ]
    return _carded(proven, data)


def _carded(points: Iterable[OperatingPoint], data: str) -> list[card_pb2.MatchThreshold]:
    found = []
    for point in points:
        fnmr, fmr = point.fnmr.interval(), point.measured_fmr.interval()
        found.append(
            card_pb2.MatchThreshold(
                fmr=point.fmr,
                min_similarity=point.min_similarity,
                fnmr=fnmr.value,
                fnmr_low=fnmr.low,
                fnmr_high=fnmr.high,
                data=data,
                impostor_comparisons=point.impostor_comparisons,
                fmr_low=fmr.low,
                fmr_high=fmr.high,
            )
        )
    return found
