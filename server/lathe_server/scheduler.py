"""Whose frame is next: the newest of each stream, streams in turn, worker threads taking.

Each stream has one slot. A frame that arrives while the slot is full replaces the one in it, so a late
stream skips frames instead of falling behind; full slots wait in one first-in-first-out line a class, so no stream
waits for more than one frame of each other stream of its class. All state is on the event loop; threads only compute.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic, thread_time
from typing import Protocol

from lathe_server.frames import Frame, Outcome, fate
from lathe_server.line import Line


class Job(Protocol):
    """A frame with what is needed to judge it."""

    def run(self) -> None:
        """Does the work, on a worker thread; never raises."""

    def done(self, queue_seconds: float, cpu_seconds: float) -> None:
        """Hands the result on, on the event loop."""


@dataclass(slots=True, eq=False)
class _Waiting:
    frame: Frame
    begin: Callable[[], Job | None]
    drop: Callable[[Outcome], None]


class Lane:
    """One stream's slot.

    Args:
        high: of the class that goes first.
    """

    __slots__ = ("_free", "_waiting", "high", "since")

    def __init__(self, *, high: bool = False) -> None:
        self.high = high
        self.since = 0.0  # on the monotonic clock: in the line for its next turn
        self._waiting: _Waiting | None = None
        self._free = asyncio.Event()
        self._free.set()

    async def free(self) -> None:
        """Returns when the slot is empty."""
        await self._free.wait()

    def _put(self, waiting: _Waiting) -> None:
        self._waiting = waiting
        self._free.clear()

    def _take(self) -> _Waiting | None:
        waiting, self._waiting = self._waiting, None
        self._free.set()
        return waiting


class Scheduler:
    """Matches waiting frames with idle workers.

    Args:
        workers: threads; as many frames are judged at the same time.
        max_waiting: lanes that may wait; beyond it `offer` says no.
        on_turn: told of each lane's turn: its frame, how long the lane was in the line, and the time.
    """

    def __init__(
        self,
        workers: int,
        *,
        max_waiting: int,
        on_turn: Callable[[Frame, float, float], None] = lambda frame, waited, now: None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[tuple[Job, float] | None] = queue.SimpleQueue()
        self._line: Line[Lane] = Line()
        self._idle = workers
        self._workers = workers
        self._max_waiting = max_waiting
        self._on_turn = on_turn
        self._settled = asyncio.Event()
        self._settled.set()
        self._threads = [
            threading.Thread(target=self._work, name=f"lathe-worker-{number}", daemon=True) for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Frames in slots."""
        return len(self._line)

    def offer(self, lane: Lane, frame: Frame, begin: Callable[[], Job | None], drop: Callable[[Outcome], None]) -> bool:
        """Puts a frame into its stream's slot.

        Args:
            begin: called when the frame's turn has come; None where it has been dealt with otherwise.
            drop: called instead, with the reason.

        Returns:
            False where too many lanes wait already; nothing was called then.
        """
        older = lane._waiting
        if older is None:
            if len(self._line) >= self._max_waiting:
                return False
            self._line.append(lane, high=lane.high)
            lane.since = monotonic()
            self._settled.clear()
        lane._put(_Waiting(frame, begin, drop))
        if older:
            older.drop("dropped_superseded")
        self._dispatch()
        return True

    def clear(self, lane: Lane, reason: Outcome) -> None:
        """Empties a slot."""
        if waiting := lane._take():
            self._line.remove(lane)
            waiting.drop(reason)
            self._note_settled()

    async def settled(self) -> None:
        """Returns when no frame waits and no worker works."""
        await self._settled.wait()

    def close(self) -> None:
        """Ends the workers after the job in hand."""
        for _ in self._threads:
            self._jobs.put(None)

    def _dispatch(self) -> None:
        while self._idle and self._line:
            lane = self._line.popleft()
            waiting = lane._take()
            assert waiting, "a lane in the line has a frame in its slot"
            now = monotonic()
            self._on_turn(waiting.frame, now - lane.since, now)
            if reason := fate(waiting.frame, now):
                waiting.drop(reason)
            elif job := waiting.begin():
                self._idle -= 1
                self._jobs.put((job, now - waiting.frame.arrived))
        self._note_settled()

    def _note_settled(self) -> None:
        if not self._line and self._idle == self._workers:
            self._settled.set()

    def _work(self) -> None:
        while task := self._jobs.get():
            job, queue_seconds = task
            began = thread_time()
            job.run()
            cpu_seconds = thread_time() - began
            self._loop.call_soon_threadsafe(self._finish, job, queue_seconds, cpu_seconds)
            del task, job

    def _finish(self, job: Job, queue_seconds: float, cpu_seconds: float) -> None:
        self._idle += 1
        try:
            job.done(queue_seconds, cpu_seconds)
        finally:
            self._dispatch()
