"""Figures of load tests: equal to what is counted by hand, with intervals only where there is enough for one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from lathe.scrape import Scrape
from lathe_loadtest.figures import Figures, figures, server_rows, share_text
from lathe_loadtest.histogram import encoded
from lathe_loadtest.latencies import Latencies
from lathe_loadtest.readings import reading as reading_of
from lathe_loadtest.result import CameraResult, LoadResult, Machine, Second, Sender, ServerReading
from lathe_loadtest.scenario import Cameras, Scenario
from lathe_loadtest.timeline import Timeline, block_length
from tests.loadtest.synthetic import synthetic_result


def run_of(
    seconds: Sequence[tuple[Mapping[str, Sequence[float]], Mapping[str, int]]],
    server: Sequence[ServerReading] = (),
    warmup: float = 0.0,
) -> LoadResult:
    """Args:
    seconds: for each after the warm-up, milliseconds of answered frames by variant, and other outcomes.
    """
    per_second = []
    for number, (answered, others) in enumerate(seconds, int(warmup)):
        count = sum(map(len, answered.values()))
        outcomes = {**({"answered": count} if count else {}), **others}
        due = sum(outcomes.values())
        sent = due - others.get("dropped_disconnected", 0)
        latencies = {name: encoded([ms * 1e3 for ms in row]) for name, row in answered.items()}
        per_second.append(Second(number, due, sent, outcomes, latencies))
    totals = {name: sum(one.outcomes.get(name, 0) for one in per_second) for one in per_second for name in one.outcomes}
    everything = [ms * 1e3 for answered, _ in seconds for row in answered.values() for ms in row]
    due, sent = (sum(getattr(one, what) for one in per_second) for what in ("due", "sent"))
    length = len(seconds) + warmup
    return LoadResult(
        scenario=Scenario("face", (Cameras(),), seconds=length, warmup_seconds=warmup),
        machine=Machine("A processor", 2),
        address="127.0.0.1:8500",
        started_at_unix=1.7e9,
        seconds=length,
        per_second=tuple(per_second),
        cameras=(CameraResult("camera-0", "camera", due, sent, totals, {}, encoded(everything)),),
        sender=Sender(1, (due * 1e-4,), due, encoded([100.0] * due)),
        server=tuple(server),
    )


def reading(
    at: float, cpu: float, answered: int, *, memory: int = 100_000_000, cost: float | None = None
) -> ServerReading:
    return ServerReading(at, cpu, memory, 1, 0, {"answered": answered}, cost, cost, "EUR" if cost is not None else "")


def test_percentiles_are_those_of_all_values_within_the_histograms_tenth_of_a_percent() -> None:
    values = np.random.default_rng(0).lognormal(3, 1, 20_000)
    parts = Latencies.decoded([encoded(part * 1e3) for part in np.split(values, 10)])
    assert parts.total == 20_000
    for share in (0.01, 0.5, 0.9, 0.99, 0.999, 0.9999, 1.0):
        exact = np.quantile(values, share, method="inverted_cdf")
        assert parts.percentile(share) * 1e3 == pytest.approx(exact, rel=1e-3)
    assert parts.mean() * 1e3 == pytest.approx(values.mean(), rel=1e-3)


def test_a_stretch_counts_as_often_as_it_is_told_to() -> None:
    fast, slow = encoded([10_000.0] * 10), encoded([90_000.0] * 10)
    parts = Latencies.decoded([fast, "", slow])
    assert parts.percentile(0.5) == pytest.approx(0.010, rel=1e-3)
    assert parts.percentile(0.5, np.array([1, 1, 2])) == pytest.approx(0.090, rel=1e-3)
    assert math.isnan(parts.percentile(0.5, np.array([0, 5, 0])))


def test_variants_together_are_all_their_frames() -> None:
    one, other = Latencies.decoded([encoded([10_000.0]), ""]), Latencies.decoded(["", encoded([10_000.0, 30_000.0])])
    assert (one + other).counts.tolist() == [[1, 0], [1, 1]]
    assert (one + other).percentile(1.0) == pytest.approx(0.030, rel=1e-3)


def test_frames_and_shares_are_counted_by_hand() -> None:
    found = figures(
        run_of(
            [
                ({"int8": [10.0] * 6}, {"dropped_superseded": 2, "rejected": 2}),
                ({"int8": [20.0] * 3, "fp32": [40.0] * 3}, {"dropped_disconnected": 4}),
            ]
        )
    )
    assert (found.offered.value, found.accepted.value, found.served.value) == (10.0, 7.0, 6.0)
    assert list(found.outcomes) == ["answered", "dropped_disconnected", "dropped_superseded", "rejected"]
    shares = {name: one.value for name, one in found.shares.items()}
    assert shares == pytest.approx(
        {"answered": 0.6, "dropped_disconnected": 0.2, "dropped_superseded": 0.1, "rejected": 0.1}
    )
    assert found.variants["int8"].share == pytest.approx(0.75)
    assert found.all.percentiles[0.5].value == pytest.approx(0.010, rel=1e-3)
    assert found.all.percentiles[0.9].value == pytest.approx(0.040, rel=1e-3)
    assert found.variants["fp32"].mean_seconds == pytest.approx(0.040, rel=1e-3)
    assert found.sender_us_per_frame == pytest.approx(100.0)


def test_percentiles_beyond_the_slowest_frame_are_not_told() -> None:
    found = figures(run_of([({"int8": [10.0] * 50}, {})]))
    assert list(found.all.percentiles) == [0.5, 0.9, 0.95]


def test_the_warm_up_does_not_count() -> None:
    warm = ({"int8": [10.0] * 10}, {})
    readings = [reading(0, 0.0, 0), reading(1, 5.0, 10), reading(3, 5.4, 30)]
    found = figures(run_of([warm, warm], readings, warmup=1.0))
    assert (found.judged_seconds, found.due, dict(found.outcomes)) == (2, 20, {"answered": 20})
    assert found.all.percentiles[0.9].value == pytest.approx(0.010, rel=1e-3)
    assert found.server is not None
    assert found.server.cpu_ms_per_frame is not None
    assert found.server.cpu_ms_per_frame.value == pytest.approx(20.0)


def test_a_server_that_was_started_anew_counts_from_nothing() -> None:
    seconds = [({"int8": [10.0] * 10}, {})] * 4
    readings = [
        reading(0, 7.0, 100),
        reading(2, 7.6, 120, memory=300_000_000),
        reading(3, 0.3, 10),
        reading(4, 0.6, 20, memory=90_000_000),
    ]
    server = figures(run_of(seconds, readings)).server
    assert server is not None
    assert server.cores is not None
    assert server.cpu_ms_per_frame is not None
    assert server.cores.value == pytest.approx((0.6 + 0.3 + 0.3) / 4)
    assert server.cpu_ms_per_frame.value == pytest.approx(1.2 / 40 * 1e3)
    assert (server.resident_peak_bytes, server.resident_growth_bytes) == (300_000_000, -10_000_000)
    assert (server.cost_used, server.joules_per_frame) == (None, None), "without a price there is no cost, not 0"


def test_cost_is_told_for_a_million_frames() -> None:
    readings = [reading(0, 0.0, 0, cost=0.0), reading(2, 1.0, 20, cost=0.00002)]
    server = figures(run_of([({"int8": [10.0] * 10}, {})] * 2, readings)).server
    assert server is not None
    assert server.cost_used is not None
    assert (server.cost_used.value, server.currency) == (pytest.approx(1.0), "EUR")


@pytest.mark.parametrize(("seconds", "has_interval"), [(24, False), (25, True), (29, True)])
def test_short_runs_have_no_intervals(seconds: int, has_interval: bool) -> None:
    found = figures(synthetic_result(seconds=seconds, drops=0.1))
    assert [math.isfinite(one.low) for one in (found.served, found.all.percentiles[0.5])] == [has_interval] * 2


def test_percentiles_with_few_slower_frames_have_no_interval() -> None:
    found = figures(synthetic_result(seconds=60, cameras=4, fps=10))  # 2,400 frames: 24 beyond p99, 2 beyond p99.9
    assert math.isfinite(found.all.percentiles[0.99].low)
    assert math.isnan(found.all.percentiles[0.999].low)


def test_intervals_hold_the_true_median_and_share() -> None:
    held, runs = [0, 0], 60
    scale = 20.0 * 3.672 / 4  # the median of a gamma distribution of shape 4 is 3.672 times its scale
    for seed in range(runs):
        found = figures(synthetic_result(seconds=30, cameras=2, drops=0.1, seed=seed))
        held[0] += found.all.percentiles[0.5].low <= scale / 1e3 <= found.all.percentiles[0.5].high
        held[1] += found.shares["answered"].low <= 0.9 <= found.shares["answered"].high
    assert min(held) / runs >= 0.88


@pytest.mark.parametrize(("seconds", "length"), [(3, 5), (25, 5), (29, 5), (60, 8), (3600, 60)])
def test_blocks_grow_with_the_root_of_the_run(seconds: int, length: int) -> None:
    assert block_length(seconds) == length


def test_blocks_hold_all_seconds() -> None:
    timeline = Timeline.of(synthetic_result(seconds=28, drops=0.2))
    blocks = timeline.blocks
    assert blocks.lengths.tolist() == [5, 5, 5, 5, 8]
    assert blocks.due.sum() == timeline.due.sum()
    assert blocks.together.counts.sum() == timeline.answered.sum()
    assert blocks.server["cpu_seconds"].sum() == pytest.approx(2.8)


def test_nothing_is_known_of_the_server_after_its_last_reading() -> None:
    readings = [reading(0, 1.0, 0), reading(2, 3.0, 20)]
    server = figures(run_of([({"int8": [10.0] * 10}, {})] * 4, readings)).server
    assert server is not None
    assert server.cores is not None
    assert server.cores.value == pytest.approx(1.0)


def test_a_server_that_does_not_tell_its_cpu_time_has_none() -> None:
    untold = reading_of(Scrape((("lathe_workers", {}, 3.0),)), "face", 1.0)
    assert (untold.cpu_seconds, untold.workers) == (None, 3)
    result = run_of([({"int8": [10.0] * 10}, {})] * 2, [untold, replace(untold, at_seconds=2.0)])
    server = figures(result).server
    assert server is not None
    assert (server.cores, server.cpu_ms_per_frame) == (None, None)


def test_a_share_of_all_or_none_has_no_interval() -> None:
    found = figures(synthetic_result(seconds=30))
    assert found.shares["answered"].value == 1.0
    assert math.isnan(found.shares["answered"].low)


def test_what_was_turned_away_was_not_accepted() -> None:
    found = figures(run_of([({"int8": [10.0] * 6}, {"dropped_overloaded": 3, "rejected": 1})]))
    assert (found.offered.value, found.accepted.value) == (10.0, 6.0)


def test_a_run_ends_when_it_has_ended_though_nothing_was_due() -> None:
    run = replace(synthetic_result(seconds=12, warmup=2), seconds=15.0)
    assert (len(Timeline.of(run)), Timeline.of(run).starts[0]) == (13, 2)


def test_seconds_of_the_warm_up_are_refused() -> None:
    one = synthetic_result()
    with pytest.raises(ValueError, match='"per_second" holds seconds of the warm-up'):
        replace(one, scenario=replace(one.scenario, warmup_seconds=2.0))


def test_seconds_without_a_frame_are_seconds() -> None:
    result = run_of([({"int8": [10.0]}, {}), ({}, {}), ({"int8": [10.0]}, {})])
    gap = replace(result, per_second=(result.per_second[0], result.per_second[2]))
    assert Timeline.of(gap).due.tolist() == [1, 0, 1]
    assert figures(gap).offered.value == pytest.approx(2 / 3)


def test_a_run_without_answers_has_figures() -> None:
    found: Figures = figures(run_of([({}, {"failed": 5})] * 2))
    assert (found.all.frames, dict(found.all.percentiles), dict(found.variants)) == (0, {}, {})
    assert found.served.value == 0.0
    assert share_text(found.shares["failed"]) == "100.00 %"


def test_what_the_server_tells_is_said_with_its_unit_and_source() -> None:
    server = figures(synthetic_result(seconds=30)).server
    assert server
    rows = dict(server_rows(server))
    assert rows["CPU, cores"].startswith("0.10 (")
    assert rows["memory at most, MB"] == "120"
    assert {"CPU a frame, ms", "a million frames, USD", "energy a frame, mJ (estimate)"} <= rows.keys()
    bare = figures(synthetic_result(seconds=30, price_per_hour=None)).server
    assert bare
    assert not any("million" in name for name, _ in server_rows(bare))


def test_an_interval_of_a_percentile_ends_with_the_frames_that_there_were() -> None:
    """Five blocks, of which one was slower by far."""
    result = run_of([({"int8": [10.0] * 30 + [5000.0 if second < 5 else 20.0] * 10}, {}) for second in range(26)])
    found = figures(result).all.percentiles[0.9]
    assert found.low >= 0.0099
    assert found.high <= 5.01
    assert found.high > found.value
