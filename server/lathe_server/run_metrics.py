"""Runs that several frames share, and the time of the graphics processor: for those variants that have a meter."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from prometheus_client import CollectorRegistry

from lathe.repository import VariantRef
from lathe_server.engines.meter import Meter
from lathe_server.shards import Counters, Histograms
from lathe_server.variant_metrics import VARIANT, labels_of

_SIZES = (1, 2, 4, 8, 16, 32, 64)


class RunMetrics:
    """On the event loop; the figures come from the threads of the runs.

    Args:
        in_batches: runs have several frames.
        on_gpu: they are on a graphics processor.
        used_gpu: told of each run's seconds there.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        in_batches: bool,
        on_gpu: bool,
        used_gpu: Callable[[VariantRef, float], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._used_gpu = used_gpu
        self._frames = (
            Histograms("lathe_batch_frames", "Frames of a run", VARIANT, _SIZES, registry) if in_batches else None
        )
        self._gpu = (
            Counters("lathe_gpu_seconds_total", "Time of the graphics processor by variant", VARIANT, registry)
            if on_gpu
            else None
        )

    def watch(self, ref: VariantRef, meter: Meter | None) -> None:
        """Counts the runs of a variant from now on."""
        if meter is None:
            return
        frames = self._frames.labels(*labels_of(ref)) if self._frames else None
        gpu = self._gpu.labels(*labels_of(ref)) if self._gpu else None

        def count(size: int, seconds: float) -> None:
            if frames:
                frames.observe(size)
            if gpu:
                gpu.inc(seconds)
                self._used_gpu(ref, seconds)

        def told(size: int, seconds: float) -> None:
            self._loop.call_soon_threadsafe(count, size, seconds)

        meter.told = told
