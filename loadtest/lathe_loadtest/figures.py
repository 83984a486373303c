"""The figures of a load test, recomputed from its result: each with its interval where there is enough to say one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from lathe.evidence import Interval
from lathe.figure_text import milli
from lathe_loadtest.latencies import Latencies
from lathe_loadtest.result import ANSWERED, OVERLOADED, LoadResult
from lathe_loadtest.timeline import KNOWN, Counts, Timeline, Values, intervals

PERCENTILES = (0.5, 0.9, 0.95, 0.99, 0.999, 0.9999)
FEWEST_BEYOND = 10
"""Frames that must be slower than a percentile before it is told with an interval, or compared."""
LEVEL = 0.95
MILLION = 1e6


@dataclass(frozen=True)
class VariantFigures:
    """Attributes:
    frames: answered by it.
    share: of all answered frames.
    percentiles: latency in seconds by share; those beyond which there is no frame are missing.
    """

    frames: int
    share: float
    mean_seconds: float
    percentiles: Mapping[float, Interval]


@dataclass(frozen=True)
class ServerFigures:
    """By the server's own metrics, over the judged seconds; None where it does not tell.

    Attributes:
        cores: that it used on average.
        cpu_ms_per_frame: of the whole process, for an answered frame.
        cost_used, cost_allocated: for a million answered frames, without and with the machine's idle time.
    """

    cores: Interval | None
    cpu_ms_per_frame: Interval | None
    resident_peak_bytes: int
    resident_growth_bytes: int
    most_waiting: int
    cost_used: Interval | None
    cost_allocated: Interval | None
    currency: str
    joules_per_frame: Interval | None
    energy_source: str


@dataclass(frozen=True)
class Figures:
    """Attributes:
    timeline: the seconds that they are of: those after the warm-up.
    offered, accepted, served: frames a second that were due, that were sent and not rejected, that were answered.
    shares: of the due frames by outcome, most first.
    all: of all variants together.
    server: None where it had no metrics.
    late_p99_seconds, late_most_seconds: by how much the sender itself was late.
    """

    timeline: Timeline
    due: int
    offered: Interval
    accepted: Interval
    served: Interval
    outcomes: Mapping[str, int]
    shares: Mapping[str, Interval]
    all: VariantFigures
    variants: Mapping[str, VariantFigures]
    server: ServerFigures | None
    sender_us_per_frame: float
    late_p99_seconds: float
    late_most_seconds: float

    @property
    def judged_seconds(self) -> int:
        return len(self.timeline)


def figures(result: LoadResult, level: float = LEVEL) -> Figures:
    judged = Timeline.of(result)
    blocks = judged.blocks
    answered = int(judged.answered.sum())
    due = int(judged.due.sum())
    totals = {name: int(one.sum()) for name, one in judged.outcomes.items()}
    outcomes = dict(sorted(totals.items(), key=lambda one: -one[1]))
    late = Latencies.decoded([result.sender.lateness])
    rate = partial(_ratio, lengths=blocks.lengths, level=level)
    return Figures(
        timeline=judged,
        due=due,
        offered=rate(blocks.due),
        accepted=rate(accepted(blocks)),
        served=rate(blocks.answered),
        outcomes=outcomes,
        shares={name: _ratio(blocks.outcomes[name], blocks.due, level, is_share=True) for name in outcomes},
        all=_variant(blocks.together, answered, level),
        variants={name: _variant(one, answered, level) for name, one in blocks.latencies.items() if one.total},
        server=_server(result, blocks, level),
        sender_us_per_frame=result.sender.cpu_us_per_frame,
        late_p99_seconds=late.percentile(0.99),
        late_most_seconds=late.percentile(1.0),
    )


def accepted(timeline: Timeline) -> Counts:
    """Frames that the server took: sent, and neither rejected nor turned away because it was overloaded."""
    return np.asarray(timeline.sent - timeline.outcome("rejected") - timeline.outcome(OVERLOADED))


def is_told(latencies: Latencies, share: float) -> bool:
    """Whether enough frames are slower than a percentile."""
    return latencies.total * (1 - share) >= FEWEST_BEYOND - 1e-6


def with_interval(one: Interval, digits: str = ".3g", factor: float = 1.0) -> str:
    """
    >>> with_interval(Interval(0.0201, 0.0195, 0.0208, 0.95), ".1f", 1e3)
    '20.1 (19.5 to 20.8)'
    >>> with_interval(Interval(0.0201, math.nan, math.nan, 0.95), ".1f", 1e3)
    '20.1'
    """
    if not math.isfinite(one.value):
        return "–"
    text = f"{one.value * factor:{digits}}"
    if not math.isfinite(one.low + one.high):
        return text
    return f"{text} ({one.low * factor:{digits}} to {one.high * factor:{digits}})"


def in_ms(one: Interval) -> str:
    """
    >>> in_ms(Interval(1.0417, 0.0421, 2.2, 0.95)), in_ms(Interval(0.00712, math.nan, math.nan, 0.95))
    ('1042 (42.1 to 2200)', '7.12')
    """
    text = milli(one.value) if math.isfinite(one.value) else "–"
    return f"{text} ({milli(one.low)} to {milli(one.high)})" if math.isfinite(one.low + one.high) else text


def share_text(one: Interval) -> str:
    return with_interval(one, ".2f", 100.0) + " %"


def server_rows(server: ServerFigures) -> list[tuple[str, str]]:
    """Names and values, of what the server tells."""
    rows = [
        ("memory at most, MB", f"{server.resident_peak_bytes / 1e6:.0f}"),
        ("memory grew by, MB", f"{server.resident_growth_bytes / 1e6:+.1f}"),
        ("most frames that waited", str(server.most_waiting)),
    ]
    for name, one, digits, factor in (
        ("CPU, cores", server.cores, ".2f", 1.0),
        ("CPU a frame, ms", server.cpu_ms_per_frame, ".2f", 1.0),
        (f"a million frames, {server.currency}", server.cost_used, ".3g", 1.0),
        (f"… with idle time, {server.currency}", server.cost_allocated, ".3g", 1.0),
        (f"energy a frame, mJ ({server.energy_source})", server.joules_per_frame, ".1f", 1e3),
    ):
        if one:
            rows.append((name, with_interval(one, digits, factor)))
    return rows


def _variant(blocks: Latencies, answered: int, level: float) -> VariantFigures:
    found = {share: Interval(value, math.nan, math.nan, level) for share, value in blocks.curve(PERCENTILES)}
    return VariantFigures(
        blocks.total,
        blocks.total / answered if answered else math.nan,
        blocks.mean(),
        {**found, **percentile_intervals(blocks, [share for share in found if is_told(blocks, share)], level)},
    )


def percentile_intervals(blocks: Latencies, shares: Sequence[float], level: float) -> dict[float, Interval]:
    """Cut at the fastest and the slowest frame: where blocks differ much, Student's would reach far beyond."""
    found = intervals(partial(blocks.percentiles, shares), len(blocks.counts), level) if shares else ()
    fastest, slowest = blocks.percentiles([0.0, 1.0])
    return {
        share: Interval(one.value, np.maximum(one.low, fastest), np.minimum(one.high, slowest), level)
        for share, one in zip(shares, found, strict=True)
    }


def _ratio(above: Counts | Values, lengths: Counts | Values, level: float, *, is_share: bool = False) -> Interval:
    """Of two sums over blocks."""

    def statistic(multiplicity: Counts) -> list[float]:
        below = multiplicity @ lengths
        return [float(multiplicity @ above / below) if below else math.nan]

    (found,) = intervals(statistic, len(above), level, is_share=is_share)
    return found


def _server(result: LoadResult, blocks: Timeline, level: float) -> ServerFigures | None:
    readings = [one for one in result.server if one.at_seconds >= result.scenario.warmup_seconds]
    if not readings:
        return None
    grown = blocks.server
    answered = grown.get(ANSWERED, np.zeros(len(blocks)))

    def a_frame(name: str, factor: float) -> Interval | None:
        return _ratio(grown[name] * factor, answered, level) if name in grown and answered.any() else None

    resident = [one.resident_bytes for one in readings]
    return ServerFigures(
        cores=_ratio(grown["cpu_seconds"], grown[KNOWN], level) if "cpu_seconds" in grown else None,
        cpu_ms_per_frame=a_frame("cpu_seconds", 1e3),
        resident_peak_bytes=max(resident),
        resident_growth_bytes=resident[-1] - resident[0],
        most_waiting=max(one.waiting_frames for one in readings),
        cost_used=a_frame("cost_usage", MILLION),
        cost_allocated=a_frame("cost_allocation", MILLION),
        currency=readings[-1].currency,
        joules_per_frame=a_frame("joules", 1.0),
        energy_source=readings[-1].energy_source,
    )
