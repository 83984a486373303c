"""False matches and false non-matches over all comparisons of some faces (ISO/IEC 19795-1).

The false match rate (FMR) is the share of comparisons of two people that reach the threshold, the false non-match rate
(FNMR) the share of those of one person that do not. A picture without a vector matches nothing, and its comparisons
count.

Comparisons that share a person are not independent, so the intervals resample people: a comparison of i and j counts
w_i · w_j times, one within i w_i times (the subset bootstrap of Bolle, Ratha and Pankanti, 2004), and the threshold is
found anew in every resample, since it is as uncertain as the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lathe.errors import InvalidInput
from lathe.evidence import Resampled, resamples_of
from lathe_compression.comparisons import NO_MATCH, Compared, Faces, compare

FMRS = (1e-2, 1e-3, 1e-4)
RESAMPLES = 1000

EXPECTED_FALSE_MATCHES = 10
"""A rate is not told from fewer comparisons than would give so many false matches."""

_TAIL = 4.0
"""Of the comparisons of two people so many times the largest rate are kept: in a resample the rate is another."""
_POINTS_PER_DECADE = 10


@dataclass(frozen=True)
class OperatingPoint:
    """What a threshold gives that is as low as a false match rate allows.

    Attributes:
        fmr: the highest that is allowed.
        min_similarity: from here on two faces match.
        fnmr: at a threshold that keeps the rate.
        measured_fmr: at `min_similarity`; its interval says how far other people may be from the rate.
        impostor_comparisons: of two people, that found the threshold.
    """

    fmr: float
    min_similarity: float
    fnmr: Resampled
    measured_fmr: Resampled
    impostor_comparisons: int


@dataclass(frozen=True)
class ErrorRates:
    """Attributes:
    at: by false match rate, those that the comparisons are enough for.
    eer: the smallest rate that both errors can be kept to, NaN where one of the two kinds of comparison is missing.
    roc: false match and false non-match rates, K × 2, the lowest false match rate first.
    genuine, impostors: how many comparisons there were of one person and of two.
    """

    at: Mapping[float, OperatingPoint]
    eer: float
    roc: NDArray[np.float64]
    genuine: int
    impostors: int


def error_rates(faces: Faces, fmrs: Sequence[float] = FMRS, *, resamples: int = RESAMPLES, seed: int = 0) -> ErrorRates:
    """All rates of some faces.

    With the same seed and the same subjects the resamples are the same, so that two networks can be paired.

    Args:
        fmrs: the rates that are asked for; those that the comparisons are too few for are left out.

    Raises:
        InvalidInput: a rate that is not between 0 and 1.
    """
    if not all(0 < fmr < 1 for fmr in fmrs):
        raise InvalidInput("a false match rate must lie between 0 and 1")
    compared = compare(faces, _TAIL * max(fmrs, default=0.0))
    pairs_of_pictures = compared.impostors // 2 if faces.is_cross else compared.impostors
    has_both = len(compared.genuine) > 0 and compared.impostors > 0
    known = [fmr for fmr in fmrs if has_both and fmr * pairs_of_pictures >= EXPECTED_FALSE_MATCHES]
    return ErrorRates(
        at=_operating_points(compared, known, resamples, seed),
        eer=_equal_error_rate(compared),
        roc=_roc(compared, pairs_of_pictures),
        genuine=len(compared.genuine),
        impostors=compared.impostors,
    )


def _operating_points(
    compared: Compared, fmrs: Sequence[float], resamples: int, seed: int
) -> dict[float, OperatingPoint]:
    if not fmrs:
        return {}
    weighted = _Weighted(compared, fmrs)
    subjects = len(compared.faces.counts)
    once = weighted.rates(np.ones(subjects, np.int64))
    found = np.array([weighted.rates(counts) for counts in resamples_of(subjects, resamples, seed)])
    return {
        fmr: OperatingPoint(
            fmr,
            float(weighted.thresholds[number]),
            Resampled(float(once[0, number]), found[:, 0, number]),
            Resampled(float(once[1, number]), found[:, 1, number]),
            compared.impostors,
        )
        for number, fmr in enumerate(fmrs)
    }


class _Weighted:
    """Rates at some thresholds, where subjects count any number of times.

    Attributes:
        thresholds: just above the highest similarities that do not match, where everyone counts once.
    """

    def __init__(self, compared: Compared, fmrs: Sequence[float]) -> None:
        self._compared = compared
        self._fmrs = np.array(fmrs)
        self._one, self._other = (np.ascontiguousarray(column) for column in compared.tail_subjects.T)
        everyone = np.ones(len(compared.faces.counts), np.int64)
        highest = self._highest_excluded(self._reached(everyone), everyone)
        self.thresholds = np.nextafter(highest, np.float32(np.inf))
        self._matching = np.searchsorted(-compared.tail, -highest, side="left")

    def rates(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """2 × K: false non-match rates at thresholds found anew, and false match rates at `thresholds`; NaN where
        there is no comparison of the one kind or the other."""
        compared = self._compared
        reached = self._reached(counts)
        refused = np.searchsorted(compared.genuine, self._highest_excluded(reached, counts), side="right")
        weights = np.concatenate(([0], np.cumsum(counts[compared.genuine_subject])))
        impostors = compared.faces.impostors(counts)
        nothing = np.full(len(self._fmrs), np.nan)
        fnmr = weights[refused] / weights[-1] if weights[-1] else nothing
        fmr = np.concatenate(([0], reached))[self._matching] / impostors if impostors else nothing
        return np.stack((fnmr, fmr))

    def _reached(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of the tail, how much of its weight stands at each place or before."""
        found: NDArray[np.int64] = np.cumsum(counts[self._one] * counts[self._other])
        return found

    def _highest_excluded(self, reached: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.float32]:
        """The highest similarity that must not match, by rate. Where the tail ends before the rate is reached it is
        its end: higher than need be, and so on the safe side."""
        # A whole number that the product comes an ulp short of is meant.
        allowed = np.floor(self._fmrs * self._compared.faces.impostors(counts) * (1 + 1e-12))
        excluded = np.searchsorted(reached, allowed, side="right")
        tail = self._compared.tail
        return tail[np.minimum(excluded, len(tail) - 1)]


def _equal_error_rate(compared: Compared) -> float:
    """The threshold moves over all similarities of one person: between two of them only false matches change."""
    count = len(compared.genuine)
    if not count or not compared.impostors:
        return math.nan
    fmr = compared.reached / compared.impostors
    fnmr = np.searchsorted(compared.genuine, compared.genuine, side="left") / count
    return float(np.maximum(fmr, fnmr).min())


def _roc(compared: Compared, pairs_of_pictures: int) -> NDArray[np.float64]:
    """Ten points a decade, from the least rate that the comparisons are enough for up to 1."""
    count = len(compared.genuine)
    if not count or pairs_of_pictures < EXPECTED_FALSE_MATCHES:
        return np.empty((0, 2))
    lowest = math.log10(EXPECTED_FALSE_MATCHES / pairs_of_pictures)
    fmrs = 10.0 ** np.array([0.0, *np.arange(0, lowest, -1 / _POINTS_PER_DECADE)[1:], lowest])[::-1]
    refused = np.searchsorted(-compared.reached, -fmrs * compared.impostors, side="left")
    without_vector = np.searchsorted(compared.genuine, np.float32(NO_MATCH), side="right")
    refused = np.maximum(refused, without_vector)
    return np.stack((fmrs, refused / count), axis=1)
