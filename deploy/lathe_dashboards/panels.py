"""What a dashboard is made of, without Grafana: panels that ask Prometheus, in rows of 24 columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

COLUMNS = 24
"""Of Grafana's grid."""
OBJECTIVE = "objective"
"""A legend that begins so is a dashed red line: what the server was asked for."""
BOUNDS = ("low", "high")
"""Legends that end so are dashed lines: an interval's ends."""

Kind = Literal["lines", "stacked", "stat", "table", "states"]


@dataclass(frozen=True, slots=True)
class Query:
    """
    Attributes:
        expr: PromQL, with the dashboard's variables.
        legend: of a series, or the title of a table's column, which is hidden without one; labels stand in {{braces}}.
        unit: Grafana's name of it, where it is not the panel's.
        thresholds, words: of a table's column, as of `Panel`.
    """

    expr: str
    legend: str = ""
    unit: str = ""
    thresholds: tuple[tuple[float, str], ...] = ()
    words: tuple[tuple[int, str, str], ...] = ()

    @property
    def has_exemplars(self) -> bool:
        """Whether Prometheus may know single frames of it, with their traces."""
        return "_bucket" in self.expr and "lathe_event_loop" not in self.expr


@dataclass(frozen=True, slots=True)
class Panel:
    """
    Attributes:
        says: one or two sentences on how to read it.
        unit: Grafana's name of it.
        kind: how it is drawn. A stat and a table ask for now, all others for the whole time.
        thresholds: from which value on which colour.
        base: the colour below the first; green by default where there are any.
        empty: what to show where there is no such figure.
        columns: of a table, labels in their order; others are hidden.
        words: what numbers stand for, each with its colour.
    """

    title: str
    says: str
    unit: str
    queries: tuple[Query, ...]
    kind: Kind = "lines"
    width: int = 8
    height: int = 8
    thresholds: tuple[tuple[float, str], ...] = ()
    base: str = ""
    low: float | None = 0.0
    high: float | None = None
    decimals: int | None = None
    empty: str = "no data"
    columns: tuple[str, ...] = ()
    words: tuple[tuple[int, str, str], ...] = ()

    @property
    def is_instant(self) -> bool:
        return self.kind in ("stat", "table")


@dataclass(frozen=True, slots=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the top of a dashboard.

    Attributes:
        values: Prometheus' query for them.
        is_many: several may be chosen, and all of them are at first.
    """

    name: str
    label: str
    values: str
    is_many: bool = True


@dataclass(frozen=True, slots=True)
class Dashboard:
    """
    Attributes:
        uid: by which links find it; never changes.
        variables: beside those that all have.
    """

    uid: str
    title: str
    says: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()

    def panels(self) -> tuple[Panel, ...]:
        return tuple(panel for row in self.rows for panel in row.panels)
