"""Which share of its cores a server can use: what load tests at its capacity have shown, else a rule of thumb."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lathe.errors import InvalidInput
from lathe_loadtest import capacity_file
from lathe_loadtest.figures import figures
from lathe_loadtest.json_file import table_of
from lathe_loadtest.plan import Need
from lathe_loadtest.result import LoadResult, from_json

RULE_OF_THUMB = 0.7
"""Latency rises steeply above."""
MOST = 1.05
"""Of the cores: what is measured by two runs does not fit to the percent."""


@dataclass(frozen=True)
class Utilisation:
    """Attributes:
    share: of the cores that the server may use, from 0 to 1.
    source: of the number, in words.
    """

    share: float
    source: str

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise InvalidInput("the utilisation must be above 0, and 1 at most")


def at_capacity(text: str, name: str, measured: Mapping[str, Need], cores: int) -> tuple[str, Utilisation]:
    """A variant, and what its server used at its capacity.

    Args:
        text: of what `lathe load --find-capacity --output` wrote, or of a load test at the capacity.
        name: of that file, for messages.
        measured: by variant; a file of a search needs that of its own.
        cores: of the server's machine.

    Raises:
        InvalidInput: it is neither, or not of one variant; it holds no capacity, or one beyond the cores.
    """
    if table_of(text, name).get("kind") != capacity_file.KIND:
        result = from_json(text, name)
        variant = _the_one(result.variants, name)
        if not result.is_local and variant not in measured:  # with which the server's cores were said
            raise InvalidInput(f"{name} is of the server at {result.address}: give it as --measured, too")
        return variant, _share(_cores_used(result, name), result.workers, cores, f"what it used in {name}", name)
    file = capacity_file.from_json(text, name)
    variant = _the_one(file.variants, name)
    if variant not in measured:
        raise InvalidInput(f"{name} is of {variant}, whose CPU time is not known: give --measured of it, too")
    if not file.frames_per_second:
        raise InvalidInput(f"{name} is of a search that found no capacity")
    used = file.frames_per_second * measured[variant].cpu_seconds.value
    return variant, _share(used, file.workers, cores, f"what {variant} takes at the capacity found in {name}", name)


def of_variants(
    variants: Sequence[str], found: Mapping[str, Utilisation], asked: float | None = None
) -> dict[str, Utilisation]:
    """For each its own where it has one, else the least of the others.

    Args:
        asked: takes the place of all.
    """
    if asked is not None:
        return dict.fromkeys(variants, Utilisation(asked, "as was asked for"))
    other = Utilisation(RULE_OF_THUMB, "a rule of thumb, as no capacity was measured (--at-capacity)")
    if found:
        least = min(found, key=lambda name: found[name].share)
        other = Utilisation(found[least].share, f"{found[least].source}, and taken for others")
    return {name: found.get(name, other) for name in variants}


def _the_one(variants: Sequence[str], name: str) -> str:
    if len(variants) != 1:
        raise InvalidInput(f"{name} must be of one variant; answered by: {', '.join(variants) or 'none'}")
    return variants[0]


def _cores_used(result: LoadResult, name: str) -> float:
    server = figures(result).server
    if (
        not result.is_valid
        or result.ended != "completed"
        or not server
        or not server.cores
        or not server.cores.value > 0
    ):
        raise InvalidInput(f"{name} does not tell how much of the machine the server used")
    return server.cores.value


def _share(used: float, workers: int, cores: int, source: str, name: str) -> Utilisation:
    """Of the cores that so many workers can use: those of a server on part of a machine leave the others idle."""
    if used > MOST * cores:
        raise InvalidInput(f"in {name} the server used {used:.1f} cores, and there are to be {cores}")
    if 0 < workers < cores:
        return Utilisation(
            min(1.0, used / workers), f"{source}, where it had {workers} of {cores} cores for its workers"
        )
    return Utilisation(min(1.0, used / cores), source)
