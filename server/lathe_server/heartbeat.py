"""The server's eye on itself: does its event loop come late, does memory run short?"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable

from lathe_server.memory import trim
from lathe_server.metrics import Metrics

log = logging.getLogger(__name__)

BEAT_SECONDS = 0.2
SHED = 0.95
"""Share of the memory limit above which no frame is taken."""
REST_BEATS = 5
"""Once short, memory counts as short for so many beats after it was last seen above that share."""


class MemoryGuard:
    """Whether frames can be taken, by the memory that is in use.

    Args:
        limit: bytes; 0 for none.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._beats_left = 0

    @property
    def is_short(self) -> bool:
        return self._beats_left > 0

    def room(self, resident: int) -> int | None:
        """Bytes that are free before frames would be refused; None where there is no limit."""
        return max(0, int(self._limit * SHED) - resident) if self._limit else None

    def look(self, resident: int) -> None:
        """Takes in, at each beat, how many bytes are in use.

        >>> guard = MemoryGuard(100)
        >>> for resident in (94, 96, 90): guard.look(resident); print(guard.is_short)
        False
        True
        True
        """
        if 0 < self._limit * SHED < resident:
            self._beats_left = REST_BEATS
        elif self._beats_left:
            self._beats_left -= 1


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
            await self._look_at_memory()

    async def _look_at_memory(self) -> None:
        was_short = self._guard.is_short
        self._guard.look(self._resident())
        is_short = self._guard.is_short
        self._metrics.memory_short.set(is_short)
        if is_short and not was_short:
            log.error("memory runs short: frames are refused until some is free")
        elif was_short and not is_short:
            log.info("memory is free again: frames are taken")
        if is_short:
            with contextlib.suppress(RuntimeError):  # no memory for a thread either: the next beat tries again
                await asyncio.to_thread(trim)


def resident_memory() -> Callable[[], int]:
    """What tells the bytes that this process holds; always 0 where the system does not say."""
    try:
        file = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)  # once: opening it takes longer than reading it
    except OSError:
        return lambda: 0
    page = os.sysconf("SC_PAGE_SIZE")
    return lambda: int(os.pread(file, 128, 0).split()[1]) * page
