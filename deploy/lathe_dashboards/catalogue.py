"""All dashboards, and all that they ask, for those who want to ask it without Grafana."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lathe_dashboards.capacity import CAPACITY_AND_COST
from lathe_dashboards.experiment import EXPERIMENT
from lathe_dashboards.overview import OVERVIEW
from lathe_dashboards.panels import Dashboard
from lathe_dashboards.streams import STREAM_HEALTH
from lathe_dashboards.variants import VARIANTS

DASHBOARDS: tuple[Dashboard, ...] = (OVERVIEW, VARIANTS, EXPERIMENT, CAPACITY_AND_COST, STREAM_HEALTH)

ANY: Mapping[str, str] = {
    "__rate_interval": "1m",
    "job": ".+",
    "instance": ".+",
    "model": ".*",
    "stream": ".+",
    "quality": ".+",
}
"""Everything; frames that reached no model have an empty one."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One query of one panel.

    Attributes:
        dashboard: its uid.
        panel: its title; two of a dashboard may share one, in different rows.
        unit: Grafana's name of it.
        is_instant: it is asked for one moment, not for a span of time.
    """

    dashboard: str
    row: str
    panel: str
    expr: str
    legend: str
    unit: str
    is_instant: bool


def queries() -> list[Asked]:
    """Every query of every panel, with the dashboards' variables in it."""
    return [
        Asked(
            dashboard=dashboard.uid,
            row=row.title,
            panel=panel.title,
            expr=query.expr,
            legend=query.legend,
            unit=query.unit or panel.unit,
            is_instant=panel.is_instant,
        )
        for dashboard in DASHBOARDS
        for row in dashboard.rows
        for panel in row.panels
        for query in panel.queries
    ]


def substitute(expr: str, values: Mapping[str, str] = ANY) -> str:
    """PromQL that Prometheus takes, with values in the variables' places.

    >>> substitute('rate(up{job=~"$job"}[$__rate_interval])', ANY | {"job": "lathe"})
    'rate(up{job=~"lathe"}[1m])'
    """
    for name in sorted(values, key=len, reverse=True):
        expr = expr.replace(f"${name}", values[name])
    return expr
