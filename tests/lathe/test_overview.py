"""What two scrapes say together: by hand-written ones, as tables."""

from __future__ import annotations

import json
import math
import time

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from lathe.overview import Overview, Quality, StreamOverview, VariantOverview, overview
from lathe.quantiles import bucket_quantile
from lathe.scrape import Scrape, samples_of

NOW = 1_000_000.0
A = 'model="face",variant="a",version="1"'
B = 'model="face",variant="b",version="2"'
ENDS = ("0.01", "0.1", "+Inf")


def told(*lines: str) -> Scrape:
    """A scrape of some lines, as a server would write them."""
    return Scrape(samples_of(text_string_to_metric_families("\n".join(lines) + "\n")))


def between(before: list[str], after: list[str], seconds: float = 2.0) -> Overview:
    return overview(told(*before), told(*after), seconds, now=NOW)


def answered(count: float, labels: str = A) -> str:
    return f'lathe_frames_total{{{labels},outcome="answered"}} {count}'


def latencies(*counts: float, labels: str = A) -> list[str]:
    return [
        f'lathe_request_seconds_bucket{{{labels},le="{end}"}} {count}' for end, count in zip(ENDS, counts, strict=True)
    ]


def variant(found: Overview, name: str = "a") -> VariantOverview:
    (only,) = (one for model in found.models for one in model.variants if one.variant == name)
    return only


@pytest.mark.parametrize(
    ("share", "counts", "quantile"),
    [
        (0.5, (2, 6, 6), 0.0325),  # rank 3 is the first of the four between 10 and 100 ms
        (0.5, (4, 4, 4), 0.005),
        (0.99, (0, 100, 100), 0.0991),
        (0.99, (50, 90, 100), 0.1),  # it lies above the last bound, and that is all that can be said
        (0.5, (0, 0, 1), 0.1),
        (0.5, (0, 0, 0), None),
    ],
)
def test_quantiles_are_interpolated_as_prometheus_does(
    share: float, counts: tuple[int, ...], quantile: float | None
) -> None:
    found = bucket_quantile(share, dict(zip((0.01, 0.1, math.inf), counts, strict=True)))
    assert found == (None if quantile is None else pytest.approx(quantile))


def test_a_histogram_without_bounds_has_no_quantiles() -> None:
    assert bucket_quantile(0.5, {math.inf: 3.0}) is None
    assert bucket_quantile(0.5, {}) is None


def test_latencies_are_those_of_the_window_alone() -> None:
    found = variant(
        between([answered(1000), *latencies(1000, 1000, 1000)], [answered(1006), *latencies(1002, 1006, 1006)])
    )
    assert found.frames_per_second == 3
    assert found.p50_seconds == pytest.approx(0.0325)
    assert found.p99_seconds == pytest.approx(0.01 + 0.09 * 3.94 / 4)


def test_what_a_frame_costs_is_the_windows_use_over_its_answered_frames() -> None:
    def scrape(count: float, cpu: float, cost: float, joules: float, grams: float) -> list[str]:
        return [
            answered(count),
            f"lathe_cpu_seconds_total{{{A}}} {cpu}",
            f"lathe_gpu_seconds_total{{{A}}} {cpu / 2}",
            f'lathe_cost_usage_total{{{A},currency="EUR"}} {cost}',
            f'lathe_cost_allocation_total{{{A},currency="EUR"}} {cost * 4}',
            f'lathe_energy_joules_total{{{A},source="rapl"}} {joules}',
            f'lathe_energy_joules_total{{{A},source="estimate"}} 3',
            f"lathe_carbon_grams_total{{{A}}} {grams}",
            "lathe_workers 2",
        ]

    found = between(scrape(100, 5, 0.1, 50, 1), scrape(300, 6, 0.3, 60, 1.5))
    one = variant(found)
    assert one.cpu_ms_per_frame == pytest.approx(5)
    assert one.gpu_ms_per_frame == pytest.approx(2.5)
    assert one.cost_per_million == pytest.approx(1000)
    assert one.joules_per_frame == pytest.approx(0.05)
    assert one.energy_source == "rapl"
    assert one.grams_per_million == pytest.approx(2500)
    totals = found.totals
    assert totals.currency == "EUR"
    assert totals.cost_usage_per_hour == pytest.approx(0.1 * 3600)
    assert totals.cost_allocation_per_hour == pytest.approx(0.4 * 3600)
    assert totals.watts == pytest.approx(5)
    assert totals.grams_per_hour == pytest.approx(0.25 * 3600)
    assert (totals.utilisation, totals.gpu_utilisation) == (pytest.approx(0.25), pytest.approx(0.25))


def test_a_pipelines_frames_are_those_of_each_variant_that_judged_them() -> None:
    embed = 'model="face-embed",variant="c",version="3"'

    def scrape(count: float, embedded: float) -> list[str]:
        judged = ((A, count), (embed, embedded))
        return [
            answered(count, 'model="face-id",variant="",version=""'),
            *(answered(0, labels) for labels, _ in judged),
            *(f'lathe_stage_seconds_count{{{labels},stage="infer"}} {frames}' for labels, frames in judged),
            *(f"lathe_cpu_seconds_total{{{labels}}} {frames * 0.002}" for labels, frames in judged),
        ]

    found = between(scrape(0, 0), scrape(100, 40))
    assert found.totals.answered_per_second == 50  # each once
    assert [(one.name, len(one.variants)) for one in found.models] == [("face", 1), ("face-embed", 1)]
    assert [variant(found, name).frames_per_second for name in "ac"] == [50, 20]
    assert [variant(found, name).cpu_ms_per_frame for name in "ac"] == [pytest.approx(2)] * 2


def test_a_window_without_frames_has_no_latency_and_no_price_of_a_frame() -> None:
    lines = [
        answered(7),
        *latencies(7, 7, 7),
        f"lathe_cpu_seconds_total{{{A}}} 5",
        f'lathe_cost_usage_total{{{A},currency="EUR"}} 1',
        f'lathe_energy_joules_total{{{A},source="estimate"}} 3',
        'lathe_objective_frames_total{model="face",result="met"} 7',
    ]
    found = between(lines, lines)
    one = variant(found)
    assert (one.frames_per_second, one.p50_seconds, one.p99_seconds) == (0, None, None)
    assert (one.cpu_ms_per_frame, one.cost_per_million, one.joules_per_frame) == (None, None, None)
    assert one.energy_source == "estimate"
    assert found.models[0].share_met is None
    assert found.totals.cost_usage_per_hour == 0  # there is a price, and nothing was used


def test_an_older_server_lacks_figures_and_breaks_nothing() -> None:
    found = between([], [])
    assert (found.models, found.streams) == ((), ())
    totals = found.totals
    assert (totals.watts, totals.cost_usage_per_hour, totals.utilisation, totals.memory_bytes) == (None,) * 4
    assert (totals.queue_age_seconds, totals.loop_lag_p99_seconds, totals.gpu_utilisation) == (None,) * 3
    assert (totals.streams, totals.answered_per_second, totals.currency) == (0, 0, "")
    assert (found.objective_seconds, found.objective_share) == (None, None)
    only_frames = variant(between([answered(1)], [answered(5)]))
    assert only_frames.frames_per_second == 2
    assert (only_frames.state, only_frames.weight, only_frames.p99_seconds, only_frames.speedup) == ("", 0, None, None)


@pytest.mark.parametrize(
    ("started_before", "started_after"),
    [([], []), (["process_start_time_seconds 10"], ["process_start_time_seconds 20"])],
    ids=["seen by counters that went back", "seen by the time of its start"],
)
def test_a_server_that_began_anew_counts_from_0(started_before: list[str], started_after: list[str]) -> None:
    before = [answered(100), answered(3, B), *latencies(50, 100, 100), *started_before]
    after = [answered(8), answered(6, B), *latencies(8, 8, 8), *started_after]
    found = between(before, after)
    assert found.has_restarted
    assert variant(found).frames_per_second == 4
    assert variant(found, "b").frames_per_second == 3  # 6 since the start, though it stood at 3 before
    assert variant(found).p50_seconds == pytest.approx(0.005)


def test_the_same_server_did_not_begin_anew() -> None:
    lines = ["process_start_time_seconds 10", answered(3)]
    assert not between(lines, lines).has_restarted
    assert variant(between(["process_start_time_seconds 10"], lines)).frames_per_second == 1.5  # a series that is new


def test_no_time_between_two_scrapes_is_refused() -> None:
    with pytest.raises(ValueError, match="no time"):
        between([], [], seconds=0.0)


def test_drops_are_told_by_their_reasons_and_frames_for_no_model_count() -> None:
    def frames(labels: str, outcome: str, count: int) -> str:
        return f'lathe_frames_total{{{labels},outcome="{outcome}"}} {count}'

    nobody = 'model="",variant="",version=""'
    found = between(
        [frames(A, "dropped_too_old", 5)],
        [
            frames(A, "dropped_too_old", 9),
            frames(B, "dropped_too_old", 2),
            frames(A, "dropped_superseded", 4),
            frames(A, "failed", 1),
            frames(nobody, "rejected", 6),
        ],
    )
    assert found.totals.drops_per_second == {"too_old": 3, "superseded": 2}
    assert found.totals.dropped_per_second == 5
    assert (found.totals.failed_per_second, found.totals.rejected_per_second) == (0.5, 3)
    assert [model.name for model in found.models] == ["face"]
    assert [one.variant for one in found.models[0].variants] == ["a", "b"]


def test_variants_stand_in_order_of_their_weight_with_their_state_and_card() -> None:
    lines = [
        f"lathe_route_weight{{{A}}} 1",
        f"lathe_route_weight{{{B}}} 3",
        f'lathe_variant_state{{{B},state="ready"}} 1',
        f'lathe_variant_state{{{B},state="loading"}} 0',
        f'lathe_variant_state{{{A},state="ready"}} 0',
        f'lathe_variant_quality{{{B},metric="ap",data="easy"}} 0.7',
        f'lathe_variant_quality{{{B},metric="ap",data="hard"}} 0.4',
        f"lathe_variant_speedup{{{B}}} 2.5",
    ]
    first, second = between(lines, lines).models[0].variants
    assert (first.variant, first.version, first.weight, first.state) == ("b", 2, 3, "ready")
    assert (first.qualities, first.speedup) == ((Quality("ap", "easy", 0.7), Quality("ap", "hard", 0.4)), 2.5)
    assert (second.variant, second.weight, second.state) == ("a", 1, "")


def test_a_version_that_is_no_number_is_told_as_it_is_after_those_that_are() -> None:
    versions = ("nightly", "2", "", "10", "-1")
    lines = [f'lathe_route_weight{{model="face",variant="a",version="{version}"}} 1' for version in versions]
    found = between(lines, lines)
    assert [one.version for one in found.models[0].variants] == [10, 2, "", "-1", "nightly"]
    json.dumps(found.plain(), allow_nan=False)


def test_the_objective_is_met_by_a_share_of_the_frames_that_count() -> None:
    def judged(met: int, late: int, lost: int) -> list[str]:
        counts = {"met": met, "late": late, "lost": lost}
        return [f'lathe_objective_frames_total{{model="face",result="{r}"}} {n}' for r, n in counts.items()]

    settings = ["lathe_objective_seconds 0.1", "lathe_objective_share 0.99", 'lathe_degrade_level{model="face"} 2']
    found = between(judged(100, 50, 50), [*judged(190, 56, 54), *settings])
    assert found.models[0].share_met == pytest.approx(0.9)
    assert found.models[0].degrade_level == 2
    assert (found.objective_seconds, found.objective_share) == (0.1, 0.99)


def test_an_experiment_is_told_while_it_runs() -> None:
    def experiment(running: int) -> list[str]:
        bounds = {"value": -0.1, "low": -0.2, "high": "+Inf"}
        return [
            f'lathe_experiment_running{{model="face"}} {running}',
            'lathe_degrade_level{model="face"} 0',
            *(
                f'lathe_experiment_estimate{{model="face",metric="cpu_seconds",bound="{bound}"}} {value}'
                for bound, value in bounds.items()
            ),
        ]

    running = between([], experiment(1))
    assert running.models[0].experiment is not None
    (estimate,) = running.models[0].experiment
    assert (estimate.metric, estimate.value, estimate.low, estimate.high) == ("cpu_seconds", -0.1, -0.2, math.inf)
    assert between([], experiment(0)).models[0].experiment is None
    assert between([], experiment(1)[:2]).models[0].experiment == ()
    plain = json.loads(json.dumps(running.plain(), allow_nan=False))
    assert plain["models"][0]["experiment"] == [{"metric": "cpu_seconds", "value": -0.1, "low": -0.2, "high": None}]


def stream(name: str, last: float, **outcomes: float) -> list[str]:
    return [
        f'lathe_stream_last_frame_timestamp_seconds{{stream="{name}"}} {last}',
        *(
            f'lathe_stream_frames_total{{stream="{name}",outcome="{outcome}"}} {count}'
            for outcome, count in outcomes.items()
        ),
    ]


def test_streams_with_most_trouble_stand_first() -> None:
    def scrape(times: int) -> list[str]:
        return [
            *stream("closed", NOW - 3600, answered=5),
            *stream("never", 0, answered=0),
            *stream("well-10", NOW - 0.1, answered=20 * times),
            *stream("well-9", NOW - 0.1, answered=20 * times),
            *stream("slow", NOW - 0.1, answered=20 * times),
            *stream("drops-some", NOW, answered=10 * times, dropped_superseded=2 * times),
            *stream("fails-much", NOW, answered=0, failed=8 * times, rejected=4 * times),
            *stream("hung", NOW - 7, answered=6),
            *stream("clock-behind", NOW - 3600, answered=2 * times),
            f'lathe_stream_age_seconds_bucket{{stream="slow",le="0.5"}} {10 * times}',
            f'lathe_stream_age_seconds_bucket{{stream="slow",le="+Inf"}} {10 * times}',
        ]

    found = between(scrape(1), scrape(2))
    assert [(one.name, one.condition) for one in found.streams] == [
        ("hung", "silent"),
        ("fails-much", "losing"),
        ("drops-some", "losing"),
        ("slow", "well"),
        ("clock-behind", "well"),
        ("well-9", "well"),
        ("well-10", "well"),
        ("closed", "gone"),
    ]
    by_name: dict[str, StreamOverview] = {one.name: one for one in found.streams}
    assert by_name["hung"].silent_seconds == 7
    assert "never" not in by_name
    assert (by_name["drops-some"].frames_per_second, by_name["drops-some"].drops_per_second) == (5, 1)
    assert by_name["fails-much"].failures_per_second == 6
    assert by_name["slow"].p99_age_seconds == pytest.approx(0.495)


def test_a_registry_says_the_same_as_its_text() -> None:
    registry = CollectorRegistry()
    Counter("lathe_frames", "Frames", ("outcome",), registry=registry).labels("answered").inc(3)
    text = generate_latest(registry).decode()
    assert samples_of(registry.collect()) == samples_of(text_string_to_metric_families(text))


def test_two_hundred_streams_take_no_time_that_a_page_would_notice() -> None:
    def many(times: int) -> Scrape:
        outcomes = ("answered", "dropped_too_old", "dropped_superseded", "rejected", "failed")
        labels = [("lathe_stream_frames_total", {"outcome": outcome}) for outcome in outcomes] + [
            ("lathe_stream_age_seconds_bucket", {"le": str(end / 10)}) for end in range(17)
        ]
        return Scrape(
            tuple(
                (name, {"stream": f"camera-{number}", **other}, 10.0 * times)
                for number in range(200)
                for name, other in labels
            )
        )

    before, after = many(1), many(2)
    began = time.process_time()
    found = overview(before, after, 1.0, now=NOW)
    assert time.process_time() - began < 0.5  # 0.02 on a common machine; a scan for each figure takes seconds
    assert len(found.streams) == 200
