"""The capacity of a server for a scenario's cameras: a search whose runs are short load tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Event as Flag

from lathe.errors import Unavailable
from lathe_loadtest.assemble import LATE
from lathe_loadtest.boxed import with_cameras
from lathe_loadtest.capacity import Capacity, Run, find_capacities
from lathe_loadtest.latencies import latencies_of
from lathe_loadtest.play import play, prepared, saturated
from lathe_loadtest.result import ANSWERED, LoadResult
from lathe_loadtest.scenario import Scenario
from lathe_loadtest.stage import Stage

FIRST_SHARE = 0.5
"""Of what a server that is never idle can do, that the first run sends."""


@dataclass(frozen=True)
class Demand:
    """What carrying a load means.

    Attributes:
        p99_seconds: from when frames were to be sent until their answers came, at most.
        drops: share of the frames that may go without an answer, for whatever reason.
    """

    p99_seconds: float
    drops: float = 0.0

    def __post_init__(self) -> None:
        if self.p99_seconds <= 0 or not 0 <= self.drops < 1:
            raise ValueError("p99 must be above 0, and drops a share below 1")


def carries(result: LoadResult, demand: Demand) -> bool | None:
    """Whether a run was carried; None where it says more of who sends than of the server.

    A run that was not carried counts even where who sends was late: that may be the server's doing, where both share a
    machine. It does not where a process of who sends had no more of its core to give, or died.
    """
    if any(not reason.startswith(LATE) for reason in result.why_invalid):
        return None
    due = sum(camera.due for camera in result.cameras)
    answered = result.outcomes[ANSWERED]
    is_late = latencies_of(result.cameras).percentile(0.99) > demand.p99_seconds
    if not answered or due - answered > demand.drops * due or is_late:
        return False
    return True if result.is_valid else None


def search(
    scenario: Scenario,
    stage: Stage,
    demand: Demand,
    *,
    searches: int = 1,
    processes: int = 0,
    stop: Flag | None = None,
    on_run: Callable[[Run, LoadResult], None] = lambda *_: None,
) -> tuple[Capacity, ...]:
    """How many cameras of the scenario's first group the server carries, beside the others.

    Args:
        scenario: each run is one of it, with another number of cameras; parts of one are lower rates of all.
        searches: how often it is searched for.
        on_run: told about each.

    Raises:
        Unavailable: a run has not come to its end.
        LatheError: see `prepared`.
    """
    scenario, _ = prepared(replace(scenario, of_capacity=0.0), stage)
    able = asyncio.run(saturated(scenario, stage))
    quiet = replace(scenario, actions=tuple(action for action in scenario.actions if action.at_seconds))

    def meets(count: float) -> bool | None:
        result = play(with_cameras(quiet, count), stage, processes=processes, stop=stop)
        if result.ended != "completed":
            raise Unavailable(f"the search ended in a run of {count:.1f} cameras: {result.error}")
        met = carries(result, demand)
        on_run(Run(count, met), result)
        return met

    return find_capacities(meets, FIRST_SHARE * able / scenario.cameras[0].fps, searches)
