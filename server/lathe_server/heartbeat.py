"""The server's eye on itself: does its event loop come late, does memory run short?"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

from lathe_server.memory import trim
from lathe_server.metrics import Metrics

log = logging.getLogger(__name__)

BEAT_SECONDS = 0.2
SHED, LET_IN = 0.95, 0.90
"""Shares of the memory limit: above the first no frame is taken, until it is below the second."""


class MemoryGuard:
    """Whether frames can be taken, by the memory that is in use.

    Args:
        limit: bytes; 0 for none.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.is_short = False

    def look(self, resident: int) -> bool:
        """Returns whether it has become short with so many bytes in use.

        >>> guard = MemoryGuard(100)
        >>> [(guard.look(resident), guard.is_short) for resident in (94, 96, 92, 89)]
        [(False, False), (True, True), (False, True), (False, False)]
        """
        before = self.is_short
        self.is_short = resident > self._limit * (LET_IN if before else SHED) > 0
        return self.is_short and not before


class Heartbeat:
    """Beats on the event loop until it is cancelled."""

    def __init__(self, guard: MemoryGuard, metrics: Metrics, resident: Callable[[], int]) -> None:
        self._guard = guard
        self._metrics = metrics
        self._resident = resident

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + BEAT_SECONDS
            await asyncio.sleep(BEAT_SECONDS)
            self._metrics.loop_lag.observe(max(0.0, loop.time() - due))
            if self._guard.look(self._resident()):
                log.error("memory runs short: frames are refused until some is free")
                await asyncio.to_thread(trim)
            self._metrics.memory_short.set(self._guard.is_short)


def resident_memory() -> Callable[[], int]:
    """What tells the bytes that this process holds; always 0 where the system does not say."""
    try:
        file = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)  # once: opening it takes longer than reading it
    except OSError:
        return lambda: 0
    page = os.sysconf("SC_PAGE_SIZE")
    return lambda: int(os.pread(file, 128, 0).split()[1]) * page
