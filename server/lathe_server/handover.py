"""What the event loop hands to the workers: jobs that are ready, those of the higher class first."""

from __future__ import annotations

import queue
import threading
from typing import Generic, TypeVar

from lathe_server.line import Line

T = TypeVar("T")


class Handover(Generic[T]):
    """The loop puts, any worker takes. Here alone two threads touch the same state, so here is a lock."""

    def __init__(self) -> None:
        self._line: Line[T] = Line()
        self._lock = threading.Lock()
        self._turns: queue.SimpleQueue[bool] = queue.SimpleQueue()  # one for each job in the line

    def put(self, job: T, *, high: bool) -> None:
        with self._lock:
            self._line.append(job, 0.0, high=high)
        self._turns.put(True)

    def take(self) -> T | None:
        """Waits for a job; None says that the work is over."""
        if not self._turns.get():
            return None
        with self._lock:
            return self._line.pop()

    def close(self, workers: int) -> None:
        """After the jobs that are ready there are no more."""
        for _ in range(workers):
            self._turns.put(False)


def hands(waiting: int, workers: int, *, high: bool, once: bool) -> int:
    """How many jobs may be handed over and not done.

    A worker that is done with one job finds the next one ready, instead of waiting until the event loop comes to pick
    it. That costs a stream's frame a job's time of freshness, because no newer one can take its place any more; so it
    is done only while more streams wait than there are workers, when a turn is several jobs away anyway. A call has
    no newer frame. The higher class has room of its own before the ready jobs of the lower.

    Args:
        waiting: for their turn.
        high: the next of them is of the higher class.
        once: it is a call.

    >>> [hands(waiting, 2, high=False, once=False) for waiting in (1, 2, 3)]
    [2, 2, 4]
    >>> hands(1, 2, high=False, once=True), hands(3, 2, high=True, once=False)
    (4, 6)
    """
    if waiting <= workers and not once:
        return workers
    return workers * (3 if high else 2)
