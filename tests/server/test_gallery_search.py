"""Exact search: what one matrix gives is what holding each template against the probe gives."""

from __future__ import annotations

import random

import numpy as np
import pytest
from numpy.typing import NDArray

from lathe_server.gallery.search import FIRST_ROWS, Index, Match

Vector = NDArray[np.float32]


def unit(*numbers: float) -> Vector:
    vector = np.array(numbers, np.float32)
    return vector / np.linalg.norm(vector)


def crowd(count: int, dimensions: int = 16, seed: int = 0) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).standard_normal((count, dimensions)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def one_by_one(known: dict[str, tuple[str, Vector]], probe: Vector, least: float, limit: int) -> list[tuple[str, str]]:
    """People and templates as `Index.search` finds them, by the plainest way."""
    best: dict[str, tuple[float, str]] = {}
    for template, (subject, vector) in known.items():
        similarity = float(vector.astype(np.float64) @ probe.astype(np.float64))
        if similarity >= least and similarity > best.get(subject, (-2.0, ""))[0]:
            best[subject] = similarity, template
    ranked = sorted(best, key=lambda subject: -best[subject][0])[:limit]
    return [(subject, best[subject][1]) for subject in ranked]


@pytest.mark.parametrize("seed", range(8))
def test_adding_and_removing_in_any_order_finds_what_a_plain_loop_finds(seed: int) -> None:
    dice, vectors = random.Random(seed), crowd(3 * FIRST_ROWS, seed=seed)
    index, known = Index(16), dict[str, tuple[str, Vector]]()
    for number, vector in enumerate(vectors):
        name, subject = f"t{number}", f"s{dice.randrange(400)}"
        index.add(name, subject, vector)
        known[name] = subject, vector
        if dice.random() < 0.4:
            gone = dice.choice(list(known)) if number % 50 == 0 else next(iter(known))
            index.remove(gone)
            del known[gone]
    assert len(index) == len(known) > FIRST_ROWS
    for probe in crowd(20, seed=seed + 100):
        for least, limit in ((0.3, 5), (0.6, 100), (-1.0, 3), (0.999, 5)):
            found = [(match.subject, match.template) for match in index.search(probe, least, limit)]
            assert found == one_by_one(known, probe, least, limit)


def test_of_equals_the_one_who_came_first_is_named_first() -> None:
    index = Index(2)
    for name, subject in (("9", "zoe"), ("1", "ann"), ("5", "bob"), ("0", "zoe")):
        index.add(name, subject, unit(1, 0))
    index.remove("9")  # the last row takes its place
    assert [match.subject for match in index.search(unit(1, 0), 0.5, 9)] == ["ann", "bob", "zoe"]
    assert index.search(unit(1, 0), 0.5, 1) == [Match("ann", "1", 1.0)]


def test_the_nearest_of_some_templates_is_told_however_far_it_is() -> None:
    index = Index(2)
    for name, vector in (("1", unit(1, 0)), ("2", unit(0, 1)), ("3", unit(-1, 0))):
        index.add(name, "ann", vector)
    assert index.nearest(unit(-1, 0.1), ["1", "2"]).template == "2"
    assert index.nearest(unit(1, 0), ["3"]) == Match("ann", "3", -1.0)


def test_what_is_removed_is_overwritten() -> None:
    """As it is when room is made for more."""
    index, vectors = Index(16), crowd(FIRST_ROWS + 1)
    first = index._vectors
    for number, vector in enumerate(vectors):
        index.add(str(number), "ann", vector)
    assert not first.any()
    for number in range(len(vectors)):
        index.remove(str(number))
    assert not index._vectors.any()


def test_an_empty_index_finds_nobody() -> None:
    assert Index(4).search(unit(1, 0, 0, 0), -1.0, 5) == []


@pytest.mark.parametrize("function", ["zeros", "concatenate"])
def test_an_index_that_finds_no_room_is_as_it_was(monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    index, vectors = Index(16), crowd(FIRST_ROWS + 1)

    def full(*how: object) -> None:
        raise MemoryError

    for number, vector in enumerate(vectors[:-1]):
        index.add(str(number), f"person {number}", vector)
    with monkeypatch.context() as patch:
        patch.setattr(np, function, full)
        with pytest.raises(MemoryError):
            index.make_room()
    assert [match.subject for match in index.search(vectors[7], 0.99, 5)] == ["person 7"]
    index.add("last", "ann", vectors[-1])
    assert [match.subject for match in index.search(vectors[-1], 0.99, 5)] == ["ann"]
    assert [match.subject for match in index.search(vectors[7], 0.99, 5)] == ["person 7"]
