"""Accuracy on labelled pairs of faces, by the protocol of Labeled Faces in the Wild (Huang et al., 2007).

Fold by fold: the threshold that is best on the other folds decides the pairs of this one. The figure is the mean of the
folds, with their standard error. The interval beside it resamples people.

Where there is a single fold, no other is left to choose the threshold on: it is cut into ten parts, each with its share
of pairs of one person and of two, in the order of the file, and each part is decided by the threshold of the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lathe.evidence import Resampled, resamples_of
from lathe_compression.comparisons import Faces
from lathe_compression.error_rates import RESAMPLES

PARTS = 10

_LOWEST, _HIGHEST = -1.0, 1.1
"""Between which thresholds lie: the second is above any cosine, since rounding may carry one past 1."""


@dataclass(frozen=True)
class LabelledPairs:
    """P pairs of pictures, by their places among the faces.

    Attributes:
        first, second: P; with two networks the first is the enrolled one.
        fold: P, from 0 up.
    """

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    fold: NDArray[np.intp]


@dataclass(frozen=True)
class Accuracy:
    """Attributes:
    mean: over the folds; NaN where a threshold cannot be chosen on other pairs.
    standard_error: of the mean, from the spread of the folds.
    by_fold: in their order.
    is_cut: there was one fold, which was cut into parts.
    """

    mean: Resampled
    standard_error: float
    by_fold: Sequence[float]
    is_cut: bool


def accuracy(faces: Faces, pairs: LabelledPairs, *, resamples: int = RESAMPLES, seed: int = 0) -> Accuracy:
    """Accuracy of deciding by a threshold whether two pictures are of one person; a picture without a vector is
    taken to be of nobody else."""
    same = faces.subjects[pairs.first] == faces.subjects[pairs.second]
    is_cut = len(np.unique(pairs.fold)) < 2
    folds = _cut(same) if is_cut else pairs.fold
    decided = _Decided(faces.of_pairs(pairs.first, pairs.second), same, folds)
    one, other = faces.subjects[pairs.first], faces.subjects[pairs.second]
    by_fold = decided.by_fold(np.ones(len(same)))
    values = [
        _mean(decided.by_fold(np.where(same, counts[one], counts[one] * counts[other])))
        for counts in resamples_of(len(faces.counts), resamples, seed)
    ]
    known = by_fold[np.isfinite(by_fold)]
    error = float(known.std(ddof=1)) / math.sqrt(len(known)) if len(known) > 1 else math.nan
    return Accuracy(Resampled(_mean(by_fold), np.array(values)), error, by_fold.tolist(), is_cut)


def _cut(same: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The part of each pair of a single fold."""
    parts = np.zeros(len(same), np.intp)
    for kind in (same, ~same):
        places = np.flatnonzero(kind)
        parts[places] = np.arange(len(places)) * min(PARTS, len(places)) // max(1, len(places))
    return parts


class _Decided:
    """Pairs in the order of their similarity."""

    def __init__(self, similarity: NDArray[np.float32], same: NDArray[np.bool_], fold: NDArray[np.intp]) -> None:
        order = np.argsort(similarity, kind="stable")
        self._order = order
        self._similarity = similarity[order].astype(np.float64)
        self._same = same[order]
        # 1 where refusing the pair is right, −1 where it is wrong.
        self._gain = np.where(self._same, -1, 1)
        self._folds = [fold[order] == one for one in np.unique(fold)]
        differs = np.flatnonzero(np.diff(self._similarity, prepend=-np.inf) > 0) if len(order) else np.empty(0, np.intp)
        refusable = np.concatenate((differs, [len(order)]))
        self._cuts = refusable[np.concatenate((self._similarity, [np.inf]))[refusable] >= _LOWEST]

    def by_fold(self, weights: NDArray[np.integer] | NDArray[np.floating]) -> NDArray[np.float64]:
        """The accuracy of each fold, NaN where it or all the others count for nothing."""
        sorted_weights = np.asarray(weights)[self._order]
        return np.array([self._accuracy(fold, sorted_weights) for fold in self._folds])

    def _accuracy(self, fold: NDArray[np.bool_], weights: NDArray[np.integer] | NDArray[np.floating]) -> float:
        total = weights[fold].sum()
        learnt = np.where(fold, 0, weights)
        if not total or not learnt.any():
            return math.nan
        matches = self._similarity[fold] >= self._threshold(learnt)
        return float(weights[fold][matches == self._same[fold]].sum() / total)

    def _threshold(self, weights: NDArray[np.integer] | NDArray[np.floating]) -> float:
        """The one with the most weight on the right side; of equally good ones the lowest run's middle."""
        gained = np.concatenate(([0], np.cumsum(weights * self._gain)))[self._cuts]
        first = int(gained.argmax())
        worse = np.flatnonzero(gained[first:] != gained[first])
        last = first + int(worse[0]) - 1 if len(worse) else len(self._cuts) - 1
        below, above = self._cuts[first] - 1, self._cuts[last]
        low = max(_LOWEST, self._similarity[below]) if below >= 0 else _LOWEST
        high = self._similarity[above] if above < len(self._similarity) else _HIGHEST
        return float((low + high) / 2)


def _mean(by_fold: NDArray[np.float64]) -> float:
    known = by_fold[np.isfinite(by_fold)]
    return float(known.mean()) if len(known) else math.nan
