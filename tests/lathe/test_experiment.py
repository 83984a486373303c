"""Verdicts from rounds: a table, and simulations that look after every round."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from lathe.errors import InvalidInput
from lathe.evidence import sequential_mean
from lathe.experiment import METRICS, candidate_block, completed, judge, word
from lathe.experiment_page import page
from lathe.v1 import experiment_pb2
from lathe.v1.experiment_pb2 import EXPERIMENT_UNIT_STREAM

STEADY = {"latency_p50_seconds": 0.0, "latency_p99_seconds": 0.0, "age_p99_seconds": 0.0}


def spec(**how: object) -> experiment_pb2.ExperimentSpec:
    asked = experiment_pb2.ExperimentSpec(model="face", seed="a test", **how)  # type: ignore[arg-type]
    asked.baseline.variant, asked.candidate.variant = "int8", "pruned-int8"
    return completed(asked)


def round_of(
    effects: dict[str, float],
    *,
    frames: tuple[int, int] = (500, 500),
    streams: tuple[int, int] = (50, 50),
    matched: int = 98,
    found: int = 200,
) -> experiment_pb2.Round:
    """A round with these effects; those of other metrics are 0."""
    result = experiment_pb2.Round(baseline_frames=frames[0], candidate_frames=frames[1])
    result.baseline_streams, result.candidate_streams = streams
    result.compared_frames, result.matched_boxes, result.found_boxes = 50, matched, found
    for metric in METRICS:
        result.effects.add(metric=metric, effect=effects.get(metric, 0.0))
    return result


def rounds(count: int, *, spread: float = 0.01, **how: float) -> list[experiment_pb2.Round]:
    """Rounds whose effects on times scatter about what is given; a name without a metric's is given to `round_of`."""
    random = np.random.default_rng(7)
    scattered = [name for name, metric in METRICS.items() if metric.is_time]
    counts = {name: how.pop(name) for name in ("matched", "found") if name in how}
    return [
        round_of(
            {name: how.get(name, 0.0) + (random.normal(0, spread) if name in scattered else 0.0) for name in METRICS},
            **{name: int(value) for name, value in counts.items()},
        )
        for _ in range(count)
    ]


def verdict(of: Sequence[experiment_pb2.Round], *, is_over: bool = False, **how: object) -> str:
    return word(judge(spec(**how), of, is_over=is_over).verdict)


@pytest.mark.parametrize(
    ("expected", "made"),
    [
        ("promote", rounds(20, cpu_seconds=-0.1)),
        ("rollback", rounds(20, cpu_seconds=0.1)),
        ("no difference", rounds(60)),
        ("unspecified", rounds(3, cpu_seconds=-0.1)),
        ("rollback", rounds(20, cpu_seconds=-0.1, latency_p99_seconds=0.5)),
        ("rollback", rounds(20, cpu_seconds=-0.1, matched=80)),
        ("rollback", rounds(20, cpu_seconds=-0.1, failed_share=0.05)),
        ("unspecified", rounds(20, cpu_seconds=-0.1, found=0, matched=0)),
    ],
    ids=[
        "faster by a tenth",
        "slower by a tenth",
        "the same",
        "too few rounds",
        "faster, and late",
        "faster, and sees something else",
        "faster, and fails",
        "faster, and nobody knows what it sees",
    ],
)
def test_verdicts(expected: str, made: list[experiment_pb2.Round]) -> None:
    assert verdict(made) == expected


def test_what_has_no_verdict_when_its_time_is_over_is_undecided() -> None:
    assert verdict(rounds(3, cpu_seconds=-0.1), is_over=True) == "undecided"
    assert verdict(rounds(20, cpu_seconds=-0.1), is_over=True) == "promote"


def test_a_candidate_may_be_promoted_without_agreement_only_where_nobody_asks_for_it() -> None:
    blind = rounds(20, cpu_seconds=-0.1, found=0, matched=0)
    assert verdict(blind, minimum_agreement=-1.0) == "promote"


@pytest.mark.fault(90)
@pytest.mark.parametrize(
    ("frames", "streams", "why"),
    [
        ((0, 0), (0, 0), "the baseline was given no frames"),
        ((500, 0), (50, 0), "the candidate was given no frames"),
        ((0, 500), (0, 50), "the baseline was given no frames"),
        ((500, 300), (50, 40), "streams that the candidate was given: -2"),
    ],
    ids=["no samples", "a dead candidate", "a dead baseline", "a sample ratio that does not match"],
)
def test_what_says_nothing_is_invalid_and_has_no_winner(
    frames: tuple[int, int], streams: tuple[int, int], why: str
) -> None:
    random = np.random.default_rng(3)
    made = [
        round_of(
            {"cpu_seconds": -0.5}, frames=frames, streams=(streams[0], max(0, streams[1] + random.integers(-2, 3)))
        )
        for _ in range(20)
    ]
    judged = judge(spec(), made)
    assert word(judged.verdict) == "invalid"
    assert why in judged.reason


def test_a_faster_side_may_have_more_frames_of_the_same_streams() -> None:
    made = [round_of({"cpu_seconds": -0.5 + number / 100}, frames=(500, 900)) for number in range(20)]
    assert verdict(made) == "promote"


@pytest.mark.fault(90)
def test_without_a_round_it_is_invalid_when_its_time_is_over() -> None:
    assert verdict([], is_over=True) == "invalid"
    assert verdict([]) == "unspecified"


def test_shadow_rounds_say_something_of_the_agreement_only() -> None:
    shadow = [round_of({}, frames=(500, 0), matched=50 + number % 2) for number in range(10)]
    assert verdict(shadow, shadow_rounds=10) == "rollback"
    fine = [round_of({}, frames=(500, 0), matched=98 + number % 2) for number in range(10)]
    assert verdict(fine, shadow_rounds=10) == "unspecified"


@pytest.mark.parametrize(
    "wrong",
    [
        {"objective": "speed"},
        {"objective": "dropped_share"},
        {"blocks_per_round": 1},
        {"block_seconds": math.nan},
        {"block_seconds": 1.0, "washout_seconds": 0.9},
        {"alpha": 0.9},
        {"minimum_agreement": 1.5},
        {"max_seconds": 1e9},
        {"unit": EXPERIMENT_UNIT_STREAM, "objective": "latency_p99_seconds"},
        {"unit": 9},
        {"margins": [experiment_pb2.Margin(metric="cpu_seconds", margin=-1)]},
        {"margins": [experiment_pb2.Margin(metric="beauty", margin=1)]},
        {"margins": [experiment_pb2.Margin(metric="service_seconds", margin=-1)]},
        {"seed": "x" * 300},
    ],
)
def test_what_makes_no_experiment_is_said(wrong: dict[str, object]) -> None:
    asked = experiment_pb2.ExperimentSpec(model="face", **wrong)  # type: ignore[arg-type]
    asked.baseline.variant, asked.candidate.variant = "a", "b"
    with pytest.raises(InvalidInput):
        completed(asked)


def test_the_unit_follows_the_streams_where_nobody_says_it() -> None:
    asked = experiment_pb2.ExperimentSpec(model="face")
    asked.baseline.variant, asked.candidate.variant = "a", "b"
    assert completed(asked, 49).unit != EXPERIMENT_UNIT_STREAM
    by_stream = completed(asked, 50)
    assert by_stream.unit == EXPERIMENT_UNIT_STREAM
    assert not {margin.metric for margin in by_stream.margins} & STEADY.keys(), "sides that share a queue have it alike"


def test_every_block_of_a_round_is_drawn_as_often_and_streams_by_themselves() -> None:
    by_stream = spec(unit=EXPERIMENT_UNIT_STREAM, blocks_per_round=4)
    drawn = Counter(candidate_block(by_stream, number, f"camera-{n}") for number in range(50) for n in range(40))
    assert set(drawn) == {0, 1, 2, 3}
    assert max(drawn.values()) < 1.2 * min(drawn.values())
    together = spec(blocks_per_round=4)
    assert {candidate_block(together, 5, f"camera-{n}") for n in range(40)} == {candidate_block(together, 5, "")}


def correlated(random: np.random.Generator, count: int, correlation: float) -> NDArray[np.float64]:
    """Means of blocks of which each is much like the one before, with a slow drift on top."""
    values = np.zeros(count)
    noise = random.normal(0, 0.02, count)
    for number in range(1, count):
        values[number] = correlation * values[number - 1] + noise[number]
    return values + 0.2 * np.sin(np.arange(count) / 40 + random.uniform(0, 6))


def experiment_rounds(random: np.random.Generator, count: int, effect: float) -> list[float]:
    """Differences of two blocks whose order is drawn, of frames that are anything but independent."""
    blocks = correlated(random, 2 * count, 0.9)
    order = random.choice((-1, 1), count)
    return [float(value) for value in order * (blocks[1::2] - blocks[::2]) + effect]


@pytest.mark.fault(91)
def test_looking_after_every_round_of_a_thousand_aa_experiments_finds_no_more_winners_than_alpha() -> None:
    random = np.random.default_rng(91)
    level, wrong = 0.95, 0
    for _ in range(1000):
        values = experiment_rounds(random, 60, 0.0)
        looks = (sequential_mean(values[:count], level=level) for count in range(2, 61))
        wrong += any(not look.low <= 0 <= look.high for look in looks)
    assert wrong <= 50


def test_a_difference_of_a_tenth_is_found_nearly_always() -> None:
    random = np.random.default_rng(10)
    found = []
    for _ in range(200):
        values = experiment_rounds(random, 60, math.log(0.9))
        found.append(any(sequential_mean(values[:count], level=0.99).high < -0.02 for count in range(2, 61)))
    assert sum(found) >= 180


def test_what_is_not_bounded_yet_is_said_so() -> None:
    judged = judge(spec(), rounds(3, cpu_seconds=-0.1))
    assert "CPU time of a prediction: too few rounds to say" in judged.reason
    assert {(one.low, one.high) for one in judged.estimates} == {(-math.inf, math.inf)}
    assert "too few rounds" in page(experiment_pb2.Experiment(id="1", spec=spec(), reason=judged.reason)).html()


def test_the_default_shadow_rounds_of_a_rollout_tell_a_blind_candidate() -> None:
    blind = [round_of({}, frames=(500, 0), matched=0) for _ in range(8)]
    assert verdict(blind, shadow_rounds=8) == "rollback"


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 1.1]])
def test_too_few_values_have_no_bounds(values: list[float]) -> None:
    interval = sequential_mean(values)
    assert (interval.low, interval.high) == (-math.inf, math.inf)


def test_the_page_tells_the_verdict_and_comes_to_it_once_more() -> None:
    experiment = experiment_pb2.Experiment(id="20260101-000000-ab", spec=spec(), owner="here")
    experiment.rounds.extend(rounds(20, cpu_seconds=-0.1))
    for number, one in enumerate(experiment.rounds):
        one.ended_seconds = 10.0 * (number + 1)
    judged = judge(experiment.spec, experiment.rounds)
    experiment.state, experiment.verdict = experiment_pb2.EXPERIMENT_STATE_ENDED, judged.verdict
    experiment.reason = judged.reason
    experiment.estimates.extend(judged.estimates)
    html = page(experiment).html()
    assert "Promote. CPU time of a prediction: -9" in html
    assert "Judged anew from its rounds: promote." in html
    assert "<td>98.0%</td>" in html, "an agreement is no difference"
    assert html.count("<svg") >= 6
    running = experiment_pb2.Experiment(id="1", spec=spec(), state=experiment_pb2.EXPERIMENT_STATE_RUNNING)
    assert "Running." in page(running).html()
