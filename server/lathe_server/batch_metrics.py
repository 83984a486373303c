"""How many frames the runs of a variant have, where several may be run together."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry

from lathe.repository import VariantRef
from lathe_server.engines.meter import Meter
from lathe_server.shards import Histograms
from lathe_server.variant_metrics import VARIANT, labels_of

_SIZES = (1, 2, 4, 8, 16, 32, 64)


class BatchMetrics:
    """On the event loop; the figures come from the threads of the runs."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._loop = asyncio.get_running_loop()
        self._frames = Histograms("lathe_batch_frames", "Frames of a run", VARIANT, _SIZES, registry)

    def watch(self, ref: VariantRef, meter: Meter) -> None:
        """Counts the runs of a variant from now on."""
        frames = self._frames.labels(*labels_of(ref))

        def told(size: int) -> None:
            self._loop.call_soon_threadsafe(frames.observe, size)

        meter.told = told
