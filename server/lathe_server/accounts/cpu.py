"""The process's CPU time by what it went to."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from lathe_server.threads import ended_loaders

COMPONENTS = ("event_loop", "workers", "grpc", "loader", "scrapes", "other")
"""Beside the predictions. workers: handing over, between two jobs; grpc: its own threads; other: files, and what helps
the loop out."""

_BY_THREAD = {"MainThread": "event_loop", "lathe-worker": "workers", "lathe-loader": "loader"}
_GRPC_POLLER = "_poll_wrapper"


class ThreadTimes:
    """CPU time by component: of all threads that live, of loaders that have ended, and of others that have as far as
    they were looked at.

    Args:
        threads: ids of the system, with the names of those that are Python's.
        read: CPU seconds of a thread; OSError where it has ended.
        ended: loaders that have since the last look, with their CPU seconds.
    """

    def __init__(
        self,
        threads: Callable[[], Mapping[int, str]] = lambda: _threads(),
        read: Callable[[int], float] = lambda thread: _cpu_seconds(thread),
        ended: Callable[[], Iterable[tuple[int, float]]] = ended_loaders,
    ) -> None:
        self._threads = threads
        self._read = read
        self._ended = ended
        self._last: dict[int, float] = {}
        self._told: set[int] = set()
        self._seconds = dict.fromkeys(COMPONENTS, 0.0)

    def look(self) -> Mapping[str, float]:
        """Seconds since the beginning of the process."""
        last, threads = {}, self._threads()
        for thread, total in self._ended():  # after the list: whoever is in neither has not begun
            self._seconds["loader"] += max(0.0, total - self._last.pop(thread, 0.0))
            self._told.add(thread)
        self._told &= threads.keys()  # those that have told all and are not gone yet
        for thread, name in threads.items():
            if thread in self._told:
                continue
            before = self._last.get(thread, 0.0)
            try:
                now = self._read(thread)
            except OSError:  # it has ended since, and a loader will say so
                last[thread] = before
                continue
            self._seconds[component_of(name)] += now - before if now >= before else now  # its number was given anew
            last[thread] = now
        self._last = last
        return self._seconds


def component_of(name: str) -> str:
    """What a thread works for.

    >>> [component_of(name) for name in ("MainThread", "lathe-worker-1", "", "asyncio_0")]
    ['event_loop', 'workers', 'grpc', 'other']
    """
    if not name or _GRPC_POLLER in name:  # native threads are gRPC's: the runtimes have none of their own
        return "grpc"
    return next((component for start, component in _BY_THREAD.items() if name.startswith(start)), "other")


def _threads() -> dict[int, str]:
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    return {number: names.get(number, "") for number in _numbers()}


def _numbers() -> Iterable[int]:
    try:
        return [int(number) for number in os.listdir("/proc/self/task")]  # noqa: PTH208  each second
    except OSError:  # another system: Python's own
        return [thread.native_id for thread in threading.enumerate() if thread.native_id]


def _cpu_seconds(thread: int) -> float:
    """By the clock that Linux makes of a thread's number (clock_getcpuclockid(3), of a thread)."""
    return time.clock_gettime(~thread << 3 | 6)
