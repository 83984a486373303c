"""Searches of a gallery against searches done the slow way."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from lathe_compression.comparisons import Faces
from lathe_compression.identification import identification
from tests.compression.face_vectors import people

FPIR = 1e-2


def test_people_who_are_unlike_are_all_found() -> None:
    subjects = np.repeat(np.arange(400), 6)
    found = identification(Faces(subjects, np.eye(400)[subjects]), resamples=5)
    assert (found.rank1.value, found.gallery, found.searches) == (1.0, 400, 2000)
    point = found.at[FPIR]
    assert (point.fnir.value, point.strangers, found.open_gallery) == (0.0, 1200, 200)
    assert 0 < point.min_similarity < 1e-6


def test_ties_are_lost() -> None:
    found = identification(Faces(np.repeat(np.arange(200), 11), np.ones((2200, 4))), resamples=5)
    assert found.rank1.value == 0.0
    assert found.at[FPIR].fnir.value == 1.0


def test_twins_are_lost_to_each_other() -> None:
    """Two pairs of 400 people: too few of them are strangers to move the threshold."""
    subjects = np.repeat(np.arange(400), 6)
    vectors = np.eye(400)
    vectors[[1, 3]] = vectors[[0, 2]]
    found = identification(Faces(subjects, vectors[subjects]), resamples=5).at[FPIR]
    assert found.min_similarity < 1
    assert 0 < found.fnir.value <= 4 / 200


def slowly(
    subjects: NDArray[np.int64], enrolled: NDArray[np.float32], probes: NDArray[np.float32], random: np.random.Generator
) -> tuple[float, float]:
    """Rank-1 of the closed set and FNIR of the open one, of one draw."""
    gallery = np.array([random.choice(np.flatnonzero(subjects == one)) for one in np.unique(subjects)])
    some = random.permutation(len(gallery))[: len(gallery) // 2]
    hits, mated, strangers = [], [], []
    for place, own in enumerate(subjects):
        if gallery[own] != place:
            hits.append(np.argmax(enrolled[gallery] @ probes[place]) == own)
        scores = enrolled[gallery[some]] @ probes[place]
        if own not in some:
            strangers.append(scores.max())
        elif gallery[own] != place:
            mated.append((some[scores.argmax()] == own, scores.max()))
    threshold = sorted(strangers)[-math.floor(FPIR * len(strangers)) - 1]
    return float(np.mean(hits)), float(np.mean([not (found and score > threshold) for found, score in mated]))


@pytest.mark.parametrize("is_cross", [False, True])
def test_as_the_slow_way(is_cross: bool) -> None:
    """Both draw at random, so means of draws are compared."""
    random = np.random.default_rng(0)
    subjects, vectors = people(250, 9, 0.7, random, dimensions=16)
    other = vectors + random.normal(scale=0.08, size=vectors.shape) if is_cross else vectors
    enrolled, probes = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (vectors, other))
    expected = np.mean([slowly(subjects, enrolled, probes, random) for _ in range(20)], axis=0)
    found = identification(Faces(subjects, probes, enrolled if is_cross else None), resamples=50)
    assert found.rank1.value == pytest.approx(expected[0], abs=0.02)
    assert found.at[FPIR].fnir.value == pytest.approx(expected[1], abs=0.04)
    assert 0.3 < found.rank1.value < 0.95
    assert 0.2 < found.at[FPIR].fnir.value < 0.95
    for one in (found.rank1, found.at[FPIR].fnir):
        interval = one.interval()
        assert interval.low < one.value < interval.high < interval.low + 0.2


def test_too_few_strangers_give_no_rate() -> None:
    found = identification(Faces(*people(40, 4, 0.5, np.random.default_rng(1))), resamples=5)
    assert found.at == {}
    assert 0 < found.rank1.value <= 1


@pytest.mark.parametrize("subjects", [[0, 1, 2], [0]])
def test_nobody_to_search_for(subjects: list[int]) -> None:
    found = identification(Faces(np.array(subjects), np.eye(3)[subjects]), resamples=5)
    assert math.isnan(found.rank1.value)
    assert found.at == {}


def test_picture_without_a_vector_is_not_found() -> None:
    subjects = np.repeat(np.arange(300), 8)
    vectors = np.eye(300)[subjects]
    vectors[::8] = np.nan  # enrolled it hides its person, searched for it finds nobody
    found = identification(Faces(subjects, vectors), resamples=5)
    assert found.rank1.value == pytest.approx(7 / 8 * 6 / 7, abs=0.02)
