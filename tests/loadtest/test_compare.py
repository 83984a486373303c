"""Two load tests compared: how often it errs, what it refuses to judge, and what CI is told."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from lathe.cli import main
from lathe.errors import InvalidInput
from lathe_loadtest.compare import ALLOWED, changes, compare
from lathe_loadtest.compare_page import as_json, page
from lathe_loadtest.expect import Expect
from lathe_loadtest.latencies import Latencies
from lathe_loadtest.result import LoadResult, write_result
from lathe_loadtest.same_load import obstacles
from lathe_loadtest.scenario import Shape
from lathe_loadtest.timeline import Timeline
from tests.loadtest.synthetic import synthetic_result

NOTHING_ALLOWED = dict.fromkeys(ALLOWED, 0.0)


def day(random: np.random.Generator, *, slower: float = 1.0, seconds: int = 100, fps: int = 200) -> Timeline:
    """A run whose seconds are alike their neighbours, as those of a queue are: their mean latency wanders by 5 %."""
    wander = np.zeros(seconds)
    for second in range(1, seconds):
        wander[second] = 0.4 * wander[second - 1] + random.normal(scale=0.05)
    logs = np.log(0.02 * slower) + wander[:, None] + random.normal(scale=0.3, size=(seconds, fps))
    cells = np.round(logs * 1000).astype(int)
    counts = np.zeros((seconds, np.ptp(cells) + 1), np.int32)
    for row, cell in zip(counts, cells - cells.min(), strict=True):
        np.add.at(row, cell, 1)
    latencies = Latencies(np.exp((np.arange(counts.shape[1]) + cells.min()) / 1000), counts)
    drops = random.binomial(fps, 0.02, seconds)
    due = np.full(seconds, fps)
    cpu = 0.005 * (due - drops) * slower * np.exp(random.normal(scale=0.03, size=seconds))
    return Timeline(
        np.arange(seconds),
        np.ones(seconds, np.int64),
        due,
        due,
        {"answered": due - drops, "dropped_superseded": drops},
        {"int8": latencies},
        {"cpu_seconds": cpu, "answered": (due - drops).astype(float)},
    )


def test_the_shortest_runs_that_are_judged_err_no_more_often() -> None:
    """Five blocks of five seconds; of 60 pairs chance allows two standard errors, a tenth, beyond alpha."""
    random = np.random.default_rng(6)
    pairs = [(day(random, seconds=25), day(random, seconds=25)) for _ in range(60)]
    alarms = [any(one.verdict == "regression" for one in changes(*pair, NOTHING_ALLOWED, 0.2)) for pair in pairs]
    assert np.mean(alarms) <= 0.3


def test_equal_servers_are_called_worse_no_more_often_than_alpha() -> None:
    """At an alpha of 0.2 and with nothing allowed, which errs most."""
    random = np.random.default_rng(1)
    alarms = Counter(
        any(one.verdict == "regression" for one in changes(day(random), day(random), NOTHING_ALLOWED, 0.2))
        for _ in range(60)
    )
    assert alarms[True] / 60 <= 0.2


def test_a_tenth_slower_is_found() -> None:
    random = np.random.default_rng(2)
    found: Counter[str] = Counter()
    for _ in range(20):
        worse = changes(day(random), day(random, slower=1.1), NOTHING_ALLOWED, 0.05)
        found.update(one.name for one in worse if one.verdict == "regression")
    assert min(found["p50"], found["p90"], found["cpu"]) >= 18
    assert found["p99"] >= 12
    assert found["unanswered"] <= 1, "as many are answered as before"


def test_what_is_allowed_is_no_regression_and_what_is_faster_is_better() -> None:
    random = np.random.default_rng(3)
    verdicts = [
        {
            one.name: one.verdict
            for one in changes(day(random), day(random, slower=slower), dict(ALLOWED, p50=0.2), 0.05)
        }
        for slower in (1.1, 0.8)
    ]
    assert (verdicts[0]["p50"], verdicts[1]["p50"], verdicts[1]["cpu"]) == ("within", "better", "better")


def test_the_interval_holds_the_true_change() -> None:
    random = np.random.default_rng(4)
    held = 0
    for _ in range(60):
        (p90,) = [one for one in changes(day(random), day(random, slower=1.1), ALLOWED, 0.3) if one.name == "p90"]
        assert p90.change.level == pytest.approx(0.9)
        held += p90.change.low <= 0.1 <= p90.change.high
    assert held / 60 >= 0.8


def test_a_ramp_does_not_hide_a_regression() -> None:
    """The load's own change, four times, is on both sides: blocks are compared with those opposite them."""
    random = np.random.default_rng(5)

    def ramped(slower: float) -> Timeline:
        one = day(random, slower=slower, seconds=60)
        growth = np.linspace(1, 4, 60)
        values = np.unique(np.round(np.outer(growth, one.together.values), 4))
        counts = np.zeros((60, len(values)), np.int32)
        for row, factor, old in zip(counts, growth, one.together.counts, strict=True):
            np.add.at(row, np.searchsorted(values, np.round(factor * one.together.values, 4)), old)
        return replace(one, latencies={"int8": Latencies(values, counts)})

    found = {one.name: one for one in changes(ramped(1.0), ramped(1.15), NOTHING_ALLOWED, 0.05)}
    assert found["p50"].verdict == "regression"
    assert found["p50"].change.high - found["p50"].change.low < 0.2


def changed(result: LoadResult, **fields: object) -> LoadResult:
    return replace(result, scenario=replace(result.scenario, **fields))  # type: ignore[arg-type]


BEFORE = synthetic_result(seconds=40, seed=1)


@pytest.mark.parametrize(
    ("a", "b", "sentence"),
    [
        (BEFORE, replace(BEFORE, why_invalid=("it was late",)), "Not judged: B is invalid: it was late."),
        (replace(BEFORE, why_invalid=("it was late",)), BEFORE, "Not judged: A is invalid: it was late."),
        (BEFORE, changed(BEFORE, protocol="unary"), "Not judged: the loads differ in protocol."),
        (BEFORE, synthetic_result(seconds=40, fps=20), "Not judged: the loads differ in cameras."),
        (replace(BEFORE, ended="server_lost"), BEFORE, "Not judged: A's server was lost."),
        (synthetic_result(seconds=8), synthetic_result(seconds=8), "Not judged: the runs are too short, or have too"),
    ],
)
def test_what_cannot_be_compared_is_not_judged(a: LoadResult, b: LoadResult, sentence: str) -> None:
    found = compare(a, b)
    assert found.sentence.startswith(sentence)
    assert (found.verdict, found.exit_code) == ("not judged", 2)


def test_other_names_seeds_and_variants_are_the_same_load() -> None:
    other = changed(synthetic_result(seconds=40, seed=2, latency_ms={"fp32": 20}), name="later", seed=7)
    found = compare(BEFORE, other)
    assert found.verdict == "no regression"
    assert "answered by int8 in A, by fp32 in B" in found.notes


def test_what_is_not_the_load_may_differ() -> None:
    other = synthetic_result(seconds=45, warmup=3, seed=2)
    scenario = replace(other.scenario, expect=(Expect(answered_share=0.9),), give_up_seconds=3.0)
    found = compare(BEFORE, replace(other, scenario=scenario))
    assert (found.obstacles, found.seconds) == ([], 37), "from the longer warm-up to the earlier end"


def test_rates_of_a_share_of_the_capacity_are_other_loads_and_why_is_said() -> None:
    a, b = (replace(synthetic_result(seconds=40, fps=fps), of_capacity=0.5) for fps in (10, 11))
    assert compare(a, b).sentence.endswith(
        "the loads differ in cameras: rates were shares of what the server could do, measured anew; repeat A's with "
        "lathe load --like A.json."
    )


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ((Shape("ramp"), 40), (Shape("ramp"), 60), False),
        ((Shape("ramp", for_seconds=40.0), 40), (Shape("ramp", for_seconds=40.0), 60), True),
        ((Shape("ramp"), 40), (Shape("ramp", for_seconds=40.0), 60), True),
        ((Shape("spike", at_seconds=10.0), 40), (Shape("spike", at_seconds=10.0), 60), False),
        ((Shape("steady", high=2.0), 40), (Shape("steady", high=3.0), 60), True),
    ],
)
def test_a_shape_to_the_end_is_as_long_as_its_run(
    one: tuple[Shape, int], other: tuple[Shape, int], is_same: bool
) -> None:
    a, b = (changed(synthetic_result(seconds=seconds), shape=shape) for shape, seconds in (one, other))
    assert obstacles(a, b) == ([] if is_same else ["the loads differ in shape"])


def test_a_cost_has_its_currency_and_two_are_not_compared() -> None:
    def costs(other: LoadResult) -> list[str]:
        return [title for title, _, _ in compare(BEFORE, other).others if "cost" in title]

    euros = replace(BEFORE, server=tuple(replace(one, currency="EUR") for one in BEFORE.server))
    assert (costs(BEFORE), costs(euros)) == (["cost used by a million frames, USD"], [])


def test_a_lost_server_is_a_regression_whatever_it_answered_before() -> None:
    found = compare(BEFORE, replace(BEFORE, ended="server_lost", seconds=17.0))
    assert found.exit_code == 1
    assert "B's server was lost after 17 s" in found.sentence


def test_runs_of_different_length_are_compared_over_what_both_have() -> None:
    found = compare(synthetic_result(seconds=60, seed=1), synthetic_result(seconds=40, seed=2))
    assert (found.seconds, found.verdict) == (40, "no regression")


def test_more_unanswered_frames_are_a_regression_in_points() -> None:
    found = compare(synthetic_result(seconds=60, drops=0.0), synthetic_result(seconds=60, drops=0.05, seed=3))
    (unanswered,) = [one for one in found.changes if one.name == "unanswered"]
    assert unanswered.verdict == "regression"
    assert unanswered.change.value == pytest.approx(0.05, abs=0.02)
    assert found.exit_code == 1


def test_too_few_frames_are_said() -> None:
    found = {one.name: one for one in compare(BEFORE, BEFORE).changes}
    assert (found["p99.9"].verdict, found["p99.9"].why) == ("unknown", "too few frames")
    assert found["p50"].verdict == "within"


def test_a_server_without_metrics_is_compared_by_its_answers() -> None:
    found = {one.name: one for one in compare(BEFORE, replace(BEFORE, server=())).changes}
    assert (found["cpu"].verdict, found["cpu"].why) == ("unknown", "not told by both servers")
    assert found["p50"].verdict == "within"


@pytest.mark.parametrize("allowed", [{"p98": 0.1}, {"p99": -0.1}, {"p99": math.nan}])
def test_limits_that_mean_nothing_are_refused(allowed: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        compare(BEFORE, BEFORE, allowed)


def lathe_load_compare(*words: object) -> int:
    return main(["load", "compare", *map(str, words)])


def test_the_exit_code_is_for_ci(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / f"{name}.json" for name in "abc"]
    runs = [
        synthetic_result(seconds=60, seed=seed, latency_ms={"int8": ms}) for seed, ms in ((1, 20), (2, 20), (3, 26))
    ]
    for path, run in zip(files, runs, strict=True):
        write_result(run, path)
    assert lathe_load_compare(files[0], files[1]) == 0
    assert "No regression shown" in capsys.readouterr().out
    assert lathe_load_compare(files[0], files[2], "--output", tmp_path / "page.html") == 1
    assert "Regression: latency p50" in capsys.readouterr().out
    assert "<svg" in (tmp_path / "page.html").read_text("utf-8")
    everything = [f"--allow={name}=100%" for name in ("p50", "p90", "p99")]
    assert lathe_load_compare(files[0], files[2], *everything) == 0
    assert lathe_load_compare(files[0], tmp_path / "none.json") == 2
    assert lathe_load_compare(files[0], files[1], "--allow=p99") == 2
    assert lathe_load_compare(files[0], files[1], "--allow=p99=10") == 2
    assert "p99=10 allows 1000%" in capsys.readouterr().err
    (tmp_path / "other.json").write_text("[]")
    assert lathe_load_compare(files[0], tmp_path / "other.json") == 2
    assert "lathe: other.json is not the result of a load test" in capsys.readouterr().err


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace('"seconds": 40.0', '"seconds": NaN', 1),
        lambda text: re.sub('"lateness": "[^"]*"', '"lateness": "HISTFAAAAAA="', text),
        lambda text: '{"format": 1, "kind": "comparison", "verdict": "regression"}',
        lambda text: "\udcff",
    ],
)
def test_files_that_are_no_results_are_not_judged(
    spoil: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_result(BEFORE, tmp_path / "a.json")
    spoiled = spoil((tmp_path / "a.json").read_text("utf-8"))
    (tmp_path / "b.json").write_bytes(spoiled.encode("utf-8", "surrogateescape"))
    assert lathe_load_compare(tmp_path / "a.json", tmp_path / "b.json") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("lathe: b.json")


def test_whatever_goes_wrong_is_not_a_regression(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_result(BEFORE, tmp_path / "a.json")
    words = (tmp_path / "a.json", tmp_path / "a.json")
    assert lathe_load_compare(*words, "--output", tmp_path / "none" / "x.html") == 2
    assert "--output: there is no folder" in capsys.readouterr().err
    assert lathe_load_compare(*words, "--output", tmp_path) == 2
    assert lathe_load_compare(*words, "--alpha", "1e-17") == 2
    assert "alpha must be from 0.000001" in capsys.readouterr().err
    for error in (RuntimeError("broken"), ModuleNotFoundError("no", name="hdrh"), OSError(28, "No space left")):
        monkeypatch.setattr("lathe_loadtest.compare.compare", Mock(side_effect=error))
        assert lathe_load_compare(*words) == 2


def test_json_holds_what_the_verdict_rests_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_result(BEFORE, tmp_path / "a.json")
    lathe_load_compare(tmp_path / "a.json", tmp_path / "a.json", "--json")
    table = json.loads(capsys.readouterr().out)
    assert (table["verdict"], table["exit_code"], table["seconds"]) == ("no regression", 0, 40)
    assert [one["name"] for one in table["figures"]] == list(ALLOWED)
    assert table["figures"][3]["low"] is None, "what cannot be told is null"
    p50 = table["figures"][0]
    assert (p50["a"], p50["b"]) == (pytest.approx(0.0184, rel=0.1), p50["a"])


def test_invalid_runs_show_their_figures_without_a_verdict() -> None:
    found = compare(BEFORE, replace(BEFORE, why_invalid=("it <was> late",)))
    html = page(BEFORE, BEFORE, found, ("a.json", "b.json")).html()
    assert html.count("<td>not judged</td>") >= 4
    assert "it &lt;was&gt; late" in html
    assert {one["verdict"] for one in json.loads(as_json(found))["figures"]} == {"not judged"}
    assert compare(BEFORE, replace(BEFORE, why_invalid=("late",)), anyway=True).verdict == "no regression"
