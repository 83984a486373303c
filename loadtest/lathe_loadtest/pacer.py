"""When to send: a pure function of the clock, so that a slow server cannot slow the cameras down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator


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
