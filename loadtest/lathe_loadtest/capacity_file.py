"""What a search for the capacity has found, as a JSON file that `lathe plan` reads."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lathe import config
from lathe.errors import InvalidInput
from lathe_loadtest.boxed import total_fps
from lathe_loadtest.capacity import Capacity, Run
from lathe_loadtest.find import Demand
from lathe_loadtest.json_file import table_of
from lathe_loadtest.result import LoadResult
from lathe_loadtest.scenario import Scenario

KIND, FORMAT = "capacity", 1


@dataclass(frozen=True)
class Search:
    """As `Capacity`, with a `high` of None where there is no bound."""

    load: float
    low: float
    high: float | None
    runs: tuple[Run, ...]
    why_not: str = ""


@dataclass(frozen=True)
class CapacityFile:
    """Attributes:
    variants: that have answered.
    workers: of the server; 0 where it does not tell.
    fps: of each of the cameras that are counted; other_fps: of all others together, beside them.
    p99_seconds, drops: see `lathe_loadtest.find.Demand`.
    """

    model: str
    variants: tuple[str, ...]
    workers: int
    fps: float
    other_fps: float
    p99_seconds: float
    drops: float
    searches: tuple[Search, ...]
    kind: str = KIND
    format: int = FORMAT

    def __post_init__(self) -> None:
        if (self.kind, self.format) != (KIND, FORMAT):
            raise ValueError(f"not a capacity of format {FORMAT}")

    @property
    def frames_per_second(self) -> float:
        """At the least capacity of the searches that have found one; 0 where none has."""
        loads = [one.load for one in self.searches if not one.why_not]
        return min(loads) * self.fps + self.other_fps if loads else 0.0


def of_searches(
    found: Sequence[Capacity], scenario: Scenario, demand: Demand, runs: Iterable[LoadResult]
) -> CapacityFile:
    """Args:
    scenario: that was searched with; its model and variants are those of the runs.
    """
    first = scenario.cameras[0]
    seen = list(runs)
    return CapacityFile(
        model=next((run.scenario.model for run in seen), scenario.model),
        variants=tuple(sorted({variant for run in seen for variant in run.variants})),
        workers=max((run.workers for run in seen), default=0),
        fps=first.fps,
        other_fps=total_fps(scenario) - first.count * first.fps,
        p99_seconds=demand.p99_seconds,
        drops=demand.drops,
        searches=tuple(
            Search(one.load, one.low, one.high if math.isfinite(one.high) else None, one.runs, one.why_not)
            for one in found
        ),
    )


def write_capacity(file: CapacityFile, path: Path) -> None:
    path.write_text(json.dumps(dataclasses.asdict(file), indent=1, allow_nan=False) + "\n", "utf-8")


def from_json(text: str, name: str) -> CapacityFile:
    """
    Args:
        name: for messages.

    Raises:
        InvalidInput: it is no such file.
    """
    table = table_of(text, name)
    if table.get("kind") != KIND:
        raise InvalidInput(f"{name} is not what a search for the capacity wrote")
    return config.parse(CapacityFile, table, "", name)
