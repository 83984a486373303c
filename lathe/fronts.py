"""Quality against each cost: which variants lie on the Pareto fronts, and the choice between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lathe.errors import InvalidInput
from lathe.figures import AP, Comparison, Rates
from lathe.pareto import pareto_front
from lathe.plot import COLORS, HEIGHT, SMALL_WH, WIDTH, Axis, Point, scatter
from lathe.recommend import Candidate, Limits, Recommendation, recommend


@dataclass(frozen=True)
class Front:
    """Quality against one cost.

    Attributes:
        points: (variant, cost, quality) of the variants that have both.
        best: variants that no other beats in both, cheapest first.
    """

    name: str
    unit: str
    title: str
    points: Sequence[tuple[str, float, float]]

    @property
    def best(self) -> list[str]:
        chosen = pareto_front([(cost, quality) for _, cost, quality in self.points])
        return [self.points[index][0] for index in chosen]

    def plot(self, quality_name: str, size_wh: tuple[int, int] = (WIDTH, HEIGHT)) -> str:
        """Dots with the names of those on the front, which a dashed line connects."""
        on_front = self.best
        at = {variant: (cost, quality) for variant, cost, quality in self.points}
        colors = {variant: COLORS[number % len(COLORS)] for number, variant in enumerate(at)}
        dots = [
            Point(
                cost,
                quality,
                colors[variant],
                f"{variant}: {quality_name} {quality:.4f}, {cost:.4g} {self.unit}",
                variant,
                is_faint=variant not in on_front,
            )
            for variant, (cost, quality) in at.items()
        ]
        low, high = min(quality for _, quality in at.values()), max(quality for _, quality in at.values())
        margin = max(0.01, (high - low) * 0.25)
        return scatter(
            dots,
            Axis(self.title, 0.0, max(cost for cost, _ in at.values()) * 1.1),
            Axis(quality_name, max(0.0, low - margin), min(1.0, high + margin / 4)),
            line=[at[variant] for variant in on_front],
            size_wh=size_wh,
        )

    def small_plot(self, quality_name: str) -> str:
        return self.plot(quality_name, SMALL_WH)


def fronts(comparison: Comparison, rates: Rates) -> list[Front]:
    """Against latency, size, energy and cost, in this order; variants without figures are in none."""
    known = {name: one for name, one in comparison.figures.items() if one.is_complete}
    cards = comparison.cards

    def front(name: str, unit: str, title: str, costs: dict[str, float]) -> Front:
        points = [(variant, cost, known[variant].quality) for variant, cost in costs.items()]
        return Front(name, unit, title, points)

    frames = {variant: one.frame_ms for variant, one in known.items()}
    return [
        front(
            "latency",
            "ms",
            "infer, milliseconds a frame, one thread",
            {variant: one.infer_ms for variant, one in known.items()},
        ),
        front("size", "MB", "size, MB", {variant: cards[variant].size_bytes / 1e6 for variant in known}),
        front(
            "energy",
            "mJ",
            "energy a prediction, mJ (estimate)",
            {variant: rates.millijoules(frame) for variant, frame in frames.items()},
        ),
        front(
            "cost",
            "USD",
            "USD a million predictions",
            {variant: rates.cost_per_million(frame) for variant, frame in frames.items()},
        ),
    ]


def check_limits(comparison: Comparison, limits: Limits) -> None:
    """Raises:
    InvalidInput: a least AP where the figures hold none.
    """
    if limits.min_ap is not None and not comparison.quality_name.startswith(AP):
        raise InvalidInput("a least AP needs figures of AP: give --data with labels")


def choose(comparison: Comparison, limits: Limits) -> Recommendation:
    """The recommendation over a comparison's complete variants."""
    candidates = [
        Candidate(
            name,
            one.quality,
            one.infer_ms,
            comparison.cards[name].size_bytes / 1e6,
            one.frame_ms,
        )
        for name, one in comparison.figures.items()
        if one.is_complete
    ]
    return recommend(candidates, limits, lambda one, other: _is_equal(comparison, one, other))


def _is_equal(comparison: Comparison, one: str, other: str) -> bool:
    """Whether the paired interval of the difference holds zero.

    Agreement is resampled for each variant alone: there, whether the interval of one holds the other's figure.
    """
    if difference := comparison.differences.get((one, other)):
        return difference.low <= 0 <= difference.high
    first, second = comparison.figures[one].qualities[0], comparison.figures[other].qualities[0]
    return any(
        figure.interval is not None
        and math.isfinite(figure.interval.low)
        and figure.interval.low <= value <= figure.interval.high
        for figure, value in ((first, second.value), (second, first.value))
    )
