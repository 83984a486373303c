"""What a real Prometheus has seen of a real run equals what the run's own cameras saw, and all of it adds up."""

from __future__ import annotations

import shutil
import subprocess
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from lathe.errors import NotFound
from lathe.machine import available_cores
from lathe_dashboards.catalogue import ANY, Asked, queries, substitute
from tests.calls import exposition
from tests.deploy.served import rules
from tests.end_to_end.watched_run import PRICE_PER_CORE_HOUR, Phase, WatchedRun, watched_run

SECONDS = 10.0
WINDOW = "10m"
"""Longer than the run."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedRun]:
    try:
        with watched_run(tmp_path_factory.mktemp("watched"), SECONDS) as run:
            yield run
    except NotFound as error:  # the packages with footage
        pytest.skip(error.message)


def by(run: WatchedRun, label: str, expr: str, at: float) -> dict[str, float]:
    """An expression's series then, by the label that is left of them."""
    return {one["metric"].get(label, ""): float(one["value"][1]) for one in run.prometheus.query(expr, at)}


def grown(run: WatchedRun, name: str, label: str = "variant") -> Counter[str]:
    """By how much counters have grown in the whole run, with what they had when they began anew, and without the
    guesses at a window's ends that are part of `increase`."""
    found: Counter[str] = Counter()
    for one in run.prometheus.query(f"{name}[{WINDOW}]", run.ended):
        values = [float(value) for _, value in one["values"]]
        gains = [now - before if now >= before else now for before, now in zip([0.0, *values], values, strict=False)]
        found[one["metric"].get(label, "")] += sum(gains)
    return found


PHASES = ("quiet", "first trial", "second trial", "busy")


@pytest.mark.parametrize("name", PHASES)
def test_frames_by_what_became_of_them_are_those_that_the_cameras_saw(run: WatchedRun, name: str) -> None:
    phase = run.phases[name]
    frames = "sum by (outcome) (lathe_frames_total)"
    before, after = (by(run, "outcome", frames, at) for at in (phase.began, phase.ended))
    seen = Counter({outcome: round(count - before[outcome]) for outcome, count in after.items()})
    assert +seen == +phase.outcomes
    assert phase.outcomes["answered"] > 0
    assert not any(tally.lost for tally in phase.tallies.values())


@pytest.mark.parametrize("name", PHASES)
def test_each_named_camera_has_its_own_frames_and_all_others_share_theirs(run: WatchedRun, name: str) -> None:
    phase = run.phases[name]
    expected: Counter[str] = Counter()
    for camera, tally in phase.tallies.items():
        expected[camera if camera.startswith(("gate-", "hall-")) else "other"] += tally.sent
    frames = "sum by (stream) (lathe_stream_frames_total)"
    before, after = (by(run, "stream", frames, at) for at in (phase.began, phase.ended))
    assert +Counter({one: round(count - before.get(one, 0.0)) for one, count in after.items()}) == expected


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_latencies_are_those_that_the_cameras_measured_within_a_bucket(run: WatchedRun, share: float) -> None:
    phase = run.phases["quiet"]
    bounds = sorted(map(float, by(run, "le", "sum by (le) (lathe_age_seconds_bucket)", phase.ended)))
    told = run.prometheus.value(f"histogram_quantile({share}, sum by (le) (lathe_age_seconds_bucket))", phase.ended)
    measured = phase.latencies[int(share * (len(phase.latencies) - 1))]
    assert abs(bisect_left(bounds, told) - bisect_left(bounds, measured)) <= 1, (told, measured)


@pytest.mark.parametrize("name", PHASES)
def test_predictions_and_overhead_are_the_processs_cpu_time(run: WatchedRun, name: str) -> None:
    parts = "(sum(lathe_cpu_seconds_total) + sum(lathe_cpu_overhead_seconds_total))"
    at = run.phases[name].ended
    assert run.prometheus.value(f"{parts} / sum(process_cpu_seconds_total)", at) == pytest.approx(1, abs=0.02)


@pytest.mark.fault(84, 89)
def test_over_swaps_and_a_restart_the_variants_sums_are_the_totals(run: WatchedRun) -> None:
    frames = grown(run, "lathe_frames_total")
    assert frames.total() == pytest.approx(run.outcomes.total())
    assert set(frames) == {"", "int8", "pruned-int8", "student-int8"}
    judged = run.outcomes.total() - run.outcomes["rejected"]
    assert grown(run, "lathe_objective_frames_total", "result").total() == pytest.approx(judged)
    usage, cpu = grown(run, "lathe_cost_usage_total"), grown(run, "lathe_cpu_seconds_total")
    for variant, seconds in cpu.items():
        assert usage[variant] == pytest.approx(seconds * PRICE_PER_CORE_HOUR / 3600)
    allocation = grown(run, "lathe_cost_allocation_total")
    for variant, cost in usage.items():
        assert cost <= allocation[variant]
    up = run.prometheus.value(f"sum_over_time(up[{WINDOW}]) * 1", run.ended)  # one scrape a second
    price = PRICE_PER_CORE_HOUR / 3600 * available_cores()
    assert allocation.total() == pytest.approx(up * price, rel=0.1)
    joules, grams = grown(run, "lathe_energy_joules_total"), grown(run, "lathe_carbon_grams_total")
    assert grams.total() == pytest.approx(joules.total() / 3.6e6 * 380)


@pytest.mark.fault(84)
def test_over_windows_of_any_place_increase_agrees(run: WatchedRun) -> None:
    for at in (run.phases["second trial"].ended, run.phases["busy"].began + SECONDS / 2, run.ended):
        usage = "sum by (variant) (increase(lathe_cost_usage_total[20s]))"
        allocation = "sum by (variant) (increase(lathe_cost_allocation_total[20s]))"
        assert run.prometheus.query(f"{usage} > {allocation} * 1.02", at) == []
        cpu = f"sum(increase(lathe_cpu_seconds_total[20s])) * {PRICE_PER_CORE_HOUR / 3600}"
        assert run.prometheus.value(f"sum({usage}) / ({cpu})", at) == pytest.approx(1, abs=0.02)


CONSTANT = ("lathe_objective_share", "lathe_objective_seconds", "lathe_workers", "lathe_variant_", "up{")
"""What settings and cards say; rates are of something else that is in the query too."""
NEVER = ('metric="failed_share"', 'metric="agreement"', "lathe_turned_away_total", "> bool 60")
"""What does not come to pass in this run: a frame that fails, variants that disagree on its films, a call without its
token, a camera that is silent for a minute."""


def asked_id(asked: Asked) -> str:
    return f"{asked.dashboard}: {asked.panel}: {asked.legend or asked.expr}"


@pytest.mark.parametrize("asked", queries(), ids=asked_id)
def test_each_query_of_each_panel_has_data_which_differ_with_the_load(run: WatchedRun, asked: Asked) -> None:
    expr = substitute(asked.expr, ANY | {"__rate_interval": "5s"})
    seen = [values for phase in run.phases.values() if (values := drawn(run, expr, phase))]
    assert seen
    is_constant = "rate(" not in expr and any(word in expr for word in CONSTANT)
    if not is_constant and not any(word in expr for word in NEVER):
        assert any(one != seen[0] for one in seen[1:])


def drawn(run: WatchedRun, expr: str, phase: Phase) -> Mapping[Any, set[str]]:
    """What a panel would draw of a phase: the values that there are, by series."""
    found = run.prometheus.query_range(expr, phase.began, phase.ended, 1.0)
    return {tuple(sorted(one["metric"].items())): {value for _, value in one["values"]} for one in found}


@pytest.mark.parametrize("name", sorted(rules("record")))
def test_each_recorded_figure_is_there(run: WatchedRun, name: str) -> None:
    assert run.prometheus.query(name, run.ended)


@pytest.mark.parametrize("name", sorted(rules("alert")))
def test_each_alert_can_be_asked(run: WatchedRun, name: str) -> None:
    run.prometheus.query(rules("alert")[name]["expr"], run.ended)


def test_too_much_load_is_a_page_and_a_quiet_time_is_none(run: WatchedRun) -> None:
    firing = 'ALERTS{alertname="LatheBudgetBurn1h",alertstate="firing"}'
    assert run.prometheus.query(firing, run.ended)
    assert run.prometheus.query(firing, run.phases["quiet"].began + 1) == []


def test_promtool_finds_nothing_wrong_with_the_metrics(run: WatchedRun) -> None:
    if not shutil.which("promtool"):
        pytest.skip("there is no promtool: it comes with Debian's prometheus")
    text = exposition(run.server)
    done = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
