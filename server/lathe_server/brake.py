"""How often a stream that sends many times its share gets a turn while other streams want theirs.

Turns alone do not protect the others. A stream that takes every turn which is left over keeps all workers busy, so
whoever comes has a frame in hand to wait for, and latency doubles though nobody is overtaken. So such a stream fills
the workers' time up to a limit only, and never gets less than an equal share of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, field

WINDOW_SECONDS = 0.5
FLOOD = 4.0
"""A stream floods that sends more than so many times an equal share."""
READS_PER_SECOND = 240.0
"""What is read of one stream: more than any camera sends. Reading a frame only to drop it is not free."""


@dataclass
class _Window:
    """What happened since it began."""

    began: float
    arrivals: defaultdict[Hashable, int] = field(default_factory=lambda: defaultdict(int))
    work: defaultdict[Hashable, float] = field(default_factory=lambda: defaultdict(float))
    all_work: float = 0.0
    frames: int = 0


class Brake:
    """Looks at what streams send and what their frames cost, window by window.

    Args:
        room: share of the workers' time up to which flooding streams may fill it; at 1 there is no brake.
    """

    def __init__(self, workers: int, room: float, now: float) -> None:
        self._workers = workers
        self._room = room
        self._window = _Window(now)
        self._flooding: frozenset[Hashable] = frozenset()
        self._interval = 0.0

    def arrived(self, stream: Hashable, now: float) -> None:
        """A frame of a stream has come."""
        if now - self._window.began >= WINDOW_SECONDS:
            self._judge(now)
        self._window.arrivals[stream] += 1

    def worked(self, stream: Hashable | None, seconds: float) -> None:
        """A frame took so many seconds of a worker; None for all that came by calls, which are many and no streams."""
        self._window.work[stream] += seconds
        self._window.all_work += seconds
        self._window.frames += 1

    def interval(self, stream: Hashable) -> float:
        """Seconds from one turn of the stream to its next one, at least."""
        return self._interval if stream in self._flooding else 0.0

    def _judge(self, now: float) -> None:
        window, self._window = self._window, _Window(now)
        self._flooding = frozenset()
        if not (window.arrivals and window.all_work) or self._room >= 1:
            return
        seconds = now - window.began
        frames_per_second = self._workers * window.frames / window.all_work  # that the workers could judge
        share = frames_per_second / len(window.arrivals)
        flooding = frozenset(stream for stream, frames in window.arrivals.items() if frames / seconds > FLOOD * share)
        if not 0 < len(flooding) < len(window.arrivals):
            return
        load = sum(work for stream, work in window.work.items() if stream not in flooding) / (seconds * self._workers)
        self._flooding = flooding
        self._interval = 1 / max(share, (self._room - load) * frames_per_second / len(flooding))


class ReadingPace:
    """How long to wait before the next frame of a stream is read, so that no more than `READS_PER_SECOND` are.

    >>> pace = ReadingPace(0.0)
    >>> max(pace.pause(0.0) for _ in range(240))
    0.0
    >>> round(pace.pause(0.0) * READS_PER_SECOND, 6)
    1.0
    """

    def __init__(self, now: float) -> None:
        self._next = now - 1.0  # what was not read in the last second may be read at once

    def pause(self, now: float) -> float:
        """Seconds, for a frame that was read now."""
        self._next = max(self._next, now - 1.0) + 1 / READS_PER_SECOND
        return max(0.0, self._next - now)
