"""When to send: a pure function of the clock, so that a slow server cannot slow the cameras down."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress


def due_seconds(index: int, fps: float, phase: float = 0.0) -> float:
    """When a frame is due, in seconds from the start; `phase` shifts a camera by part of a frame's time.

    >>> due_seconds(5, fps=10.0)
    0.5
    >>> due_seconds(0, fps=10.0, phase=0.5)
    0.05
    """
    return (index + phase) / fps


async def ticks(fps: float, phase: float, seconds: float) -> AsyncIterator[tuple[int, float]]:
    """Frame indices with the Unix time at which each was due, open loop.

    A late wake-up is followed by as many ticks as are due: none is skipped, and none moves.
    """
    start_unix, start = time.time(), time.monotonic()
    index = 0
    while (due := due_seconds(index, fps, phase)) < seconds:
        wait = start + due - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        yield index, start_unix + due
        index += 1


class Alarm:
    """Calls back when the monotonic clock shows a time, to a few dozen microseconds.

    Event loops wake to the millisecond, which is 5 % of a latency of 20 ms. A timer of Linux does better; elsewhere the
    loop's own is used.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._ring = ring
        self._later: asyncio.TimerHandle | None = None
        self._timer = _timer()
        if self._timer >= 0:
            self._value = (ctypes.c_int64 * 4)()  # interval and value, each of seconds and nanoseconds
            self._set = ctypes.CDLL(None).timerfd_settime
            self._loop.add_reader(self._timer, self._on_timer)

    def set(self, at: float) -> None:
        """By `time.monotonic()`; what is past rings at once. There is one time: the newest."""
        if self._timer < 0:
            if self._later:
                self._later.cancel()
            self._later = self._loop.call_later(max(0.0, at - time.monotonic()), self._ring)
            return
        nanoseconds = max(1, int(at * 1e9))
        self._value[2], self._value[3] = divmod(nanoseconds, 1_000_000_000)
        self._set(self._timer, _ABSOLUTE, self._value, None)

    def close(self) -> None:
        if self._later:
            self._later.cancel()
        if self._timer >= 0:
            self._loop.remove_reader(self._timer)
            os.close(self._timer)
            self._timer = -1

    def _on_timer(self) -> None:
        with suppress(BlockingIOError):  # it was set anew meanwhile
            os.read(self._timer, 8)
        self._ring()


_ABSOLUTE = 1


def _timer() -> int:
    """A file that can be read when its time has come; -1 where the system has none."""
    create = getattr(ctypes.CDLL(None), "timerfd_create", None) if sys.platform == "linux" else None
    return create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC) if create else -1
