"""Intervals for measured figures: one place for evaluation, experiments and load tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence interval."""

    value: float
    low: float
    high: float
    level: float


@dataclass(frozen=True, eq=False, slots=True)
class Resampled:
    """A figure, with its value in each resample of its units.

    Figures on the same resamples are paired: their difference keeps what both share out of its interval.

    Attributes:
        value: with every unit counted once; NaN where there is no such figure.
        values: one a resample; NaN where it does not exist there.
    """

    value: float
    values: NDArray[np.float64]

    def less(self, other: Resampled) -> Resampled:
        """The paired difference of the two."""
        return Resampled(self.value - other.value, self.values - other.values)

    def interval(self, level: float = 0.95) -> Interval:
        """Percentile interval (Efron, 1979); without bounds where the figure exists nowhere."""
        known = self.values[np.isfinite(self.values)]
        if math.isnan(self.value) or not len(known):
            return Interval(self.value, math.nan, math.nan, level)
        low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
        return Interval(float(self.value), float(low), float(high), level)


def resamples_of(units: int, resamples: int = 1000, seed: int = 0) -> Iterator[NDArray[np.int64]]:
    """How often each of so many units counts, resample by resample; the same ones for the same seed."""
    random = np.random.default_rng(seed)
    even = np.full(units, 1 / units)
    for _ in range(resamples):
        yield random.multinomial(units, even)


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
        The statistic with every unit counted once, and the interval; NaN where there are no units, or no such
        statistic of them.
    """
    if not units:
        return Interval(float("nan"), float("nan"), float("nan"), level)
    value = statistic(np.ones(units, np.int64))
    values = [statistic(counts) for counts in resamples_of(units, resamples, seed)]
    return Resampled(float(value), np.array(values)).interval(level)


def student_bootstrap(
    statistic: Callable[[NDArray[np.int64]], float],
    units: int,
    *,
    level: float = 0.95,
    resamples: int = 300,
    seed: int = 0,
) -> Interval:
    """As `student_bootstraps`, of one statistic; NaN where there are no units."""
    if not units:
        return Interval(math.nan, math.nan, math.nan, level)
    (found,) = student_bootstraps(
        lambda chosen: [statistic(chosen)], units, level=level, resamples=resamples, seed=seed
    )
    return found


def student_bootstraps(
    statistics: Callable[[NDArray[np.int64]], Sequence[float]],
    units: int,
    *,
    level: float = 0.95,
    resamples: int = 300,
    seed: int = 0,
) -> list[Interval]:
    """Student's interval with the standard error of a bootstrap: for high levels and few units, where the ends of the
    resamples themselves would be too near. Each statistic should be about normal, such as a logarithm of a ratio.

    Args:
        statistics: see `bootstrap`; several over the same resamples.
        units: 1 or more.

    Returns:
        For each as `bootstrap`; without bounds where it is undefined for some of the resamples.
    """
    once = statistics(np.ones(units, np.int64))
    random = np.random.default_rng(seed)
    even = np.full(units, 1 / units)
    values = np.array([statistics(random.multinomial(units, even)) for _ in range(resamples)])
    found = []
    for value, row in zip(once, values.T, strict=True):
        is_known = units > 1 and math.isfinite(value) and bool(np.isfinite(row).all())
        error = float(np.std(row)) * math.sqrt(units / (units - 1)) if is_known else math.nan
        reach = error * _student_quantile((1 + level) / 2, units - 1) if is_known else math.nan
        found.append(Interval(float(value), float(value) - reach, float(value) + reach, level))
    return found


def _student_quantile(share: float, freedom: int) -> float:
    """Of Student's t, by the series of Cornish and Fisher; 2 % off at 4 degrees of freedom, less above."""
    z = NormalDist().inv_cdf(share)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / freedom**power for power, term in enumerate(terms, 1))


EFFECT_VARIANCE = 2.0
"""Of the standardised effects that `sequential_mean` expects: more finds large effects a little sooner and small ones
later. The level holds whatever is chosen here."""


def sequential_mean(values: Sequence[float], *, level: float = 0.95) -> Interval:
    """An interval for a mean that holds at all looks together, however often and whenever one looks.

    For independent, about normal values of unknown spread, such as one difference a round. It is the set of means that
    a Bayes factor of the t statistic, with a normal prior on the standardised effect (Gönen et al., 2005), has not
    reason enough to exclude; as the factor does not depend on the scale, Ville's inequality bounds the chance that the
    true mean is ever left out (Lai, 1976; Wang and Ramdas, 2024).

    Args:
        level: chance that the interval holds the mean at every length of the sequence at once.

    Returns:
        The mean with its interval, without bounds while there are too few values to say anything.

    >>> import numpy as np
    >>> values = np.random.default_rng(0).normal(0.1, 0.02, 12)
    >>> [f"{bound:.3f}" for bound in (sequential_mean(values).low, sequential_mean(values).high)]
    ['0.085', '0.116']
    """
    count = len(values)
    if not count:
        return Interval(math.nan, -math.inf, math.inf, level)
    mean = float(np.mean(values))
    widening = 1 + count * EFFECT_VARIANCE
    ratio = (math.sqrt(widening) / (1 - level)) ** (2 / count)
    if count < 2 or ratio >= widening:
        return Interval(mean, -math.inf, math.inf, level)
    error = float(np.std(values, ddof=1)) / math.sqrt(count)
    reach = error * math.sqrt((count - 1) * (ratio - 1) / (1 - ratio / widening))
    return Interval(mean, mean - reach, mean + reach, level)


def binomial_bounds(count: int, share: float, *, level: float = 0.95) -> tuple[int, int]:
    """Between which numbers, both included, lie the successes of so many trials, with at least this chance.

    Outside, on each side, is at most half of what is left, so the interval is as honest as whole numbers allow.

    Args:
        share: the chance of one success, from 0 to 1.

    >>> binomial_bounds(200, 0.5), binomial_bounds(10, 0.1), binomial_bounds(5, 0.0)
    ((86, 114), (0, 3), (0, 0))
    """
    if share in (0.0, 1.0):
        return (round(count * share),) * 2
    logs = [
        math.lgamma(count + 1)
        - math.lgamma(hits + 1)
        - math.lgamma(count - hits + 1)
        + hits * math.log(share)
        + (count - hits) * math.log1p(-share)
        for hits in range(count + 1)
    ]
    below = np.cumsum(np.exp(logs))  # up to and with
    tail = (1 - level) / 2
    low = int(np.searchsorted(below, tail, side="right"))
    high = int(np.searchsorted(below, 1 - tail, side="left"))
    return low, min(high, count)
