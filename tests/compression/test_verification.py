"""Accuracy on pairs against the protocol done the slow way."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lathe.evidence import resamples_of
from lathe_compression.comparisons import NO_MATCH, Faces
from lathe_compression.verification import PARTS, LabelledPairs, accuracy
from tests.compression.face_vectors import people

NOTHING = np.nan


def faces_at(pairs: list[tuple[float, bool]]) -> tuple[Faces, NDArray[np.intp], NDArray[np.intp]]:
    """Two pictures a pair of exactly this similarity, of one person or of two; none has a vector where it is NaN."""
    vectors, subjects = [], []
    for number, (similarity, same) in enumerate(pairs):
        other = (math.cos(math.acos(similarity)), math.sin(math.acos(similarity))) if similarity == similarity else ()
        vectors += [(1.0, 0.0), other or (NOTHING, NOTHING)]
        subjects += [2 * number, 2 * number if same else 2 * number + 1]
    places = np.arange(len(vectors)).reshape(-1, 2)
    return Faces(np.array(subjects), np.array(vectors)), places[:, 0], places[:, 1]


def accuracy_of(folds: list[list[tuple[float, bool]]], resamples: int = 2) -> tuple[list[float], float]:
    """Of each fold, and its mean."""
    faces, first, second = faces_at([pair for fold in folds for pair in fold])
    fold = np.repeat(np.arange(len(folds)), [len(one) for one in folds])
    found = accuracy(faces, LabelledPairs(first, second, fold), resamples=resamples)
    return list(found.by_fold), found.mean.value


SAME, OTHER = True, False


@pytest.mark.parametrize(
    ("folds", "expected"),
    [
        pytest.param([[(0.9, SAME), (0.1, OTHER)]] * 2, [1, 1], id="kept apart"),
        pytest.param([[(0.1, SAME), (0.9, OTHER)]] * 2, [0.5, 0.5], id="the wrong way round"),
        pytest.param(
            [[(0.9, SAME), (0.7, OTHER)], [(0.6, SAME), (0.2, OTHER)]], [0.5, 0.5], id="each where the other is not"
        ),
        pytest.param(
            [[(0.9, SAME), (0.6, OTHER)], [(0.85, SAME), (0.4, OTHER)]], [1, 1], id="half way between its neighbours"
        ),
        pytest.param([[(0.9, SAME), (NOTHING, SAME)], [(0.8, SAME), (0.1, OTHER)]], [0.5, 0.5], id="nothing acquired"),
        pytest.param([[(NOTHING, SAME)] * 4, [(0.8, SAME), (0.1, OTHER)]], [0, 0.5], id="nothing acquired at all"),
        pytest.param([[(NOTHING, OTHER), (0.9, SAME)], [(0.8, SAME), (0.1, OTHER)]], [1, 0.5], id="rightly nobody"),
    ],
)
def test_threshold_is_that_of_the_other_folds(folds: list[list[tuple[float, bool]]], expected: list[float]) -> None:
    by_fold, mean = accuracy_of(folds)
    assert by_fold == expected
    assert mean == pytest.approx(np.mean(expected))


def test_standard_error_is_of_the_folds() -> None:
    good, bad = [(0.9, SAME), (0.1, OTHER)], [(0.1, SAME), (0.1, OTHER)]
    faces, first, second = faces_at([*good, *good, *good, *bad])
    found = accuracy(faces, LabelledPairs(first, second, np.repeat(np.arange(4), 2)), resamples=2)
    assert list(found.by_fold) == [1, 1, 1, 0.5]
    assert found.standard_error == pytest.approx(np.std([1, 1, 1, 0.5], ddof=1) / 2)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([NOTHING, -0.5, 0.0, 0.25, 0.5, 0.75]), st.booleans(), st.integers(0, 2)),
        min_size=4,
        max_size=14,
    ).filter(lambda pairs: len({fold for _, _, fold in pairs}) > 1)
)
def test_no_other_threshold_fits_the_other_folds_better(pairs: list[tuple[float, bool, int]]) -> None:
    """What the fold is decided with is as good on the others as any threshold is."""
    faces, first, second = faces_at([(score, same) for score, same, _ in pairs])
    fold = np.array([one[2] for one in pairs])
    found = accuracy(faces, LabelledPairs(first, second, fold), resamples=3)
    similarity = faces.of_pairs(first, second).astype(float)
    same = np.array([one[1] for one in pairs])
    counts = [np.ones(len(faces.counts), int), *resamples_of(len(faces.counts), 3)]
    values = [found.mean.value, *found.mean.values]
    for each, value in zip(counts, values, strict=True):
        weights = each[faces.subjects[first]] * np.where(same, 1, each[faces.subjects[second]])
        expected = [slowly(similarity, same, weights, fold == one) for one in np.unique(fold)]
        known = [one for one in expected if not math.isnan(one)]
        assert value == pytest.approx(np.mean(known) if known else math.nan, nan_ok=True)


def slowly(
    similarity: NDArray[np.float64], same: NDArray[np.bool_], weights: NDArray[np.int64], fold: NDArray[np.bool_]
) -> float:
    """Accuracy of a fold, with every threshold tried from the lowest up."""
    learnt = np.where(fold, 0, weights)
    if not weights[fold].sum() or not learnt.sum():
        return math.nan
    values = [-1.0, *sorted(set(similarity[(learnt > 0) & (similarity > NO_MATCH)])), 1.1]
    thresholds = [(low + high) / 2 for low, high in pairwise(values)]
    right = [float(learnt[(similarity >= one) == same].sum()) for one in thresholds]
    run = [place for place, one in enumerate(right) if one == max(right)]
    last = run[0]
    while last + 1 in run:
        last += 1
    threshold = (values[run[0]] + values[last + 1]) / 2
    return float(weights[fold & ((similarity >= threshold) == same)].sum() / weights[fold].sum())


def test_single_fold_is_cut() -> None:
    random = np.random.default_rng(0)
    pairs = [(float(random.uniform(0.4, 1)), SAME) for _ in range(25)]
    pairs += [(float(random.uniform(-1, 0.6)), OTHER) for _ in range(25)]
    faces, first, second = faces_at(pairs)
    found = accuracy(faces, LabelledPairs(first, second, np.zeros(50, int)), resamples=2)
    assert found.is_cut
    assert len(found.by_fold) == PARTS
    best_on_itself = max(np.mean([(score >= t) == same for score, same in pairs]) for t, _ in pairs)
    assert 0.7 < found.mean.value <= best_on_itself


@pytest.mark.parametrize("pairs", [[], [(0.9, SAME)], [(0.9, SAME), (0.1, OTHER)]])
def test_too_few_pairs_to_learn_a_threshold_from(pairs: list[tuple[float, bool]]) -> None:
    faces, first, second = faces_at([*pairs, (0.3, SAME)])
    chosen = LabelledPairs(first[:-1], second[:-1], np.zeros(len(pairs), int))
    assert math.isnan(accuracy(faces, chosen, resamples=2).mean.value)


def test_interval_holds_the_truth() -> None:
    """Of 60 worlds of 120 people some 95 %; 0.85 to 1 is within chance."""
    random = np.random.default_rng(1)
    truth = world(random, 3000).value
    held = 0
    for _ in range(60):
        found = world(random, 120, resamples=200).interval()
        held += found.low <= truth <= found.high
    assert 0.7 < truth < 0.95
    assert held / 60 >= 0.85


def world(random: np.random.Generator, count: int, resamples: int = 1):  # type: ignore[no-untyped-def]
    """A pair of each person, and one of each with the next, in four folds."""
    subjects, vectors = people(count, 3, 0.9, random)
    one = np.arange(0, 3 * count, 3)
    pairs = LabelledPairs(
        np.tile(one, 2), np.concatenate((one + 1, np.roll(one, -1) + 2)), np.tile(one * 4 // (3 * count), 2)
    )
    return accuracy(Faces(subjects, vectors), pairs, resamples=resamples).mean
