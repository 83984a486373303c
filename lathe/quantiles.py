"""Quantiles of any number of values in little memory."""

from __future__ import annotations

import math
from collections import Counter


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
