"""The decision thresholds of a card, measured on labelled faces: within its space, and across from another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lathe.v1 import card_pb2
from lathe_compression.comparisons import Faces
from lathe_compression.error_rates import FMRS, OperatingPoint, error_rates

Subjects = NDArray[np.integer] | NDArray[np.str_] | Sequence[str]
Points = Mapping[float, OperatingPoint]
"""By false match rate, the highest first; a rate that the comparisons are too few for has none."""

MARGIN = 0.01
"""How much worse the false non-match rate may be across two spaces, for enrolled vectors to stay."""


def points_within(embeddings: NDArray[np.floating], subjects: Subjects, fmrs: Sequence[float] = FMRS) -> Points:
    """Between vectors of one space.

    Args:
        embeddings: N × D, a row of NaN where no face was found.
        subjects: N, the person on each picture.
    """
    return error_rates(Faces(np.asarray(subjects), embeddings), sorted(fmrs, reverse=True)).at


def points_across(
    enrolled: NDArray[np.floating],
    probes: NDArray[np.floating],
    subjects: Subjects,
    within: Points,
    margin: float = MARGIN,
) -> Points:
    """Between an enrolled vector of another space and one of this, where it is proven that the enrolled ones may stay;
    so none where nothing is proven, and then the other space is not for the card.

    Proven is a rate at which the false non-match rate across the two is worse than within the enrolled space by no more
    than the margin, with all of the 95 % interval of the paired difference. Where no comparison differs that interval
    is a point, however few people there are; so the margin must also be wide enough for the rule of three: what none of
    n people showed may still be so for 3 / n of all.

    Args:
        enrolled, probes: N × D, of the same pictures.
        within: the enrolled space.
    """
    faces = Faces(np.asarray(subjects), probes, enrolled)
    people = np.count_nonzero(faces.counts > 1)
    if people * margin < 3:
        return {}
    across = error_rates(faces, list(within)).at
    return {fmr: point for fmr, point in across.items() if point.fnmr.less(within[fmr].fnmr).interval().high <= margin}


def thresholds_of(points: Points, data: str = "") -> list[card_pb2.MatchThreshold]:
    """As they stand in a card.

    Args:
        data: what the faces are called there.
    """
    found = []
    for point in points.values():
        fnmr, fmr = point.fnmr.interval(), point.measured_fmr.interval()
        found.append(
            card_pb2.MatchThreshold(
                fmr=point.fmr,
                min_similarity=point.min_similarity,
                fnmr=fnmr.value,
                fnmr_low=min(fnmr.low, fnmr.value),
                fnmr_high=max(fnmr.high, fnmr.value),
                data=data,
                impostor_comparisons=point.impostor_comparisons,
                fmr_low=fmr.low,
                fmr_high=fmr.high,
            )
        )
    return found
