"""The bootstrap: known cases, coverage, and why pairing matters."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from lathe.evidence import bootstrap, student_bootstrap


def mean_of(values: NDArray[np.float64]) -> Callable[[NDArray[np.int64]], float]:
    return lambda counts: float(values @ counts / counts.sum())


def test_value_counts_every_unit_once() -> None:
    assert bootstrap(mean_of(np.array([1.0, 2.0, 6.0])), 3).value == 3.0


def test_interval_is_as_wide_as_theory_says() -> None:
    """Of a mean of 400 units of deviation 1: ± 1.96 / √400."""
    values = np.random.default_rng(0).normal(size=400)
    interval = bootstrap(mean_of((values - values.mean()) / values.std()), 400)
    assert interval.low == pytest.approx(-0.098, abs=0.015)
    assert interval.high == pytest.approx(0.098, abs=0.015)


def test_coverage() -> None:
    """Of 200 samples of 50, about 95 % of the intervals hold the true mean; 0.90 to 0.99 is within chance."""
    random = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        interval = bootstrap(mean_of(random.normal(size=50)), 50, resamples=300)
        held += interval.low <= 0 <= interval.high
    assert 0.90 <= held / 200 <= 0.99


def test_level_sets_the_width() -> None:
    values = np.random.default_rng(2).normal(size=100)
    narrow, wide = (bootstrap(mean_of(values), 100, level=level) for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high
    assert (narrow.level, wide.level) == (0.5, 0.99)


def test_pairing_takes_out_what_both_share() -> None:
    """Two variants on the same hard and easy pictures: their difference is known far better than either."""
    random = np.random.default_rng(3)
    hardness = random.normal(size=200)
    one, other = hardness + 0.1, hardness + random.normal(scale=0.01, size=200)
    paired = bootstrap(mean_of(one - other), 200)
    alone = bootstrap(mean_of(one), 200)
    assert 0.09 < paired.low < paired.high < 0.11
    assert alone.high - alone.low > 20 * (paired.high - paired.low)


def test_same_seed_same_interval() -> None:
    values = np.random.default_rng(4).normal(size=30)
    assert bootstrap(mean_of(values), 30) == bootstrap(mean_of(values), 30)
    assert bootstrap(mean_of(values), 30) != bootstrap(mean_of(values), 30, seed=1)


def test_one_unit_and_none() -> None:
    assert bootstrap(mean_of(np.array([2.0])), 1).low == 2.0
    assert math.isnan(bootstrap(mean_of(np.array([])), 0).value)


def test_resamples_without_a_figure_do_not_count() -> None:
    """A statistic may have no value on some resamples, such as those without any box."""
    interval = bootstrap(lambda counts: 1.0 if counts[0] else float("nan"), 2)
    assert (interval.value, interval.low, interval.high) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("units", [5, 8, 20])
def test_students_interval_of_few_units_holds_what_it_says(units: int) -> None:
    random = np.random.default_rng(units)
    plain, student = 0, 0
    for _ in range(400):
        mean = mean_of(random.normal(size=units))
        plain_interval, interval = bootstrap(mean, units, resamples=300), student_bootstrap(mean, units)
        plain += plain_interval.low <= 0 <= plain_interval.high
        student += interval.low <= 0 <= interval.high
    assert 0.92 <= student / 400 <= 0.98
    assert plain < student, "the plain bootstrap says too much of few units"


def test_no_bounds_where_a_resample_says_nothing() -> None:
    interval = student_bootstrap(lambda counts: 1.0 if counts[0] else math.nan, 3)
    assert interval.value == 1.0
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
