"""Counters and histograms that one thread alone fills, so that counting a frame costs little.

prometheus_client's own take a lock and check their labels at each observation, which for the ten of a frame is more
than all else that its result costs. These are plain numbers; a scrape, on whatever thread, reads them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from time import time
from typing import Any, Generic, TypeVar

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.samples import Exemplar

T = TypeVar("T")


class Count:
    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        self.value += amount


class Distribution:
    """Observations by bucket.

    Args:
        bounds: upper ends of the buckets, rising; a last one without end is added.
    """

    __slots__ = ("_bounds", "counts", "exemplars", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.exemplars: dict[int, Exemplar] = {}  # by bucket, the newest
        self.total = 0.0

    def observe(self, value: float, trace_id: str = "") -> None:
        """
        Args:
            trace_id: of what was observed, for an exemplar.

        >>> distribution = Distribution((1.0, 2.0))
        >>> for value in (0.5, 1.0, 1.5, 7.0): distribution.observe(value)
        >>> distribution.counts, distribution.total
        ([2, 1, 1], 10.0)
        """
        bucket = bisect_left(self._bounds, value)
        self.counts[bucket] += 1
        self.total += value
        if trace_id:
            self.exemplars[bucket] = Exemplar({"trace_id": trace_id}, value, time())


class _Family(Collector, Generic[T]):
    """One metric: a child for each set of labels, made at the first look."""

    def __init__(
        self, name: str, text: str, labels: Sequence[str], new: Callable[[], T], registry: CollectorRegistry
    ) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._new = new
        self._children: dict[tuple[str, ...], T] = {}
        registry.register(self)

    def labels(self, *values: str) -> T:
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = self._new()
        return child


class Counters(_Family[Count]):
    def __init__(self, name: str, text: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        super().__init__(name, text, labels, Count, registry)

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for labels, child in list(self._children.items()):
            family.add_metric(labels, child.value)
        yield family


class Histograms(_Family[Distribution]):
    """Args:
    bounds: as of `Distribution`.
    """

    def __init__(
        self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float], registry: CollectorRegistry
    ) -> None:
        super().__init__(name, text, labels, lambda: Distribution(bounds), registry)
        self._ends = [*map(str, bounds), "+Inf"]

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for labels, child in list(self._children.items()):
            total, counts = child.total, tuple(child.counts)  # one copy: the buckets of a scrape must agree
            exemplars: list[Any] = [child.exemplars.get(bucket) for bucket in range(len(counts))]
            family.add_metric(labels, list(zip(self._ends, accumulate(counts), exemplars, strict=True)), total)
        yield family
