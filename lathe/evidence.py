"""Intervals for measured figures: one place for evaluation, experiments and load tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence interval."""

    value: float
    low: float
    high: float
    level: float


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], float],
    units: int,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap (Efron, 1979) of a statistic over exchangeable units, such as pictures.

    A statistic that is itself a difference of two variants on the same units gives the paired interval.

    Args:
        statistic: its value when unit i counts `multiplicity[i]` times.
        units: how many there are.
        level: share of the resamples within the interval.

    Returns:
        The statistic with every unit counted once, and the interval; NaN where there are no units.
    """
    if not units:
        return Interval(float("nan"), float("nan"), float("nan"), level)
    value = statistic(np.ones(units, np.int64))
    random = np.random.default_rng(seed)
    even = np.full(units, 1 / units)
    values = [statistic(random.multinomial(units, even)) for _ in range(resamples)]
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high), level)
