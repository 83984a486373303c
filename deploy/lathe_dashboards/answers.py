"""What Prometheus answered, as lines with names and as rows of a table."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lathe_dashboards.panels import Panel, Query

Answers = Mapping[tuple[str, bool], Sequence[Mapping[str, Any]]]
"""Results by the query's text with its variables, and whether it was asked for one moment: series with `metric` and
`value`, or `values`, as they come from Prometheus."""


@dataclass(frozen=True, slots=True)
class Line:
    """Attributes:
    values: by Unix time.
    """

    name: str
    query: Query
    values: Mapping[float, float]


@dataclass(frozen=True, slots=True)
class Table:
    """Attributes:
    columns: those that any row has something in.
    rows: labels as text, figures as numbers, by column.
    """

    columns: tuple[str, ...]
    rows: list[dict[str, str | float]]


def named(legend: str, labels: Mapping[str, str]) -> str:
    """
    >>> named("{{variant}}/{{version}}", {"variant": "int8", "version": "1"})
    'int8/1'
    """
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), legend)


def lines_of(panel: Panel, answers: Answers) -> list[Line]:
    """One for each series; what is not a number is not there."""
    found = []
    for query in panel.queries:
        for one in answers.get((query.expr, panel.is_instant), ()):
            pairs = [one["value"]] if panel.is_instant else one["values"]
            numbers = {float(at): float(value) for at, value in pairs}
            values = {at: value for at, value in numbers.items() if math.isfinite(value)}
            if values:
                found.append(Line(named(query.legend, one["metric"]), query, values))
    return found


def table_of(panel: Panel, answers: Answers) -> Table:
    """A row for each set of labels. A series that lacks some of a row's labels belongs to it if the others agree."""
    rows: list[tuple[dict[str, str], dict[str, float]]] = []
    for query in panel.queries:
        for one in answers.get((query.expr, True), ()):
            labels = {name: text for name, text in one["metric"].items() if name in panel.columns}
            number = float(one["value"][1])
            matching = [row for row in rows if _agree(row[0], labels)]
            if not matching:
                rows.append((labels, {}))
                matching = rows[-1:]
            for of_row, figures in matching:
                of_row.update(labels)
                if query.legend and math.isfinite(number):
                    figures[query.legend] = number
    titles = (*panel.columns, *(query.legend for query in panel.queries if query.legend))
    merged: list[dict[str, str | float]] = [{**labels, **figures} for labels, figures in rows]
    return Table(tuple(title for title in titles if any(title in row for row in merged)), merged)


def _agree(row: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return all(row[name] == labels[name] for name in row.keys() & labels.keys())


def unbroken(values: Mapping[float, float], step: float) -> list[list[tuple[float, float]]]:
    """Parts without gaps.

    >>> unbroken({0.0: 1.0, 2.0: 1.0, 6.0: 1.0}, 2.0)
    [[(0.0, 1.0), (2.0, 1.0)], [(6.0, 1.0)]]
    """
    parts: list[list[tuple[float, float]]] = []
    for at, value in sorted(values.items()):
        if not parts or at - parts[-1][-1][0] > 1.5 * step:
            parts.append([])
        parts[-1].append((at, value))
    return parts
