"""Drawings of a load test: latencies on an axis of percentiles, and what happened over time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from lathe.plot import COLORS, HEIGHT, SMALL_WH, WIDTH, Axis, Series, lines, stacked, ticks
from lathe_loadtest.figures import LEVEL, is_told, percentile_intervals
from lathe_loadtest.latencies import Latencies
from lathe_loadtest.phases import Phase
from lathe_loadtest.result import ANSWERED
from lathe_loadtest.timeline import Timeline

SHARES = {0.0: "0 %", 0.5: "50 %", 0.9: "90 %", 0.99: "99 %", 0.999: "99.9 %", 0.9999: "99.99 %"}
"""Of the axis of percentiles, on which each nine is as wide as the one before."""
_CORNERS, _BAND_CORNERS = 200, 14
_ROOM = 1.12
"""The part of the x axis beyond its end in which lines' names stand."""
_LINEAR_UP_TO = 12.0
"""Times the median: latencies beyond are drawn on a logarithmic axis, or all others would be a line at its foot."""
UNANSWERED_COLOR = 1
"""Number of the first one's."""
Moments = Sequence[tuple[float, str, str]]


def place(share: float) -> float:
    """Where a percentile lies on its axis.

    >>> [round(place(share), 3) for share in (0, 0.9, 0.99, 0.999)]
    [0.0, 1.0, 2.0, 3.0]
    """
    return math.log10(1 / (1 - share))


def distribution(curves: Mapping[str, Latencies]) -> str:
    """Latency by percentile; bands are the 95 % intervals.

    Args:
        curves: by name, latencies in blocks.
    """
    shares = [1 - 10 ** (-4 * corner / _CORNERS) for corner in range(_CORNERS + 1)]
    drawn = {name: [(place(share), ms) for share, ms in _in_ms(one.curve(shares))] for name, one in curves.items()}
    scale = _Scale([ms for points in drawn.values() for _, ms in points])
    series = []
    for number, (name, points) in enumerate(drawn.items()):
        color = COLORS[number % len(COLORS)]
        band = _band(curves[name], scale, color, f"{name}: 95 % interval")
        series += [band] if band.points else []
        line = [(x, scale.at(ms)) for x, ms in points]
        series.append(Series(line, color, _tip(name, curves[name]), name if len(drawn) > 1 else ""))
    marks = [place(share) for share in SHARES]
    words = dict(zip(marks, SHARES.values(), strict=True))
    high = marks[-1] * _ROOM
    return lines(series, Axis("percentile", 0.0, high, marks, words.__getitem__), scale.axis("latency, ms"))


def latency_over_time(timeline: Timeline, phases: Sequence[Phase], shares: Mapping[str, float]) -> str:
    """A line for each percentile, of all variants together."""
    return _percentiles_over_time(
        timeline, phases, {name: (timeline.together, share) for name, share in shares.items()}, (WIDTH, HEIGHT)
    )


def variants_over_time(timeline: Timeline, phases: Sequence[Phase], share: float) -> str:
    """A line for each variant."""
    return _percentiles_over_time(
        timeline, phases, {name: (one, share) for name, one in timeline.latencies.items()}, (WIDTH, HEIGHT)
    )


def rates_over_time(timeline: Timeline, rows: Mapping[str, Sequence[float]], phases: Sequence[Phase]) -> str:
    """Frames a second, a line each."""
    series = [
        Series(list(zip(_middles(timeline), row, strict=True)), COLORS[number % len(COLORS)], name, name)
        for number, (name, row) in enumerate(rows.items())
    ]
    top = max((max(row, default=0.0) for row in rows.values()), default=0.0)
    return lines(
        series, _time(_end(timeline)), Axis("frames a second", 0.0, max(top, 1.0) * 1.05), marks=moments(phases)
    )


def drops_over_time(timeline: Timeline, phases: Sequence[Phase]) -> str:
    """Frames a second without an answer, by what became of them, on top of one another."""
    names = unanswered(timeline)
    middles = _middles(timeline)
    rates = [dict(zip(middles, timeline.outcomes[name] / timeline.lengths, strict=True)) for name in names]
    series, top = [], 0.0
    for number, (name, layer) in enumerate(zip(names, stacked(rates), strict=True)):
        points = [(x, high) for x, _, high in layer]
        top = max([top, *(high for _, high in points)])
        color = COLORS[(number + UNANSWERED_COLOR) % len(COLORS)]
        series.append(Series(points, color, name, floor=[low for _, low, _ in layer]))
        most = max(layer, key=lambda edges: edges[2] - edges[1])
        series.append(Series([(most[0], most[2])], color, name, name))  # its name where there is most of it
    return lines(
        series, _time(_end(timeline)), Axis("frames a second", 0.0, max(top, 1.0) * 1.05), marks=moments(phases)
    )


def small_over_time(points: Sequence[tuple[float, float]], title: str, end: float, phases: Sequence[Phase]) -> str:
    """One figure from 0 up, for a row of small drawings."""
    top = max((value for _, value in points), default=0.0) or 1.0
    series = [Series(part, COLORS[0], title) for part in _unbroken(points)]
    return lines(
        series, _time(end, is_small=True), Axis(title, 0.0, top * 1.05), marks=moments(phases), size_wh=SMALL_WH
    )


def key(names: Iterable[str], first: int = 0) -> list[tuple[str, str]]:
    """Names with the colors of their lines, in the order in which they are drawn."""
    return [(name, COLORS[number % len(COLORS)]) for number, name in enumerate(names, first)]


def unanswered(timeline: Timeline) -> list[str]:
    """Outcomes other than an answer that occurred."""
    return [name for name, frames in timeline.outcomes.items() if name != ANSWERED and frames.any()]


def moments(phases: Sequence[Phase]) -> Moments:
    return [(one.at_seconds, COLORS[4] if one.is_action else "currentColor", one.text) for one in phases]


def per_stretch(above: Sequence[float], below: Sequence[float], timeline: Timeline) -> list[tuple[float, float]]:
    """A quotient over time; stretches in which there is nothing below are left out."""
    return [
        (when, float(one / other))
        for when, one, other in zip(_middles(timeline), above, below, strict=True)
        if other > 0 and math.isfinite(one)
    ]


class _Scale:
    """Of latencies in milliseconds: linear from 0, or logarithmic where the slowest are far from the rest."""

    def __init__(self, values: Sequence[float]) -> None:
        known = [one for one in values if one > 0]
        self._low, self._high = min(known, default=1.0), max(known, default=1.0)
        self.is_log = bool(known) and self._high > _LINEAR_UP_TO * float(np.median(known))

    def at(self, ms: float) -> float:
        return math.log10(ms) if self.is_log else ms

    def within(self, ms: float) -> float:
        """Cut to what the axis shows: an interval may reach far beyond the slowest frame."""
        return self.at(min(max(ms, self._low), self._high))

    def axis(self, title: str) -> Axis:
        if not self.is_log:
            return Axis(title, 0.0, self._high * 1.05)
        first, last = math.floor(math.log10(self._low)), math.ceil(math.log10(self._high))
        steps = (1, 2, 5) if last - first <= 3 else (1,)
        values = [step * 10.0**power for power in range(first, last + 1) for step in steps]
        low = max((one for one in values if one <= self._low), default=values[0])
        high = min((one for one in values if one >= self._high), default=values[-1])
        marks = [math.log10(one) for one in values if low <= one <= high]
        return Axis(f"{title}, logarithmic", marks[0], marks[-1], marks, lambda mark: f"{10**mark:g}")


def _band(blocks: Latencies, scale: _Scale, color: str, tip: str) -> Series:
    shares = [1 - 10 ** (-4 * corner / _BAND_CORNERS) for corner in range(1, _BAND_CORNERS + 1)]
    upper, floor = [], []
    told = [share for share in shares if is_told(blocks, share)]
    for share, found in percentile_intervals(blocks, told, LEVEL).items():
        if math.isfinite(found.low):
            upper.append((place(share), scale.within(found.high * 1e3)))
            floor.append(scale.within(found.low * 1e3))
    return Series(upper, color, tip, floor=floor)


def _percentiles_over_time(
    timeline: Timeline,
    phases: Sequence[Phase],
    rows: Mapping[str, tuple[Latencies, float]],
    size_wh: tuple[int, int],
) -> str:
    middles = _middles(timeline)
    drawn = {
        name: [
            (when, seconds * 1e3)
            for when, seconds in zip(middles, of.percentile_of_each(share), strict=True)
            if seconds > 0
        ]
        for name, (of, share) in rows.items()
    }
    scale = _Scale([ms for points in drawn.values() for _, ms in points])
    series = []
    for number, (name, points) in enumerate(drawn.items()):
        parts = _unbroken([(when, scale.at(ms)) for when, ms in points], timeline)
        for part in parts:
            is_last = part is parts[-1]
            series.append(Series(part, COLORS[number % len(COLORS)], name, name if is_last and len(drawn) > 1 else ""))
    return lines(series, _time(_end(timeline)), scale.axis("latency, ms"), marks=moments(phases), size_wh=size_wh)


def _unbroken(
    points: Sequence[tuple[float, float]], timeline: Timeline | None = None
) -> list[list[tuple[float, float]]]:
    """Parts without a gap, so that no line leads over a time of which nothing is known.

    A point that stands alone becomes a short line: a line of one point is not seen.
    """
    if not points:
        return []
    step = float(np.median(timeline.lengths)) if timeline else _usual_step(points)
    parts = [[points[0]]]
    for before, point in pairwise(points):
        if point[0] - before[0] > 1.5 * step:
            parts.append([])
        parts[-1].append(point)
    return [
        part if len(part) > 1 else [(x - 0.3 * step, y) for x, y in part] + [(x + 0.3 * step, y) for x, y in part]
        for part in parts
    ]


def _usual_step(points: Sequence[tuple[float, float]]) -> float:
    return float(np.median([after[0] - before[0] for before, after in pairwise(points)] or [1.0]))


def _middles(timeline: Timeline) -> list[float]:
    return [float(middle) for middle in timeline.starts + timeline.lengths / 2]


def _time(end: float, *, is_small: bool = False) -> Axis:
    marks = [mark for mark in ticks(0.0, end, 4 if is_small else 6) if mark <= end]
    return Axis("seconds since the start", 0.0, end * (1.0 if is_small else _ROOM), marks)


def _end(timeline: Timeline) -> float:
    return float(timeline.starts[-1] + timeline.lengths[-1]) if len(timeline) else 1.0


def _in_ms(curve: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(share, seconds * 1e3) for share, seconds in curve]


def _tip(name: str, one: Latencies) -> str:
    return f"{name}: {one.total:,} frames"
