"""Where a figure of energy comes from: the processor's own meter, or an estimate."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

log = logging.getLogger(__name__)

Source = Literal["rapl", "nvml", "estimate"]

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True, slots=True)
class Interval:
    """CPU seconds between two looks.

    Attributes:
        process: of this process.
        machine: of all on the machine that worked; 0 where it is not known.
    """

    process: float
    machine: float


class Rapl:
    """Intel's and AMD's meter, by package, through the kernel's powercap: microjoules that wrap around.

    Args:
        folder: of the kernel's.
    """

    def __init__(self, folder: Path = POWERCAP) -> None:
        self._meters = [_Meter(zone) for zone in sorted(folder.glob("intel-rapl:?"))]
        for meter in self._meters:
            meter.joules()

    @property
    def is_there(self) -> bool:
        return bool(self._meters)

    def joules(self) -> float | None:
        """Of all packages, since the last look; None where one cannot be read."""
        found = [meter.joules() for meter in self._meters]
        return None if not found or None in found else sum(one for one in found if one is not None)


class _Meter:
    def __init__(self, zone: Path) -> None:
        self._energy = zone / "energy_uj"
        self._largest = zone / "max_energy_range_uj"
        self._last: int | None = None

    def joules(self) -> float | None:
        """Since the last look; None where it or this one could not be read."""
        try:
            now = int(self._energy.read_text("ascii"))
            wrapped = self._last is not None and now < self._last
            largest = int(self._largest.read_text("ascii")) if wrapped else 0
        except (OSError, ValueError):
            self._last = None
            return None
        last, self._last = self._last, now
        if last is None:
            return None
        used = now - last + largest
        return used / 1e6 if used >= 0 else None


class Power:
    """The joules that this process used, and who says so.

    A meter tells of the whole machine; the process's part is its part of the time in which processors worked, so what
    idles belongs to whoever works. Where there is no meter, or it cannot be read, a busy core is taken to draw a
    constant power.

    Args:
        watts_per_core: of a busy core, for the estimate.
        rapl: the processor's meter.
    """

    def __init__(self, watts_per_core: float, rapl: Rapl) -> None:
        self._watts_per_core = watts_per_core
        self._rapl = rapl
        self._is_metered = rapl.is_there
        if not rapl.is_there:
            log.info("no meter of energy can be read; it is estimated at %g watts a busy core", watts_per_core)

    @property
    def sources(self) -> Sequence[Source]:
        """Those that may come to tell."""
        return ("rapl", "estimate") if self._rapl.is_there else ("estimate",)

    def used(self, interval: Interval) -> tuple[Source, float]:
        """Since the last call, never below 0; and who says so."""
        metered, process = self._rapl.joules(), max(0.0, interval.process)
        self._say(metered is not None)
        if metered is not None and interval.machine > 0:
            return "rapl", metered * min(1.0, process / interval.machine)
        return "estimate", process * self._watts_per_core

    def _say(self, is_metered: bool) -> None:
        if self._is_metered and not is_metered:
            log.warning("the meter of energy cannot be read; estimated until it can")
        self._is_metered = is_metered
