"""Latencies as counts: how many there were of each value in each stretch of a run, as one matrix."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lathe_loadtest.histogram import decoded

if TYPE_CHECKING:
    from hdrh.histogram import HdrHistogram

    from lathe_loadtest.result import CameraResult

_MICRO = 1e-6


@dataclass(frozen=True, eq=False)
class Latencies:
    """Attributes:
    values: seconds, ascending, each once.
    counts: of each value (columns) in each stretch (rows).
    """

    values: NDArray[np.float64]
    counts: NDArray[np.int32]

    @classmethod
    def decoded(cls, histograms: Sequence[str]) -> Latencies:
        """From base64 HdrHistograms of microseconds, one a stretch; an empty text is a stretch without any.

        Raises:
            InvalidInput: a text that is no histogram.
        """
        return cls.of([_decoded(text) if text else _NOTHING for text in histograms])

    @classmethod
    def of(cls, stretches: Sequence[tuple[NDArray[np.float64], NDArray[np.int64]]]) -> Latencies:
        """From values and their counts, a pair a stretch."""
        values = np.unique(np.concatenate([one for one, _ in stretches] or [np.empty(0)]))
        counts = np.zeros((len(stretches), len(values)), np.int32)
        for row, (own, times) in zip(counts, stretches, strict=True):
            np.add.at(row, np.searchsorted(values, own), times)
        return cls(values, counts)

    @cached_property
    def total(self) -> int:
        return int(self.counts.sum())

    def __add__(self, other: Latencies) -> Latencies:
        """Both together, stretch by stretch."""
        if not len(other.values):
            return self
        values = np.union1d(self.values, other.values)
        counts = np.zeros((len(self.counts), len(values)), np.int32)
        for one in (self, other):
            counts[:, np.searchsorted(values, one.values)] += one.counts
        return Latencies(values, counts)

    @cached_property
    def together(self) -> Latencies:
        """All stretches as one."""
        return Latencies(self.values, self.counts.sum(0, keepdims=True, dtype=np.int32))

    @cached_property
    def _as_floats(self) -> NDArray[np.float64]:
        """Products of matrices of whole numbers are slow."""
        return self.counts.astype(np.float64)

    def percentile(self, share: float, multiplicity: NDArray[np.int64] | None = None) -> float:
        """The smallest value that at least this share of all do not exceed, in seconds; NaN where there are none.

        Args:
            multiplicity: how often each stretch counts; once where it is left out.

        >>> one = (np.array([0.010, 0.020, 1.0]), np.array([90, 9, 1]))
        >>> [Latencies.of([one]).percentile(share) for share in (0.5, 0.9, 0.99, 0.999)]
        [0.01, 0.01, 0.02, 1.0]
        """
        (found,) = self.percentiles([share], multiplicity)
        return found

    def percentiles(self, shares: Sequence[float], multiplicity: NDArray[np.int64] | None = None) -> list[float]:
        """See `percentile`."""
        row = self.counts.sum(0) if multiplicity is None else multiplicity.astype(np.float64) @ self._as_floats
        return self._percentiles(np.cumsum(row), shares)

    def percentile_of_each(self, share: float) -> list[float]:
        """Of each stretch by itself."""
        return [self._percentiles(np.cumsum(row), [share])[0] for row in self.counts]

    def _percentiles(self, below: NDArray[Any], shares: Sequence[float]) -> list[float]:
        """Args:
        below: how many there are up to each value, with it.
        """
        if not len(below) or not below[-1]:
            return [math.nan] * len(shares)
        ranks = np.maximum(1, np.ceil(np.array(shares) * below[-1] - 1e-9))
        return [float(value) for value in self.values[np.searchsorted(below, ranks)]]

    def mean(self) -> float:
        return float(self.counts.sum(0) @ self.values / self.total) if self.total else math.nan

    def curve(self, shares: Sequence[float]) -> list[tuple[float, float]]:
        """Each share with its percentile, as far as there is at least one frame beyond it."""
        told = [share for share in shares if self.total * (1 - share) >= 1 - 1e-9]
        return list(zip(told, self.percentiles(told), strict=True))


def latencies_of(cameras: Iterable[CameraResult]) -> Latencies:
    """Of all their answered frames, a stretch a camera."""
    return Latencies.decoded([camera.latencies for camera in cameras])


def latencies_by_group(cameras: Sequence[CameraResult]) -> dict[str, Latencies]:
    """Of each group of cameras as one stretch; none where there is one group, which says no more than all."""
    names = list(dict.fromkeys(camera.group for camera in cameras))
    groups = {name: latencies_of(camera for camera in cameras if camera.group == name) for name in names}
    return {name: one.together for name, one in groups.items()} if len(names) > 1 else {}


def block_starts(stretches: int, length: int) -> NDArray[np.int64]:
    """
    >>> block_starts(11, 3).tolist()
    [0, 3, 6]
    """
    return np.arange(max(1, stretches // length), dtype=np.int64) * length if stretches else np.empty(0, np.int64)


_NOTHING = (np.empty(0), np.empty(0, np.int64))


def _decoded(text: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    histogram = decoded(text)
    counts = np.ctypeslib.as_array(histogram.counts).astype(np.int64)
    places = np.flatnonzero(counts)
    return _values(histogram, places) * _MICRO, counts[places]


def _values(histogram: HdrHistogram, places: NDArray[np.int64]) -> NDArray[np.float64]:
    """The middle of what each counter stands for, for all at once: one by one as its iterators do is too slow for an
    hour of seconds.

    A counter of n values from v up has its middle at v + (n - 1) / 2.
    """
    half = int(histogram.sub_bucket_half_count)
    bucket = (places >> histogram.sub_bucket_half_count_magnitude) - 1
    within = (places & (half - 1)) + np.where(bucket < 0, 0, half)
    shift = np.maximum(bucket, 0) + int(histogram.unit_magnitude)
    width = np.left_shift(1, shift)
    return np.asarray((within << shift) + (width - 1) / 2, np.float64)
