"""The graphics processor's own meter of energy: NVIDIA's management library (NVML)."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

from lathe_server.accounts.power import Source

log = logging.getLogger(__name__)


class Nvml:
    """The joules that one graphics processor used, and how much of the time it worked.

    Args:
        library: nvidia-ml-py's module, started.
        device: its handle of the processor.
    """

    def __init__(self, library: Any, device: Any) -> None:
        self._library = library
        self._device = device
        self._last: int | None = None
        self._is_read = True
        self.used(0.0, 1.0)

    def used(self, busy_seconds: float, seconds: float) -> float | None:
        """Of this process since the last call: its part of the time in which the device worked. None where it could not
        be read, now or then, or has gone back; the next call counts from here.

        Args:
            busy_seconds: of the device, that this process had.
            seconds: that have passed.
        """
        try:
            now = int(self._library.nvmlDeviceGetTotalEnergyConsumption(self._device))  # millijoules
            worked = seconds * self._library.nvmlDeviceGetUtilizationRates(self._device).gpu / 100
        except self._library.NVMLError as error:
            if self._is_read:
                log.warning("the meter of the graphics processor cannot be read: %s", error)
            self._is_read, self._last = False, None
            return None
        self._is_read = True
        last, self._last = self._last, now
        if last is None or now < last:
            return None
        return (now - last) / 1e3 * (busy_seconds / max(busy_seconds, worked) if busy_seconds else 0.0)


class GpuPower:
    """The joules that this process used of its graphics processor, and who says so.

    Args:
        watts: of the processor while it works, where its meter cannot be read.
        meter: None where there is none.
    """

    def __init__(self, watts: float, meter: Nvml | None) -> None:
        self._watts = watts
        self._meter = meter

    @property
    def sources(self) -> Sequence[Source]:
        """Those that may come to tell."""
        return ("nvml", "estimate") if self._meter else ("estimate",)

    def used(self, busy_seconds: float, seconds: float) -> tuple[Source, float]:
        """As `Nvml.used`; never below 0."""
        metered = self._meter.used(busy_seconds, seconds) if self._meter else None
        return ("estimate", busy_seconds * self._watts) if metered is None else ("nvml", metered)


def nvml() -> Nvml | None:
    """Of the first device that this process may use; None where there is no such meter, which the log is told."""
    try:
        import pynvml as library
    except ImportError:
        log.warning("the energy of the graphics processor is not known: pip install 'lathe[nvml]'")
        return None
    name = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip()
    try:
        library.nvmlInit()
        if name.isdecimal() or not name:
            device = library.nvmlDeviceGetHandleByIndex(int(name or 0))
        else:
            device = library.nvmlDeviceGetHandleByUUID(name)
        library.nvmlDeviceGetTotalEnergyConsumption(device)
    except library.NVMLError as error:
        log.warning("the energy of the graphics processor is not known: %s", error)
        return None
    return Nvml(library, device)
