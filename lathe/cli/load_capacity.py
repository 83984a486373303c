"""lathe load … --find-capacity: how many of a scenario's cameras a server carries."""

from __future__ import annotations

import argparse
import dataclasses
import threading
from typing import TYPE_CHECKING

from lathe.errors import InvalidInput

if TYPE_CHECKING:
    from lathe_loadtest.capacity import Capacity, Run
    from lathe_loadtest.find import Demand
    from lathe_loadtest.result import LoadResult
    from lathe_loadtest.scenario import Scenario
    from lathe_loadtest.stage import Stage

EXIT_NOT_FOUND = 4
RUN_SECONDS = 6.0
WARM_SHARE = 0.2
"""Of each run, that is not judged: connections are made in it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "capacity", "searches for the most cameras of which all is answered in time, by runs of --seconds (default 6)"
    )
    group.add_argument("--find-capacity", action="store_true", help="instead of one run")
    group.add_argument(
        "--p99", type=duration_seconds, metavar="TIME", help="longest 99th percentile, such as 50ms (default 100ms)"
    )
    group.add_argument("--drops", type=float, metavar="SHARE", help="of the frames that may go unanswered (default 0)")
    group.add_argument("--searches", type=int, metavar="N", help="search so often, to see how well they agree")


def check(options: argparse.Namespace) -> None:
    """
    Raises:
        InvalidInput: flags of a search without one, or that make no sense.
    """
    if not options.find_capacity and any(v is not None for v in (options.p99, options.drops, options.searches)):
        raise InvalidInput("--p99, --drops and --searches go with --find-capacity")
    if options.find_capacity and (options.report or options.cameras is not None):
        raise InvalidInput("--report and --cameras do not go with --find-capacity, which makes many runs")
    if options.drops is not None and not 0 <= options.drops < 1:
        raise InvalidInput("--drops is a share of the frames, from 0 to below 1")
    if options.searches is not None and options.searches < 1:
        raise InvalidInput("--searches must be 1 or more")


def duration_seconds(text: str) -> float:
    """
    >>> [duration_seconds(text) for text in ("50ms", "0.2s", "2")]
    [0.05, 0.2, 2.0]
    """
    for unit, scale in (("ms", 1e-3), ("s", 1.0), ("", 1.0)):
        if text.endswith(unit):
            try:
                seconds = float(text[: len(text) - len(unit)]) * scale
            except ValueError:
                break
            if 0 < seconds < 600:
                return seconds
            break
    raise argparse.ArgumentTypeError(f"{text} is not a time such as 50ms or 0.2s")


def run(options: argparse.Namespace, scenario: Scenario, stage: Stage, stop: threading.Event) -> int:
    """
    Returns:
        The exit code.
    """
    from lathe_loadtest.boxed import stretched
    from lathe_loadtest.capacity_file import of_searches, write_capacity
    from lathe_loadtest.find import Demand, search

    if options.seconds is None:
        scenario = stretched(scenario, RUN_SECONDS)
    warm = max(scenario.warmup_seconds, float(round(WARM_SHARE * scenario.seconds)))
    scenario = dataclasses.replace(scenario, warmup_seconds=warm, drain_seconds=1.0)
    demand = Demand(0.1 if options.p99 is None else options.p99, options.drops or 0.0)
    times = options.searches or 1
    results: list[LoadResult] = []

    def on_run(run: Run, result: LoadResult) -> None:
        results.append(result)
        _tell_run(run, result)

    found = search(scenario, stage, demand, searches=times, processes=options.processes, stop=stop, on_run=on_run)
    for one in found:
        print(sentence(one, scenario, demand), flush=True)
    loads = [one.load for one in found if one.was_found]
    if len(loads) > 1:
        print(f"{len(loads)} searches: {min(loads):.1f} to {max(loads):.1f}, {max(loads) / min(loads) - 1:.1%} apart")
    if options.output:
        write_capacity(of_searches(found, scenario, demand, results), options.output)
    return 0 if all(one.was_found for one in found) else EXIT_NOT_FOUND


def sentence(found: Capacity, scenario: Scenario, demand: Demand) -> str:
    """The answer, in words."""
    fps = scenario.cameras[0].fps
    within = f"p99 ≤ {demand.p99_seconds * 1e3:g} ms, at most {demand.drops:.2%} unanswered"
    if not found.was_found:
        return f"not found after {len(found.runs)} runs: {found.why_not}. At least {found.low:.1f} cameras ({within})"
    return (
        f"{found.load:.1f} cameras at {fps:g} fps, {found.load * fps:.0f} frames/s; between {found.low:.1f} and "
        f"{found.high:.1f} by {len(found.runs)} runs ({within})"
    )


def _tell_run(run: Run, result: LoadResult) -> None:
    words = {True: "carried", False: "not carried", None: "the driver was the limit"}
    answered = result.outcomes["answered"] / max(1, sum(one.due for one in result.per_second))
    print(f"  {run.load:8.1f} cameras: {words[run.met]}, {answered:.2%} answered", flush=True)
