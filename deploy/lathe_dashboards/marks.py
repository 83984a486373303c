"""What happened to models, drawn over every panel."""

from __future__ import annotations

from dataclasses import dataclass

from lathe_dashboards.promql import series


@dataclass(frozen=True, slots=True)
class Mark:
    """
    Attributes:
        expr: when it happened, in milliseconds since 1970, which Grafana takes for the time of the mark.
    """

    title: str
    expr: str
    color: str


def _mark(title: str, kinds: str, color: str) -> Mark:
    found = series("lathe_event_timestamp_seconds", f'kind=~"{kinds}"')
    return Mark(title, f"max by (model, kind) ({found} > 0) * 1000", color)


MARKS = (
    _mark("Swaps", "routed", "blue"),
    _mark("Refusals", "refused|failed", "red"),
    _mark("Experiments", "experiment_begun|experiment_ended", "purple"),
)
