"""Whether two load tests may be compared: both are to be believed, and the load was the same."""

from __future__ import annotations

import dataclasses

from lathe_loadtest.result import LoadResult
from lathe_loadtest.scenario import Scenario, Shape


def obstacles(a: LoadResult, b: LoadResult) -> list[str]:
    """Why two results must not be compared: they are not valid, or not of the same load."""
    found = [
        f"{name} is invalid: {', '.join(one.why_invalid)}" for name, one in (("A", a), ("B", b)) if not one.is_valid
    ]
    if a.ended == "server_lost":
        found.append("A's server was lost")
    loads = _load(a.scenario), _load(b.scenario)
    differing = [name for name, value in loads[0].items() if value != loads[1][name]]
    if differing:
        found.append(f"the loads differ in {', '.join(differing)}{_why_they_may(a, b)}")
    return found


def _why_they_may(a: LoadResult, b: LoadResult) -> str:
    if not (a.of_capacity or b.of_capacity):
        return ""
    return ": rates were shares of what the server could do, measured anew; repeat A's with lathe load --like A.json"


_MAY_DIFFER = (
    *("name", "about", "seed", "footage", "expect"),
    *("seconds", "warmup_seconds", "drain_seconds", "give_up_seconds"),
)


def _load(scenario: Scenario) -> dict[str, object]:
    """Without what may differ, which is also who answers."""
    names = [one.name for one in dataclasses.fields(scenario) if one.name not in _MAY_DIFFER]
    return {
        **{name: getattr(scenario, name) for name in names},
        "cameras": [dataclasses.replace(one, variant="") for one in scenario.cameras],
        "shape": _as_played(scenario.shape, scenario.seconds),
    }


def _as_played(shape: Shape, seconds: float) -> Shape:
    """Without numbers that say nothing, and with the length that 0 stands for: a ramp to the end of a longer run is
    another."""
    if shape.kind in ("steady", "soak"):
        return Shape(shape.kind)
    return dataclasses.replace(shape, for_seconds=shape.for_seconds or seconds - shape.at_seconds)


def notes(a: LoadResult, b: LoadResult) -> list[str]:
    """What else differs, and has to be known to read a comparison."""
    found = []
    if a.machine != b.machine:
        machines = [f"{one.machine.cores} cores of {one.machine.cpu}" for one in (a, b)]
        found.append(f"the drivers' machines differ: {machines[0]} and {machines[1]}")
    for name, one in (("A", a), ("B", b)):
        if one.ended == "interrupted":
            found.append(f"{name} was interrupted after {one.seconds:g} s")
    if (variants := (a.variants, b.variants)) and variants[0] != variants[1]:
        found.append(f"answered by {', '.join(a.variants) or 'none'} in A, by {', '.join(b.variants) or 'none'} in B")
    return found
