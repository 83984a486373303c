"""The capacity is found among runs that come out by chance, twice the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lathe_loadtest.capacity import SPAN, Capacity, Run, find_capacities


def find_capacity(meets: Callable[[float], bool | None], start: float, **settings: Any) -> Capacity:
    [found] = find_capacities(meets, start, **settings)
    return found


def noisy(truth: float, width: float, surprise: float, seed: int) -> Callable[[float], bool]:
    """A server that carries half of the runs at its capacity, fewer above and more below.

    Args:
        width: of the loads between which chance decides, as a share.
        surprise: share of the runs that come out wrong whatever the load.
    """
    random = np.random.default_rng(seed)

    def meets(load: float) -> bool:
        carried = 1 / (1 + math.exp(min(max((math.log(load) - math.log(truth)) / width, -50.0), 50.0)))
        return bool(random.random() < surprise + (1 - 2 * surprise) * carried)

    return meets


@given(truth=st.floats(1.5, 2000.0), below=st.floats(1.0, 40.0))
@settings(deadline=None, max_examples=50)
def test_a_server_without_noise_is_found_from_wherever_one_starts(truth: float, below: float) -> None:
    found = find_capacity(lambda load: load <= truth, truth / below)
    assert found.was_found
    assert found.low <= truth * 1.003
    assert found.high >= truth * 0.997
    assert found.load == pytest.approx(truth, rel=0.01)
    assert len(found.runs) < 30


@given(
    truth=st.floats(5.0, 500.0),
    below=st.floats(1.5, 20.0),
    width=st.floats(0.001, 0.015),
    surprise=st.floats(0.0, 0.02),
    seed=st.integers(0, 2**32 - 2),
)
@settings(deadline=None, max_examples=60, derandomize=True)
def test_two_searches_agree_within_a_twentieth(
    truth: float, below: float, width: float, surprise: float, seed: int
) -> None:
    one, other = (
        find_capacity(noisy(truth, width, surprise, seed + turn), truth / below / (1 + turn)) for turn in range(2)
    )
    assert one.was_found
    assert other.was_found
    assert max(one.load, other.load) / min(one.load, other.load) < 1.05


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    found = [find_capacity(noisy(100.0, 0.015, 0.02, seed), 20.0) for seed in range(200)]
    assert sum(one.low <= 100.0 <= one.high for one in found) >= 0.85 * len(found)
    assert np.mean([one.load for one in found]) == pytest.approx(100.0, rel=0.01)
    assert np.mean([len(one.runs) for one in found]) < 30


def test_one_wrong_run_at_the_beginning_does_not_spoil_the_answer() -> None:
    wrong = iter([False])  # the first, far below the capacity
    found = find_capacity(lambda load: next(wrong, load <= 100.0), 20.0)
    assert found.load == pytest.approx(100.0, rel=0.02)


def test_no_run_is_far_beyond_what_is_carried() -> None:
    found = find_capacity(lambda load: load <= 100.0, 10.0)
    assert max(run.load for run in found.runs) <= 200.0


def test_one_wrong_run_lets_no_other_be_far_beyond() -> None:
    wrong = iter([True, False])  # the second, at 20
    found = find_capacity(lambda load: next(wrong, load <= 100.0), 10.0)
    assert found.load == pytest.approx(100.0, rel=0.02)
    carried = [max(one.load for one in found.runs[:n] if one.met) for n in range(1, len(found.runs))]
    assert all(run.load <= 2 * most for run, most in zip(found.runs[1:], carried, strict=True))


def test_a_server_that_carries_nothing_and_one_that_carries_all_have_no_capacity() -> None:
    none, every = (find_capacity(lambda _, met=met: met, 10.0) for met in (False, True))  # type: ignore[misc]
    assert (none.was_found, none.load, none.why_not) == (False, 0.0, "no load was carried, however small")
    assert (every.was_found, every.high, every.why_not) == (False, math.inf, "every load was carried")
    assert every.load > 10.0 * SPAN / 4


def test_where_who_sends_is_the_limit_the_capacity_is_known_from_below_alone() -> None:
    found = find_capacity(lambda load: None if load > 50 else True, 10.0)
    assert found.why_not == "who sends was the limit, not the server"
    assert (found.low, found.load, found.high) == (40.0, 40.0, math.inf)
    assert found.runs[-3:] == (Run(80.0, None),) * 3


def test_a_run_that_was_none_is_made_again() -> None:
    loads: list[float] = []

    def meets(load: float) -> bool | None:
        loads.append(load)
        return None if len(loads) in (2, 3) else load <= 100.0

    found = find_capacity(meets, 10.0)
    assert loads[1] == loads[2] == loads[3] == 20.0
    assert found.load == pytest.approx(100.0, rel=0.02)


def test_the_very_first_run_may_be_none() -> None:
    first = iter([None])
    assert find_capacity(lambda load: next(first, load <= 100.0), 20.0).load == pytest.approx(100.0, rel=0.02)


def test_runs_that_never_agree_end() -> None:
    random = np.random.default_rng(0)
    found = find_capacity(lambda _: bool(random.random() < 0.5), 10.0, most_runs=8)
    assert (len(found.runs), found.why_not) == (8, "8 runs do not agree")


def test_searches_take_turns_so_that_a_machine_that_slows_down_does_so_for_all() -> None:
    runs: list[float] = []

    def meets(load: float) -> bool:
        runs.append(load)
        return load <= 100 * 0.9995 ** len(runs)  # by a twentieth over a hundred runs

    first, second = find_capacities(meets, 30.0, 2)
    assert runs[0] == runs[1] == 30.0
    assert runs[2] == runs[3] == 60.0
    assert max(first.load, second.load) / min(first.load, second.load) < 1.02
    assert len(first.runs) + len(second.runs) == len(runs)
