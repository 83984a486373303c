"""Which variants are worth having: those that no other beats in both quality and cost."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other dominates, cheapest first.

    Args:
        points: (cost, quality): less cost is better, more quality is better.

    >>> pareto_front([(10.0, 0.9), (5.0, 0.9), (2.0, 0.5), (6.0, 0.4)])
    [2, 1]
    """
    order = sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1]))
    front: list[int] = []
    best = float("-inf")
    for index in order:
        if points[index][1] > best:
            front.append(index)
            best = points[index][1]
    return front
