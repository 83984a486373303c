"""A load test second by second, as arrays: what figures, comparisons and drawings are computed from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lathe.evidence import Interval, student_bootstraps
from lathe_loadtest.latencies import Latencies, block_starts
from lathe_loadtest.result import ANSWERED, LoadResult, ServerReading

SHORTEST_BLOCK_SECONDS, FEWEST_BLOCKS = 5, 5
"""Below them there are no intervals: a queue remembers the seconds before, and few blocks say little of the spread."""
COUNTERS = ("cpu_seconds", "cost_usage", "cost_allocation", "joules")
"""Of the server's readings."""
KNOWN = "known"

Counts = NDArray[np.int64]
Values = NDArray[np.float64]
Statistics = Callable[[Counts], Sequence[float]]


@dataclass(frozen=True, eq=False)
class Timeline:
    """Stretches of time, at first of a second each.

    Attributes:
        starts: second in which each begins.
        lengths: seconds of each.
        due, sent: frames.
        outcomes: frames by outcome, of those that occurred.
        latencies: by variant, of answered frames.
        server: by how much its counters grew: COUNTERS and `answered`, those that it tells, and `KNOWN`, the seconds of
            the stretch between its first reading and its last.
    """

    starts: Counts
    lengths: Counts
    due: Counts
    sent: Counts
    outcomes: Mapping[str, Counts]
    latencies: Mapping[str, Latencies]
    server: Mapping[str, Values]

    @classmethod
    def of(cls, result: LoadResult) -> Timeline:
        """All seconds of a run from the end of its warm-up on; those without a frame, too."""
        begin = int(result.scenario.warmup_seconds)
        end = max([begin, math.ceil(result.seconds), *(one.second + 1 for one in result.per_second)])
        at = {one.second: one for one in result.per_second}
        names = sorted({name for one in result.per_second for name in one.outcomes})
        seconds = range(begin, end)

        def counts(of: Sequence[int]) -> Counts:
            return np.array(of, np.int64)

        return cls(
            counts(seconds),
            np.ones(len(seconds), np.int64),
            counts([at[one].due if one in at else 0 for one in seconds]),
            counts([at[one].sent if one in at else 0 for one in seconds]),
            {name: counts([at[one].outcomes.get(name, 0) if one in at else 0 for one in seconds]) for name in names},
            {
                variant: Latencies.decoded([at[one].latencies.get(variant, "") if one in at else "" for one in seconds])
                for variant in result.variants
            },
            _growth(result.server, np.arange(begin, end + 1)),
        )

    def __len__(self) -> int:
        return len(self.starts)

    @cached_property
    def together(self) -> Latencies:
        """Of all variants."""
        total = Latencies(np.empty(0), np.zeros((len(self), 0), np.int32))
        for one in self.latencies.values():
            total = one + total
        return total

    @property
    def answered(self) -> Counts:
        return self.outcome(ANSWERED)

    def outcome(self, name: str) -> Counts:
        return self.outcomes.get(name, np.zeros(len(self), np.int64))

    @cached_property
    def blocks(self) -> Timeline:
        """Of seconds: stretches long enough to be taken as independent, five seconds, and the root of the run's length
        in seconds where that is more."""
        return self.grouped(block_length(len(self)))

    def grouped(self, length: int) -> Timeline:
        """So many stretches as one. What is left over at the end goes to the last."""
        starts = block_starts(len(self), length)
        if not len(starts):
            return self
        return Timeline(
            self.starts[starts],
            np.add.reduceat(self.lengths, starts),
            np.add.reduceat(self.due, starts),
            np.add.reduceat(self.sent, starts),
            {name: np.add.reduceat(one, starts) for name, one in self.outcomes.items()},
            {
                name: Latencies(one.values, np.add.reduceat(one.counts, starts, axis=0))
                for name, one in self.latencies.items()
            },
            {name: np.add.reduceat(one, starts) for name, one in self.server.items()},
        )

    def between(self, begin: int, end: int) -> Timeline:
        """Those that begin from one second on, and before another."""
        chosen = np.flatnonzero((self.starts >= begin) & (self.starts < end))
        if len(chosen) == len(self):  # an hour's counts are large
            return self
        return Timeline(
            self.starts[chosen],
            self.lengths[chosen],
            self.due[chosen],
            self.sent[chosen],
            {name: one[chosen] for name, one in self.outcomes.items()},
            {name: Latencies(one.values, one.counts[chosen]) for name, one in self.latencies.items()},
            {name: one[chosen] for name, one in self.server.items()},
        )


def block_length(seconds: int) -> int:
    """
    >>> [block_length(seconds) for seconds in (10, 26, 60, 3600)]
    [5, 5, 8, 60]
    """
    return max(SHORTEST_BLOCK_SECONDS, min(math.ceil(math.sqrt(seconds)), seconds // FEWEST_BLOCKS))


def intervals(statistics: Statistics, blocks: int, level: float, *, is_share: bool = False) -> list[Interval]:
    """Of statistics over blocks (`lathe.evidence.student_bootstraps`), without bounds where there are too few of them.

    What is no share is above 0 and skewed to the right, as latencies are: its logarithm is nearer to normal. What is 0,
    or a share of 1, is so in all blocks, which then have no spread to tell an interval from.
    """
    once = statistics(np.ones(blocks, np.int64))
    if blocks < FEWEST_BLOCKS:
        return [Interval(value, math.nan, math.nan, level) for value in once]
    if is_share:
        return [
            Interval(one.value, max(0.0, one.low), min(1.0, one.high), level)
            if math.isfinite(one.low) and 0 < one.value < 1
            else Interval(one.value, math.nan, math.nan, level)
            for one in student_bootstraps(statistics, blocks, level=level)
        ]

    def logarithms(multiplicity: Counts) -> list[float]:
        return [math.log(value) if value > 0 else math.nan for value in statistics(multiplicity)]

    found = student_bootstraps(logarithms, blocks, level=level)
    return [
        Interval(value, math.exp(one.low), math.exp(one.high), level) for value, one in zip(once, found, strict=True)
    ]


def _growth(readings: Sequence[ServerReading], edges: Counts) -> dict[str, Values]:
    """By how much each counter grew between two edges, evenly between two readings; not at all where there are none.

    A counter that went back is one of a server that was started anew: it grew by what it stands at.
    """
    if len(readings) < 2:
        return {}
    at = np.array([one.at_seconds for one in readings])
    rows = {name: [getattr(one, name) for one in readings] for name in COUNTERS}
    rows[ANSWERED] = [one.frames.get(ANSWERED, 0) for one in readings]
    found = {}
    for name, row in rows.items():
        if any(value is None for value in row):
            continue
        values = np.array(row, np.float64)
        steps = np.diff(values)
        total = np.concatenate([[0.0], np.cumsum(np.where(steps < 0, values[1:], steps))])
        found[name] = np.diff(np.interp(edges, at, total))
    return {**found, KNOWN: np.diff(np.clip(edges, at[0], at[-1]))}
