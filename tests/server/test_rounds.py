"""Who answers when, and what one round says of it."""

from __future__ import annotations

import math

import pytest

from lathe.experiment import candidate_block, completed
from lathe.v1 import experiment_pb2
from lathe.v1.experiment_pb2 import EXPERIMENT_UNIT_STREAM
from lathe_server.rounds import FEW, OpenRound, Side


def spec(**how: object) -> experiment_pb2.ExperimentSpec:
    asked = experiment_pb2.ExperimentSpec(
        model="face",
        seed="seed",
        block_seconds=10.0,
        washout_seconds=1.0,
        **how,  # type: ignore[arg-type]
    )
    asked.baseline.variant, asked.candidate.variant = "a", "b"
    return completed(asked)


def answer(side: Side, cpu_seconds: float, times: int = 1, latency: float = 0.02) -> None:
    for _ in range(times):
        side.answered += 1
        side.cpu.add(cpu_seconds)
        side.service.add(cpu_seconds)
        side.latency.add(latency)
        side.age.add(latency)


def test_sides_change_by_the_block_and_the_beginning_of_each_does_not_count() -> None:
    together = spec(blocks_per_round=3)
    turn = OpenRound(together, 4, began=100.0)
    expected = [block == candidate_block(together, 4, "") for block in range(3)]
    assert [turn.is_candidate("camera", 100.0 + 10 * block + 5) for block in range(3)] == expected
    assert sum(expected) == 1
    assert turn.ends == 130.0
    assert [turn.is_washout(100.0 + second) for second in (0.5, 1.5, 9.5, 10.5, 25)] == [
        True,
        False,
        False,
        True,
        False,
    ]


def test_in_the_shadow_the_candidate_answers_nobody() -> None:
    turn = OpenRound(spec(), 0, began=0.0, with_candidate=False)
    assert not any(turn.is_candidate("camera", second) for second in range(20))


def test_streams_change_sides_by_themselves_and_each_is_compared_with_itself() -> None:
    by_stream = spec(unit=EXPERIMENT_UNIT_STREAM)
    turn = OpenRound(by_stream, 0, began=0.0)
    names = [f"camera-{number}" for number in range(40)]
    first = {name for name in names if turn.is_candidate(name, 5.0)}
    assert 8 < len(first) < 32
    assert {name for name in names if turn.is_candidate(name, 15.0)} == set(names) - first
    # One camera's frames are dear, another's cheap; both are a tenth cheaper at the candidate's.
    for name, cost, frames in (("dear", 0.1, 10), ("cheap", 0.001, 1000)):
        answer(turn.side(name, candidate=False), cost, frames)
        answer(turn.side(name, candidate=True), 0.9 * cost, 2 * frames)
    answer(turn.side("gone in the second block", candidate=True), 5.0)
    effects = {effect.metric: effect for effect in turn.closed(20.0).effects}
    assert effects["cpu_seconds"].effect == pytest.approx(math.log(0.9), abs=0.003)
    assert not effects.keys() & {"latency_p99_seconds", "age_p99_seconds", "dropped_share"}


def test_a_round_says_what_both_sides_cost_dropped_and_failed() -> None:
    turn = OpenRound(spec(), 0, began=0.0)
    before, after = turn.side("x", candidate=False), turn.side("y", candidate=True)
    answer(before, 0.010, 90, latency=0.020)
    before.dropped = 10
    answer(after, 0.005, 99, latency=0.010)
    after.failed = 1
    turn.compared(3, 8)
    first = turn.is_candidate("x", 5.0)
    for second, camera in ((5.0, "x"), (6.0, "x"), (7.0, "y"), (15.0, "x")):
        turn.saw(camera, second, candidate=first == (second < 10))
    closed = turn.closed(20.0)
    effects = {effect.metric: effect for effect in closed.effects}
    assert effects["cpu_seconds"].effect == pytest.approx(math.log(0.5), abs=0.003)
    assert effects["latency_p99_seconds"].effect == pytest.approx(math.log(0.5), abs=0.03)
    assert effects["dropped_share"].effect == pytest.approx(-0.1)
    assert effects["failed_share"].effect == pytest.approx(0.01)
    assert (closed.baseline_frames, closed.candidate_frames) == (100, 100)
    assert (closed.candidate_streams, closed.baseline_streams) == (2, 1)
    assert (closed.compared_frames, closed.matched_boxes, closed.found_boxes) == (1, 3, 8)


def test_few_answers_have_no_percentile_that_could_end_an_experiment() -> None:
    turn = OpenRound(spec(), 0, began=0.0)
    answer(turn.side("x", candidate=True), 0.01, FEW - 1)
    assert math.isnan(turn.latency_p99_seconds(candidate=True))
    assert math.isnan(turn.latency_p99_seconds(candidate=False))
    answer(turn.side("x", candidate=True), 0.01)
    assert turn.latency_p99_seconds(candidate=True) == pytest.approx(0.02, rel=0.02)


def test_a_side_that_answered_nothing_says_nothing_of_times() -> None:
    turn = OpenRound(spec(), 0, began=0.0)
    answer(turn.side("x", candidate=False), 0.01)
    assert not turn.closed(20.0).effects
    turn.side("x", candidate=True).dropped = 3
    assert {effect.metric for effect in turn.closed(20.0).effects} == {"dropped_share", "failed_share"}
