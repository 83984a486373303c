"""The decision thresholds of a card, measured on labelled faces."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lathe.v1 import card_pb2
from lathe_compression.comparisons import Faces
from lathe_compression.error_rates import FMRS, error_rates

Subjects = NDArray[np.integer] | NDArray[np.str_] | Sequence[str]


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
    return _measured(Faces(np.asarray(subjects), embeddings), fmrs, data)


def cross_thresholds(
    enrolled: NDArray[np.floating],
    probes: NDArray[np.floating],
    subjects: Subjects,
    fmrs: Sequence[float] = FMRS,
    data: str = "",
) -> list[card_pb2.MatchThreshold]:
    """Thresholds between an enrolled vector of another space and one of this; rows belong to the same pictures."""
    return _measured(Faces(np.asarray(subjects), probes, enrolled), fmrs, data)


def _measured(faces: Faces, fmrs: Sequence[float], data: str) -> list[card_pb2.MatchThreshold]:
    found = error_rates(faces, sorted(fmrs, reverse=True)).at.values()
    measured = []
    for point in found:
        fnmr = point.fnmr.interval()
        measured.append(
            card_pb2.MatchThreshold(
                fmr=point.fmr,
                min_similarity=point.min_similarity,
                fnmr=fnmr.value,
                fnmr_low=fnmr.low,
                fnmr_high=fnmr.high,
                data=data,
                impostor_comparisons=point.impostor_comparisons,
            )
        )
    return measured
