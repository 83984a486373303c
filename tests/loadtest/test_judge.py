"""What a scenario expects, held against results that are known."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from lathe.evidence import binomial_bounds
from lathe_loadtest.expect import Expect
from lathe_loadtest.histogram import encoded
from lathe_loadtest.judge import Check, judge
from lathe_loadtest.result import CameraResult, Event, LoadResult, Second
from tests.loadtest.synthetic import synthetic_result


def failing(result: LoadResult, *expected: Expect) -> list[str]:
    return [check.what for check in judge(result, expected) if not check.holds]


def with_cameras(result: LoadResult, cameras: Sequence[CameraResult]) -> LoadResult:
    """The same run with other cameras, and one second that holds all their frames."""
    outcomes: dict[str, int] = {}
    for camera in cameras:
        for name, count in camera.outcomes.items():
            outcomes[name] = outcomes.get(name, 0) + count
    due, sent = (sum(getattr(camera, name) for camera in cameras) for name in ("due", "sent"))
    latencies = {"a": encoded([1000.0] * outcomes["answered"])} if outcomes.get("answered") else {}
    return replace(result, cameras=tuple(cameras), per_second=(Second(0, due, sent, outcomes, latencies),))


def camera(name: str, outcomes: dict[str, int], by: dict[str, int] | None = None, ms: float = 5.0) -> CameraResult:
    answered, due = outcomes.get("answered", 0), sum(outcomes.values())
    latencies = encoded([ms * 1e3] * answered)
    return CameraResult(name, name.split("-")[0], due, due, outcomes, by or {"a": answered}, latencies)


RUN = synthetic_result(latency_ms={"int8": 20.0}, drops=0.1, cameras=4)


@pytest.mark.parametrize(
    ("expect", "what"),
    [
        (Expect(), None),
        (Expect(answered_share=0.85), None),
        (Expect(answered_share=0.95), "answered"),
        (Expect(dropped_share=0.15), None),
        (Expect(dropped_share=0.05), "dropped"),
        (Expect(p50_seconds=0.025), None),
        (Expect(p50_seconds=0.01), "p50 latency"),
        (Expect(p99_seconds=0.08), None),
        (Expect(p99_seconds=0.03), "p99 latency"),
        (Expect(answered_by={"int8": 1.0}), None),
        (Expect(answered_by={"fp32": 0.1}), "answered by fp32"),
        (Expect(silent_seconds=0), None),
        (Expect(grown_bytes=0), None),
        (Expect(actions=1), "actions done"),
        (Expect(of="camera", answered_share=0.85), None),
        (Expect(of="nobody"), "cameras"),
    ],
)
def test_a_run_is_held_to_what_was_expected(expect: Expect, what: str | None) -> None:
    assert failing(RUN, expect) == ([what] if what else [])


@pytest.mark.parametrize("outcome", ["lost", "failed", "rejected"])
def test_no_frame_may_be_lost_rejected_or_fail_unless_it_is_said(outcome: str) -> None:
    run = with_cameras(RUN, [camera("camera-0", {"answered": 9, outcome: 1})])
    assert failing(run) == [f"{outcome} frames"]
    assert failing(run, Expect(**{outcome: 1})) == []


def test_a_run_that_ended_early_or_says_more_of_who_sends_is_no_good_run() -> None:
    assert failing(replace(RUN, ended="server_lost", error="gone")) == ["the run"]
    assert failing(replace(RUN, why_invalid=("frames were sent late",))) == ["who sends"]


def test_the_table_says_what_was_expected_and_what_was_measured() -> None:
    run = with_cameras(RUN, [camera("camera-0", {"answered": 9, "dropped_superseded": 1}, ms=5.0)])
    checks = judge(run, [Expect(answered_share=0.95, p99_seconds=0.05)])
    assert checks[-2:] == (
        Check("", "answered", "≥ 95.0%", "90.00%", False),
        Check("", "p99 latency", "≤ 50 ms", "5.0 ms", True),
    )


def test_groups_are_judged_by_themselves() -> None:
    hot = camera("hot-0", {"answered": 5, "dropped_superseded": 95}, ms=80.0)
    run = with_cameras(RUN, [camera("camera-0", {"answered": 100}), camera("camera-1", {"answered": 100}), hot])
    assert failing(run, Expect(of="camera", dropped_share=0.0, p99_seconds=0.01)) == []
    assert failing(run, Expect(dropped_share=0.0, p99_seconds=0.01)) == ["dropped", "p99 latency"]


def test_nothing_answered_is_no_good_latency() -> None:
    run = with_cameras(RUN, [camera("camera-0", {"dropped_superseded": 10}, {})])
    assert failing(run, Expect(p99_seconds=1.0, answered_share=0.0)) == ["p99 latency"]


def test_an_action_that_failed_is_told_with_its_reason() -> None:
    run = replace(RUN, events=(Event(1.0, "swap", "b=1"), Event(2.0, "swap", "a=1", error="no such variant")))
    [failed] = [check for check in judge(run, [Expect(actions=1)]) if not check.holds]
    assert failed.measured == "1; swap at 2.0 s: no such variant"
    assert failing(run, Expect(actions=2)) == ["actions done", "actions that failed"]


def test_silence_is_the_longest_time_without_an_answer() -> None:
    answered, silent = {"answered": 1}, {"dropped_disconnected": 1}
    seconds = [
        Second(number, 1, 1, outcomes, {"a": encoded([1e3])} if outcomes == answered else {})
        for number, outcomes in enumerate([answered, silent, answered, silent, silent, answered])
    ]
    total = {"answered": 3, "dropped_disconnected": 3}
    run = replace(RUN, per_second=tuple(seconds), cameras=(camera("camera-0", total),))
    assert failing(run, Expect(silent_seconds=2)) == []
    assert failing(run, Expect(silent_seconds=1)) == ["seconds whose frames had no answer"]


def test_memory_that_grows_all_the_time_is_told_and_that_of_the_beginning_is_not() -> None:
    def growing(per_second: int, first: int) -> LoadResult:
        readings = tuple(
            replace(reading, resident_bytes=reading.resident_bytes + number * per_second - first * (number == 0))
            for number, reading in enumerate(RUN.server)
        )
        return replace(RUN, server=readings)

    assert failing(growing(0, 50_000_000), Expect(grown_bytes=1_000_000)) == []
    assert failing(growing(1_000_000, 0), Expect(grown_bytes=1_000_000)) == ["memory growth"]
    assert failing(replace(RUN, server=()), Expect(grown_bytes=1)) == ["memory growth"]


def split_run(streams: dict[str, int], mixed: int = 0) -> LoadResult:
    names = [name for name, count in streams.items() for _ in range(count)]
    cameras = [camera(f"camera-{number}", {"answered": 4}, {name: 4}) for number, name in enumerate(names)]
    cameras += [camera(f"mixed-{number}", {"answered": 4}, {"a": 2, "b": 2}) for number in range(mixed)]
    return with_cameras(RUN, cameras)


@pytest.mark.parametrize(
    ("streams", "fails"),
    [
        ({"a": 70, "b": 30}, []),
        ({"a": 60, "b": 40}, []),
        ({"a": 50, "b": 50}, ["streams of a", "streams of b"]),
        ({"a": 100}, ["streams of a", "streams of b"]),
        ({"a": 69, "b": 30, "c": 1}, ["streams of other variants"]),
    ],
)
def test_shares_of_streams_are_those_of_the_weights_but_for_chance(streams: dict[str, int], fails: list[str]) -> None:
    assert failing(split_run(streams), Expect(split={"a": 7, "b": 3})) == fails


def test_a_stream_that_changes_sides_is_told() -> None:
    found = failing(split_run({"a": 70, "b": 29}, mixed=1), Expect(split={"a": 7, "b": 3}))
    assert found == ["streams answered by several variants"]


def test_fair_draws_pass_and_those_of_other_weights_do_not() -> None:
    draw = random.Random(0)

    def passes(share: float) -> bool:
        a = sum(draw.random() < share for _ in range(120))
        return not failing(split_run({"a": a, "b": 120 - a}), Expect(split={"a": 7, "b": 3}))

    assert sum(passes(0.7) for _ in range(200)) >= 196  # 99 of 100 and more
    assert sum(passes(0.5) for _ in range(50)) <= 3


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"lost": -1}, '"lost" must be 0 or above'),
        ({"dropped_share": 1.5}, '"dropped_share" is a share'),
        ({"answered_by": {"a": 2.0}}, '"a" is a share'),
        ({"p99_seconds": 0.0}, '"p99_seconds" must be above 0'),
        ({"split": {"a": 0}}, '"split" needs weights'),
        ({"of": "camera", "silent_seconds": 1}, "are of the whole run"),
    ],
)
def test_expectations_that_make_no_sense_are_refused(how: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Expect(**how)


@pytest.mark.parametrize(
    ("count", "share", "level"), [(1, 0.5, 0.95), (40, 0.3, 0.99), (500, 0.02, 0.9), (7, 1.0, 0.9)]
)
def test_binomial_bounds_hold_as_many_draws_as_they_say_and_no_narrower_ones_would(
    count: int, share: float, level: float
) -> None:
    low, high = binomial_bounds(count, share, level=level)
    draw = random.Random(1)
    draws = [sum(draw.random() < share for _ in range(count)) for _ in range(4000)]
    assert sum(low <= hits <= high for hits in draws) / len(draws) >= level - 0.01
    below, above = (sum(outside(hits) for hits in draws) / len(draws) for outside in (low.__gt__, high.__lt__))
    assert max(below, above) <= (1 - level) / 2 + 0.008
