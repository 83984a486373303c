"""How each stream fares, of those whose names may be labels: names come from clients, and a label costs memory for
ever."""

from __future__ import annotations

import time
from collections.abc import Iterable
from fnmatch import fnmatchcase

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from lathe_server.facts import without_secrets
from lathe_server.frames import OUTCOMES, Outcome, Result
from lathe_server.shards import Count, Counters, Distribution, Histograms

OTHER = "other"
MOST_STREAMS = 200
"""That have labels of their own."""
_REMEMBERED = 4096
_AGE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class StreamLabels:
    """
    Args:
        patterns: names and patterns, as of a shell, between commas, of the streams that have labels of their own.
        most: of them; those that come later are `other`.

    >>> labels = StreamLabels("gate-*, lobby", most=2)
    >>> [labels.of(name) for name in ("gate-1", "street", "lobby", "gate-2", "gate-1")]
    ['gate-1', 'other', 'lobby', 'other', 'gate-1']
    """

    def __init__(self, patterns: str = "", most: int = MOST_STREAMS) -> None:
        self._patterns = [pattern.strip() for pattern in patterns.split(",") if pattern.strip()]
        self._room = most
        self._labels: dict[str, str] = {}
        self._others: set[str] = set()

    def of(self, stream_id: str) -> str:
        label = self._labels.get(stream_id)
        if label is None:
            if stream_id in self._others:
                return OTHER
            label = self._decide(stream_id)
        return label

    def _decide(self, stream_id: str) -> str:
        if self._room and any(fnmatchcase(stream_id, pattern) for pattern in self._patterns):
            self._room -= 1
            label = self._labels[stream_id] = without_secrets(stream_id)
            return label
        if len(self._others) >= _REMEMBERED:
            self._others.clear()
        self._others.add(stream_id)
        return OTHER


class StreamMetrics:
    """Frames of streams; single calls belong to none."""

    def __init__(self, labels: StreamLabels, registry: CollectorRegistry) -> None:
        self._labels = labels
        self._frames = Counters(
            "lathe_stream_frames_total", "Frames of a stream by what became of them", ("stream", "outcome"), registry
        )
        self._age = Histograms(
            "lathe_stream_age_seconds",
            "Time from the capture of a stream's answered frame to its answer",
            ("stream",),
            _AGE_BUCKETS,
            registry,
        )
        self._streams: dict[str, _Stream] = {}
        registry.register(_LastFrames(self._streams))
        self._of(OTHER)

    def observe(self, result: Result) -> None:
        frame = result.frame
        if frame.is_call:
            return
        stream = self._of(self._labels.of(frame.stream_id))
        stream.frames[result.outcome].inc()
        stream.arrived = max(stream.arrived, frame.arrived)  # workers may bring one after a newer one
        if result.answer:
            stream.age.observe(result.age_seconds)

    def _of(self, label: str) -> _Stream:
        stream = self._streams.get(label)
        if stream is None:
            frames = {outcome: self._frames.labels(label, outcome) for outcome in OUTCOMES}
            stream = self._streams[label] = _Stream(frames, self._age.labels(label))
        return stream


class _Stream:
    __slots__ = ("age", "arrived", "frames")

    def __init__(self, frames: dict[Outcome, Count], age: Distribution) -> None:
        self.frames = frames
        self.age = age
        self.arrived = 0.0  # its newest frame, on the monotonic clock


class _LastFrames(Collector):
    def __init__(self, streams: dict[str, _Stream]) -> None:
        self._streams = streams

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            "lathe_stream_last_frame_timestamp_seconds", "When a stream's newest frame arrived", labels=("stream",)
        )
        to_unix = time.time() - time.monotonic()
        for label, stream in list(self._streams.items()):
            if stream.arrived:
                family.add_metric((label,), stream.arrived + to_unix)
        yield family
