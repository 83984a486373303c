"""What an experiment says: a pure function of its rounds, the same on the server, in a report and in a simulation.

A round is a handful of blocks of time. In each block all frames of a unit go to one side, and which block is the
candidate's is drawn anew for each round; so a round compares a unit with itself, at almost the same time, and gives
one number a metric. Frames are not independent of each other; these numbers are, as far as their drawing is, and
nothing but them is judged.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lathe.card import check_name
from lathe.errors import InvalidInput
from lathe.evidence import Interval, sequential_mean
from lathe.v1 import experiment_pb2
from lathe.v1.experiment_pb2 import (
    EXPERIMENT_STATE_ENDED,
    EXPERIMENT_UNIT_BLOCK,
    EXPERIMENT_UNIT_STREAM,
    VERDICT_INVALID,
    VERDICT_NO_DIFFERENCE,
    VERDICT_PROMOTE,
    VERDICT_ROLLBACK,
    VERDICT_UNDECIDED,
    VERDICT_UNSPECIFIED,
)

AGREEMENT: Final = "agreement"
STREAMS: Final = "streams"
"""The metrics that are no cost: how far both sides agree, and how many streams each was given."""


@dataclass(frozen=True, slots=True)
class Metric:
    """Attributes:
    title: in words.
    is_time: compared as a ratio; otherwise a share of frames, compared as a difference.
    margin: how much worse a candidate may be by default.
    is_shared: both sides of an experiment with streams have it in common, through the queue, so it is judged only where
        blocks are the unit.
    """

    title: str
    is_time: bool
    margin: float
    is_shared: bool


METRICS: Final = {
    "cpu_seconds": Metric("CPU time of a prediction", is_time=True, margin=0.05, is_shared=False),
    "service_seconds": Metric("a worker's time for a prediction", is_time=True, margin=0.05, is_shared=False),
    "latency_p50_seconds": Metric("median from arrival to answer", is_time=True, margin=0.25, is_shared=True),
    "latency_p99_seconds": Metric("99th percentile from arrival to answer", is_time=True, margin=0.5, is_shared=True),
    "age_p99_seconds": Metric("99th percentile from capture to answer", is_time=True, margin=0.5, is_shared=True),
    "dropped_share": Metric("frames dropped for being late", is_time=False, margin=0.02, is_shared=True),
    "failed_share": Metric("frames that failed", is_time=False, margin=0.005, is_shared=False),
}

MISMATCH: Final = 0.1
"""A side that is given so many streams less than its share, or more, was not compared with the other. Frames would not
do: a stream that waits for its answers sends more of them to the side that is faster."""
MOST: Final = 20.0
"""An effect on a time, as a logarithm, beyond which the time says nothing."""
MOST_BLOCKS, MOST_ROUNDS = 100, 5000
MANY_STREAMS: Final = 50
DEAD_ROUNDS: Final = 3
"""A side without a frame for so many rounds on end is dead."""


def completed(spec: experiment_pb2.ExperimentSpec, streams: int = 0) -> experiment_pb2.ExperimentSpec:
    """A copy in which defaults stand for what was left out.

    Args:
        streams: that are open; from `MANY_STREAMS` on they are the unit by default.

    Raises:
        InvalidInput: a value that makes no experiment.
    """
    whole = experiment_pb2.ExperimentSpec()
    whole.CopyFrom(spec)
    whole.unit = spec.unit or (EXPERIMENT_UNIT_STREAM if streams >= MANY_STREAMS else EXPERIMENT_UNIT_BLOCK)
    whole.blocks_per_round = spec.blocks_per_round or 2
    whole.block_seconds = spec.block_seconds or 3.0
    whole.washout_seconds = spec.washout_seconds or min(0.5, whole.block_seconds / 10)
    whole.shadow_share = spec.shadow_share or 0.1
    whole.objective = spec.objective or "cpu_seconds"
    whole.minimum_effect = spec.minimum_effect or 0.02
    whole.minimum_agreement = spec.minimum_agreement or 0.9
    whole.alpha = spec.alpha or 0.05
    whole.max_seconds = spec.max_seconds or 3600.0
    whole.max_failed_share = spec.max_failed_share or 0.02
    whole.max_latency_ratio = spec.max_latency_ratio or 3.0
    _check(whole)
    given = {margin.metric: margin.margin for margin in spec.margins}
    del whole.margins[:]
    for name, metric in METRICS.items():
        if name != whole.objective and (whole.unit == EXPERIMENT_UNIT_BLOCK or not metric.is_shared):
            whole.margins.add(metric=name, margin=given.get(name, metric.margin))
    return whole


def _check(spec: experiment_pb2.ExperimentSpec) -> None:
    round_seconds = spec.block_seconds * spec.blocks_per_round
    check_name(spec.model, "model")
    for side in (spec.baseline, spec.candidate):
        check_name(side.variant, "variant")
    judged = [name for name, metric in METRICS.items() if spec.unit == EXPERIMENT_UNIT_BLOCK or not metric.is_shared]
    bounds = {
        "blocks_per_round": (2, MOST_BLOCKS),
        "block_seconds": (0.1, 3600),
        "washout_seconds": (0, spec.block_seconds / 2),
        "shadow_share": (0, 1),
        "minimum_effect": (0, 10),
        "minimum_agreement": (-math.inf, 1),
        "alpha": (1e-6, 0.5),
        "max_seconds": (round_seconds, MOST_ROUNDS * round_seconds),
        "max_failed_share": (0, 1),
        "max_latency_ratio": (1, math.inf),
    }
    if spec.unit not in (EXPERIMENT_UNIT_BLOCK, EXPERIMENT_UNIT_STREAM):
        raise InvalidInput("an experiment's unit is the block or the stream")
    if not METRICS.get(spec.objective, METRICS["dropped_share"]).is_time:
        times = ", ".join(name for name in judged if METRICS[name].is_time)
        raise InvalidInput(f"the objective is one of {times}")
    for name in (spec.objective, *(margin.metric for margin in spec.margins)):
        if name not in judged:
            raise InvalidInput(f"an experiment with this unit judges {', '.join(judged)}")
    for name, (low, high) in bounds.items():
        if not low <= getattr(spec, name) <= high:
            raise InvalidInput(f"{name} is from {low:g} to {high:g}")
    if spec.objective in {margin.metric for margin in spec.margins}:
        raise InvalidInput("the objective has a minimum effect, and no margin")
    if not all(0 <= margin.margin < math.inf for margin in spec.margins):
        raise InvalidInput("a margin is 0 or above")
    if len(spec.seed) > 256:
        raise InvalidInput("a seed is at most 256 characters")


def candidate_block(spec: experiment_pb2.ExperimentSpec, round_number: int, stream_id: str) -> int:
    """Which block of a round is the candidate's, from 0.

    It is the first 8 bytes of SHA-256 of `seed:round:unit`, big-endian, modulo the blocks of a round; the unit is the
    stream's name, or empty where blocks are the unit. So it can be foretold, and not be chosen.
    """
    unit = stream_id if spec.unit == EXPERIMENT_UNIT_STREAM else ""
    drawn = hashlib.sha256(f"{spec.seed}:{round_number}:{unit}".encode()).digest()[:8]
    return int.from_bytes(drawn, "big") % spec.blocks_per_round


@dataclass(frozen=True, slots=True)
class Judgement:
    """Attributes:
    verdict: unspecified while there is none.
    reason: the verdict in words, or what is missing.
    """

    verdict: experiment_pb2.Verdict.ValueType
    reason: str
    estimates: tuple[experiment_pb2.Estimate, ...]


def judge(
    spec: experiment_pb2.ExperimentSpec, rounds: Sequence[experiment_pb2.Round], *, is_over: bool = False
) -> Judgement:
    """The verdict after some rounds; it may be asked for after each, because the intervals hold at all looks together.

    Args:
        spec: a completed one.
        is_over: there will be no more rounds.
    """
    compared = rounds[spec.shadow_rounds :]
    margins = {margin.metric: margin.margin for margin in spec.margins}
    judged = [spec.objective, *margins, STREAMS, *([AGREEMENT] if spec.minimum_agreement >= 0 else [])]
    values = {name: _values(name, spec, rounds, compared) for name in judged}
    # Half of alpha is for `promote`, for which everything must hold, so that each may err as often as the whole; the
    # other half is for the ways in which one metric alone can bring about another verdict, which share it.
    found = {name: sequential_mean(values[name], level=1 - spec.alpha) for name in judged}
    alarm = {name: sequential_mean(values[name], level=1 - spec.alpha / len(judged)) for name in judged}
    estimates = tuple(_estimate(name, interval) for name, interval in found.items())

    def said(verdict: experiment_pb2.Verdict.ValueType, *reasons: str) -> Judgement:
        return Judgement(verdict, "; ".join(reasons), estimates)

    if mismatch := _mismatch(compared, alarm[STREAMS], is_over=is_over):
        return said(VERDICT_INVALID, mismatch)
    limits = {name: _effect_of(name, margin) for name, margin in margins.items()}
    limits[spec.objective] = _effect_of(spec.objective, spec.minimum_effect)
    worse = [_words(name, alarm[name]) for name, limit in limits.items() if alarm[name].low > limit]
    open_questions = [_words(name, found[name]) for name in margins if found[name].high > limits[name]]
    if agreement := found.get(AGREEMENT):
        if alarm[AGREEMENT].high < spec.minimum_agreement:
            worse.append(_words(AGREEMENT, alarm[AGREEMENT]))
        elif agreement.low < spec.minimum_agreement:
            open_questions.append(_words(AGREEMENT, agreement))
    if worse:
        return said(VERDICT_ROLLBACK, *worse)
    gain, better = found[spec.objective], _effect_of(spec.objective, -spec.minimum_effect)
    if not open_questions and gain.high < better:
        return said(VERDICT_PROMOTE, _words(spec.objective, gain), "nothing else is worse than allowed")
    if not open_questions and better < gain.low and gain.high < limits[spec.objective]:
        return said(VERDICT_NO_DIFFERENCE, f"{_words(spec.objective, gain)}, which is less than what counts")
    if gain.high >= better:
        open_questions.insert(0, _words(spec.objective, gain))
    return said(VERDICT_UNDECIDED if is_over else VERDICT_UNSPECIFIED, *open_questions)


def _values(
    name: str,
    spec: experiment_pb2.ExperimentSpec,
    rounds: Sequence[experiment_pb2.Round],
    compared: Sequence[experiment_pb2.Round],
) -> list[float]:
    """One number a round, of those that have one."""
    if name == AGREEMENT:
        return [2 * one.matched_boxes / one.found_boxes for one in rounds if one.found_boxes]
    if name == STREAMS:
        odds = spec.blocks_per_round - 1
        pairs = [(one.baseline_streams, one.candidate_streams) for one in compared]
        return [math.log(candidate * odds / baseline) for baseline, candidate in pairs if baseline and candidate]
    return [effect.effect for one in compared for effect in one.effects if effect.metric == name]


def _mismatch(compared: Sequence[experiment_pb2.Round], streams: Interval, *, is_over: bool) -> str:
    """Why the rounds say nothing, or empty."""
    last = compared[-DEAD_ROUNDS:]
    if len(last) == DEAD_ROUNDS or is_over:
        for side in ("baseline", "candidate"):
            if not any(getattr(one, f"{side}_frames") for one in last):
                return f"the {side} was given no frames"
    if streams.low > math.log1p(MISMATCH) or streams.high < math.log1p(-MISMATCH):
        return f"{_words(STREAMS, streams)}, so not the same was compared"
    return ""


def _is_ratio(name: str) -> bool:
    return name == STREAMS or (name in METRICS and METRICS[name].is_time)


def _effect_of(name: str, margin: float) -> float:
    """A change as rounds measure it."""
    return math.log1p(max(margin, -0.999)) if _is_ratio(name) else margin


def _estimate(name: str, interval: Interval) -> experiment_pb2.Estimate:
    def shown(effect: float) -> float:
        if not _is_ratio(name) or math.isnan(effect):
            return effect
        return math.expm1(effect) if abs(effect) < MOST else math.copysign(math.inf, effect)

    value, low, high = (shown(effect) for effect in (interval.value, interval.low, interval.high))
    return experiment_pb2.Estimate(metric=name, value=value, low=low, high=high, level=interval.level)


TITLES: Final = {
    AGREEMENT: "agreement on the same frames",
    STREAMS: "streams that the candidate was given",
    **{name: metric.title for name, metric in METRICS.items()},
}


def said_of(estimate: experiment_pb2.Estimate) -> str:
    """An estimate in words.

    >>> said_of(experiment_pb2.Estimate(metric="cpu_seconds", value=-0.1, low=-0.12, high=-0.08))
    'CPU time of a prediction: -10.0 % (-12.0 to -8.0)'
    >>> said_of(experiment_pb2.Estimate(metric="failed_share", value=0.01, low=0.0, high=0.02))
    'frames that failed: +1.0 points (+0.0 to +2.0)'
    """
    title = TITLES[estimate.metric]
    if not math.isfinite(estimate.low) or not math.isfinite(estimate.high):
        return f"{title}: too few rounds to say"
    sign = "" if estimate.metric == AGREEMENT else "+"
    unit = "%" if estimate.metric == AGREEMENT or _is_ratio(estimate.metric) else "points"
    value, low, high = (f"{100 * number:{sign}.1f}" for number in (estimate.value, estimate.low, estimate.high))
    return f"{title}: {value} {unit} ({low} to {high})"


def _words(name: str, interval: Interval) -> str:
    return said_of(_estimate(name, interval))


def title(spec: experiment_pb2.ExperimentSpec) -> str:
    """What stands beside what."""
    sides = (f"{side.variant}/{side.version}" for side in (spec.candidate, spec.baseline))
    return f"{spec.model}: {' beside '.join(sides)}"


def word(verdict: experiment_pb2.Verdict.ValueType) -> str:
    """
    >>> word(VERDICT_NO_DIFFERENCE)
    'no difference'
    """
    return experiment_pb2.Verdict.Name(verdict).removeprefix("VERDICT_").lower().replace("_", " ")


def verdict_word(experiment: experiment_pb2.Experiment) -> str:
    """The verdict as a word; `running` while there is none."""
    return word(experiment.verdict) if experiment.state == EXPERIMENT_STATE_ENDED else "running"
