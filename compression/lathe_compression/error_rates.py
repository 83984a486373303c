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
from collections.abc import Callable, Mapping, Sequence
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

LARGEST_FMR = 0.05
"""The largest that is worth asking for; what is kept of all comparisons grows with it."""

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
class Decided:
    """The two rates at a threshold that was set before."""

    fmr: Resampled
    fnmr: Resampled


@dataclass(frozen=True)
class ErrorRates:
    """Attributes:
    at: by false match rate, those that the comparisons are enough for.
    decided: by threshold, those that were given; none where one of the two kinds of comparison is missing.
    eer: the smallest rate that both errors can be kept to, NaN where one of the two kinds of comparison is missing.
    roc: false match and false non-match rates, K × 2, the lowest false match rate first.
    genuine, impostors: how many comparisons there were of one person and of two.
    pairs_of_pictures: of two people; the two ways across two networks are one.
    """

    at: Mapping[float, OperatingPoint]
    decided: Mapping[float, Decided]
    eer: float
    roc: NDArray[np.float64]
    genuine: int
    impostors: int
    pairs_of_pictures: int

    def can_tell(self, fmr: float) -> bool:
        """Whether the comparisons are enough for a false match rate."""
        return _can_tell(fmr, self.pairs_of_pictures)


def _can_tell(fmr: float, pairs_of_pictures: int) -> bool:
    return fmr * pairs_of_pictures >= EXPECTED_FALSE_MATCHES


def error_rates(
    faces: Faces,
    fmrs: Sequence[float] = FMRS,
    *,
    thresholds: Sequence[float] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> ErrorRates:
    """All rates of some faces.

    With the same seed and the same subjects the resamples are the same, so that two networks can be paired.

    Args:
        fmrs: the rates that are asked for; those that the comparisons are too few for are left out.
        thresholds: set before, such as those of a card, at which both rates are wanted.

    Raises:
        InvalidInput: a rate that is not between 0 and 1.
    """
    if not all(0 < fmr < 1 for fmr in fmrs):
        raise InvalidInput("a false match rate must lie between 0 and 1")
    compared = compare(faces, _TAIL * max(fmrs, default=0.0), min(thresholds, default=math.inf))
    pairs_of_pictures = compared.impostors // 2 if faces.is_cross else compared.impostors
    has_both = len(compared.genuine) > 0 and compared.impostors > 0
    known = [fmr for fmr in dict.fromkeys(fmrs) if has_both and _can_tell(fmr, pairs_of_pictures)]
    given = {one: _as_float32(one) for one in thresholds if has_both}
    subjects = len(faces.counts)
    everyone_once = np.ones(subjects, np.int64)
    found = {fmr: _Counted(compared, everyone_once).threshold(fmr) for fmr in known}

    def figures(counts: NDArray[np.int64]) -> _Figures:
        counted = _Counted(compared, counts)
        return _Figures(
            anew={fmr: counted.fnmr(counted.threshold(fmr)) for fmr in known},
            at_found={fmr: counted.fmr(threshold) for fmr, threshold in found.items()},
            decided={one: (counted.fmr(threshold), counted.fnmr(threshold)) for one, threshold in given.items()},
        )

    values = figures(everyone_once)
    resampled = [figures(counts) for counts in resamples_of(subjects, resamples, seed)]

    def told(of: Callable[[_Figures], float]) -> Resampled:
        return Resampled(of(values), np.array([of(one) for one in resampled]))

    def point(fmr: float) -> OperatingPoint:
        fnmr, measured_fmr = told(lambda one: one.anew[fmr]), told(lambda one: one.at_found[fmr])
        return OperatingPoint(fmr, float(found[fmr]), fnmr, measured_fmr, compared.impostors)

    def at_given(threshold: float) -> Decided:
        return Decided(told(lambda one: one.decided[threshold][0]), told(lambda one: one.decided[threshold][1]))

    return ErrorRates(
        at={fmr: point(fmr) for fmr in known},
        decided={threshold: at_given(threshold) for threshold in given},
        eer=_equal_error_rate(compared),
        roc=_roc(compared, pairs_of_pictures),
        genuine=len(compared.genuine),
        impostors=compared.impostors,
        pairs_of_pictures=pairs_of_pictures,
    )


@dataclass(frozen=True)
class _Figures:
    """What one resample gives.

    Attributes:
        anew: by rate, the false non-match rate at the threshold that keeps the rate here.
        at_found: by rate, the false match rate at the threshold that keeps the rate with everyone counted once.
        decided: by threshold, both rates.
    """

    anew: Mapping[float, float]
    at_found: Mapping[float, float]
    decided: Mapping[float, tuple[float, float]]


class _Counted:
    """Rates where each subject counts any number of times; NaN where no comparison of the kind counts."""

    def __init__(self, compared: Compared, counts: NDArray[np.int64]) -> None:
        self._compared = compared
        self._impostors = compared.faces.impostors(counts)
        one, other = compared.tail_subjects
        self._matching = np.concatenate(([0], np.cumsum(counts[one] * counts[other])))
        self._refused = np.concatenate(([0], np.cumsum(counts[compared.genuine_subject])))

    def fmr(self, threshold: np.float32) -> float:
        """Share of the comparisons of two people that reach a threshold within the tail."""
        place = np.searchsorted(self._compared.negated_tail, -threshold, side="right")
        return float(self._matching[place] / self._impostors) if self._impostors else math.nan

    def fnmr(self, threshold: np.float32) -> float:
        """Share of the comparisons of one person that do not reach a threshold."""
        place = np.searchsorted(self._compared.genuine, threshold, side="left")
        return float(self._refused[place] / self._refused[-1]) if self._refused[-1] else math.nan

    def threshold(self, fmr: float) -> np.float32:
        """The lowest that keeps a false match rate: just above the highest similarity that must not match.

        Where the tail ends before the rate is reached it is above its end: higher than need be, so on the safe side.
        """
        return lowest_threshold(self._compared.negated_tail, self._matching[1:], fmr * self._impostors)


def lowest_threshold(negated: NDArray[np.float32], reached: NDArray[np.int64], allowed: float) -> np.float32:
    """The lowest that so many reach at most: just above the first similarity that more than these do.

    Args:
        negated: similarities, the highest first; below 0, so that they rise.
        reached: how many are at least as high as each.
    """
    # A whole number that a product comes an ulp short of is meant.
    excluded = int(np.searchsorted(reached, math.floor(allowed * (1 + 1e-12)), side="right"))
    return np.float32(np.nextafter(-negated[min(excluded, len(negated) - 1)], np.float32(np.inf)))


def _as_float32(threshold: float) -> np.float32:
    """What decides as this threshold does, since similarities are float32."""
    rounded = np.float32(threshold)
    return rounded if float(rounded) >= threshold else np.float32(np.nextafter(rounded, np.float32(np.inf)))


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
