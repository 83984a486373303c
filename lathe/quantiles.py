"""Quantiles of any number of values in little memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping


class Quantiles:
    """Counts values in bins whose bounds grow by a constant factor (DDSketch: Masson et al., 2019).

    Args:
        accuracy: what a quantile may be off by, as a share of itself.

    >>> latencies = Quantiles()
    >>> for milliseconds in range(1, 1001): latencies.add(milliseconds / 1e3)
    >>> f"{latencies.quantile(0.99):.2f}"
    '0.99'
    """

    def __init__(self, accuracy: float = 0.01) -> None:
        self._growth = math.log((1 + accuracy) / (1 - accuracy))
        self._bins: Counter[int] = Counter()
        self.count = 0

    def add(self, value: float) -> None:
        """A value below a nanosecond counts as one."""
        self._bins[math.ceil(math.log(max(value, 1e-9)) / self._growth)] += 1
        self.count += 1

    def quantile(self, share: float) -> float:
        """The smallest value that `share` of all do not exceed; NaN where there are none."""
        below = 0
        for number in sorted(self._bins):
            below += self._bins[number]
            if below >= share * self.count:
                return math.exp((number - 0.5) * self._growth)
        return math.nan


def bucket_quantile(share: float, buckets: Mapping[float, float]) -> float | None:
    """A quantile of a histogram's observations, interpolated in its bucket as PromQL's histogram_quantile does.

    Args:
        buckets: upper bounds, the last one infinite, with the number of observations up to each.

    Returns:
        None where there is no observation. The last finite bound where the quantile lies above it.

    >>> bucket_quantile(0.5, {0.1: 2.0, 0.2: 6.0, math.inf: 6.0})
    0.125
    """
    bounds = sorted(buckets)
    if len(bounds) < 2 or not buckets[bounds[-1]]:
        return None
    rank = share * buckets[bounds[-1]]
    place = next((place for place, bound in enumerate(bounds[:-1]) if buckets[bound] >= rank), len(bounds) - 1)
    if place == len(bounds) - 1:
        return bounds[-2]
    start, below = (bounds[place - 1], buckets[bounds[place - 1]]) if place else (0.0, 0.0)
    inside = buckets[bounds[place]] - below
    return start + (bounds[place] - start) * (rank - below) / inside if inside else bounds[place]
