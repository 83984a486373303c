"""How much load a server carries: a search over runs of which each says no more than that it was carried, or was not.

Runs near the capacity come out by chance, so a bisection that believes each one ends up beside it. This one
(probabilistic bisection: Horstein, 1963; Waeber, Frazier and Henderson, 2013) holds for each load how probable it is
that it is the capacity, asks at the median, and stops when the middle nine tenths of it are narrow: nothing is decided
by one run. Before, it doubles the load until that is not carried, so that no run is far beyond.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import numpy as np

SPAN = 2.0**12
"""How far from where it starts the capacity may be, both ways."""
CELL = 0.0025
LEVEL = 0.9
SPREAD = 0.02
"""Of the loads, as a share, between which a run comes out by chance."""
SURPRISE = 0.03
"""How often a run comes out wrong though its load is far from the capacity: somebody else had the machine."""

MOST_INVALID = 3
"""Runs that are none one after the other, before it is not for somebody else on the machine."""


@dataclass(frozen=True)
class Run:
    """Attributes:
    met: the load was carried; None where the run was none, because who sends was the limit.
    """

    load: float
    met: bool | None


@dataclass(frozen=True)
class Capacity:
    """Attributes:
    load: that half of the runs would carry.
    low, high: it lies between them with a probability of nine tenths.
    runs: in order.
    why_not: why the search ended without an answer; `low` and `high` then are what is known. Empty where it has one.
    """

    load: float
    low: float
    high: float
    runs: tuple[Run, ...]
    why_not: str = ""

    @property
    def was_found(self) -> bool:
        return not self.why_not


def find_capacities(
    meets: Callable[[float], bool | None], start: float, searches: int = 1, **settings: Any
) -> tuple[Capacity, ...]:
    """Searches for the highest load that is carried, so often. The searches know nothing of each other, but their runs
    take turns: a machine that is slower for a while is so for all of them.

    Args:
        meets: makes a run at a load, and says whether it was carried, or None (see `Run`).
        start: the load of the first run; best one that is carried for sure.
        settings: see `searching`.
    """
    under_way = {number: searching(start, **settings) for number in range(searches)}
    loads = {number: next(search) for number, search in under_way.items()}
    found: dict[int, Capacity] = {}
    while under_way:
        for number, search in list(under_way.items()):
            try:
                loads[number] = search.send(meets(loads[number]))
            except StopIteration as ended:
                found[number] = ended.value
                del under_way[number]
    return tuple(found[number] for number in range(searches))


def searching(
    start: float, *, precision: float = 0.022, most_runs: int = 60
) -> Generator[float, bool | None, Capacity]:
    """One search: gives the load of the next run, is sent whether it was carried, and returns the capacity.

    Args:
        precision: half the width of the interval at which it ends, as a share.
    """
    belief = _Belief(start)
    runs: list[Run] = []

    def ended(why_not: str = "") -> Capacity:
        low, load, high = belief.interval()
        met = [run.load for run in runs if run.met]
        if why_not:
            failed = [run.load for run in runs if run.met is False]
            low, high = max(met, default=0.0), min(failed, default=math.inf)
            load = low
        return Capacity(load, low, high, tuple(runs), why_not)

    while len(runs) < most_runs:
        load = next_load(runs, start, belief)
        if not start / SPAN < load < start * SPAN:
            return ended("every load was carried" if load > start else "no load was carried, however small")
        met = yield load
        runs.append(Run(load, met))
        if met is None:
            if {run.met for run in runs[-MOST_INVALID:]} == {None} and len(runs) >= MOST_INVALID:
                return ended("who sends was the limit, not the server")
            continue
        belief.update(load, met)
        low, _, high = belief.interval()
        if {run.met for run in runs} >= {True, False} and high / low <= (1 + precision) ** 2:
            return ended()
    return ended(f"{most_runs} runs do not agree")


def next_load(runs: list[Run], start: float, belief: _Belief) -> float:
    """Doubled or halved until there is one run of either kind, then what is believed, and no more than twice of what
    was carried, however much one wrong run lets one believe."""
    met, failed = ([run.load for run in runs if run.met is kind] for kind in (True, False))
    if not met and not failed:
        return start
    if not failed:
        return 2 * max(met)
    if not met:
        return min(failed) / 2
    return min(max(belief.interval()[1], min(failed) / 2), 2 * max(met))


class _Belief:
    """How probable each load is to be the capacity, over a grid of their logarithms."""

    def __init__(self, start: float) -> None:
        reach = math.log(SPAN)
        self._logs = math.log(start) + np.arange(-reach, reach, CELL)
        self._weights = np.zeros_like(self._logs)  # their logarithms

    def update(self, load: float, met: bool) -> None:
        carried = 1 / (1 + np.exp(np.clip((math.log(load) - self._logs) / SPREAD, -50, 50)))
        carried = SURPRISE + (1 - 2 * SURPRISE) * carried
        self._weights += np.log(carried if met else 1 - carried)

    def interval(self) -> tuple[float, float, float]:
        """Lower bound, median, upper bound."""
        weights = np.exp(self._weights - self._weights.max())
        sums = np.cumsum(weights) / weights.sum()
        places = np.searchsorted(sums, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
        low, middle, high = np.exp(self._logs[places])
        return float(low), float(middle), float(high)
