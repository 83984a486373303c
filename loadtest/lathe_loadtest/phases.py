"""What happens in a load test, and when: changes of the load, and what was done to the server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lathe_loadtest.result import Event, LoadResult
from lathe_loadtest.scenario import Scenario, Shape

MOST_TOLD = 12


@dataclass(frozen=True)
class Phase:
    """Something that begins, or is done.

    Attributes:
        is_action: it was done to the server.
        is_planned: the load changes by the scenario.
    """

    at_seconds: float
    text: str
    is_action: bool = False
    is_planned: bool = False


def phases(result: LoadResult) -> list[Phase]:
    """In order of time, those that the run has reached."""
    scenario = result.scenario
    found = [Phase(scenario.warmup_seconds, "warm-up ends, judged from here")] if scenario.warmup_seconds else []
    changes = [*_of_the_shape(scenario.shape, scenario.seconds), *_of_cameras(scenario)]
    found += [replace(one, is_planned=True) for one in changes]
    found += _of_actions(result.events)
    return sorted((one for one in found if one.at_seconds <= result.seconds), key=lambda one: one.at_seconds)


def _of_actions(events: Sequence[Event]) -> list[Phase]:
    """Each of its own, or, of one thing that was done again and again, the first."""
    found = []
    for do in dict.fromkeys(event.do for event in events):
        own = [event for event in events if event.do == do]
        if len(own) > MOST_TOLD:
            found.append(Phase(own[0].at_seconds, f"the first of {len(own)} times {do}", True))
            own = [event for event in own if event.error]
        found += [
            Phase(one.at_seconds, f"{one.text or one.do}{f': {one.error}' if one.error else ''}", True) for one in own
        ]
    return found


def told(found: Sequence[Phase]) -> str:
    """As a sentence.

    >>> told([Phase(5, "load doubles"), Phase(8.25, "int8 answers", True)])
    'At 5 s load doubles; at 8.25 s int8 answers.'
    """
    if not found:
        return ""
    parts = [f"at {one.at_seconds:.3g} s {one.text}" for one in found[:MOST_TOLD]]
    more = f", and {len(found) - MOST_TOLD} more" if len(found) > MOST_TOLD else ""
    text = "; ".join(parts) + more + "."
    return text[0].upper() + text[1:]


def _of_the_shape(shape: Shape, seconds: float) -> list[Phase]:
    length = shape.for_seconds or seconds - shape.at_seconds
    end = shape.at_seconds + length
    if shape.kind == "ramp":
        return [
            Phase(shape.at_seconds, f"the load begins to go from {shape.low:g} to {shape.high:g} times"),
            *([Phase(end, f"the load is {shape.high:g} times")] if end < seconds else []),
        ]
    if shape.kind == "spike":
        return [
            Phase(shape.at_seconds, f"the load jumps to {shape.high:g} times"),
            *([Phase(end, f"the load falls back to {shape.low:g} times")] if end < seconds else []),
        ]
    if shape.kind == "step":
        rise = (shape.high - shape.low) / (shape.steps - 1)
        return [
            Phase(
                shape.at_seconds + number * length / shape.steps, f"the load is {shape.low + number * rise:.3g} times"
            )
            for number in range(shape.steps)
        ]
    return []


def _of_cameras(scenario: Scenario) -> list[Phase]:
    found = []
    for one in scenario.cameras:
        if one.joins_seconds or one.joins_over_seconds:
            over = f" over {one.joins_over_seconds:g} s" if one.joins_over_seconds else ""
            found.append(Phase(one.joins_seconds, f"{one.count} of {one.name} join{over}"))
        if one.leaves_seconds:
            found.append(Phase(one.leaves_seconds, f"{one.count} of {one.name} leave"))
    return found
