"""Whose frame is next: the newest of each stream, streams in turn, worker threads taking.

Each stream has one slot. A frame that arrives while the slot is full replaces the one in it, so a late
stream skips frames instead of falling behind. Of the full slots the one whose stream had its last turn the longest
ago is next, so no stream waits for more than one frame of each other stream of its class. All state is on the event
loop; threads only compute.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic, thread_time
from typing import Protocol

from lathe_server.brake import Brake
from lathe_server.frames import Frame, Outcome, fate
from lathe_server.handover import Handover, hands
from lathe_server.line import Line
from lathe_server.threads import become_worker

BRIEF_AT_ONCE = 8
"""Jobs that the event loop does before it looks at something else."""


class Job(Protocol):
    """A frame with what is needed to judge it.

    Attributes:
        is_brief: it is done sooner than a worker would wake.
    """

    @property
    def is_brief(self) -> bool: ...

    def run(self) -> None:
        """Does the work, on a worker thread or, if it is brief, on the event loop; never raises."""

    def done(self, queue_seconds: float, seconds: float, cpu_seconds: float) -> None:
        """Hands the result on, on the event loop.

        Args:
            queue_seconds: from the frame's arrival to its turn.
            seconds: that it took of a worker.
            cpu_seconds: of these, on the processor.
        """


@dataclass(slots=True, eq=False)
class _Waiting:
    frame: Frame
    begin: Callable[[], Job | None]
    drop: Callable[[Outcome], None]


class Lane:
    """One stream's slot.

    Args:
        high: of the class that goes first.
        once: a single call's, which has one frame and no share of the turns.
    """

    __slots__ = ("_free", "_held", "_waiting", "high", "last_turn", "once", "since")

    def __init__(self, *, high: bool = False, once: bool = False) -> None:
        self.high = high
        self.once = once
        self.last_turn = monotonic()  # before the first one: when the stream came
        self.since = 0.0  # in the line for its next turn
        self._waiting: _Waiting | None = None
        self._held: asyncio.TimerHandle | None = None  # while the brake keeps the full slot out of the line
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
    """Matches waiting frames with workers.

    Args:
        workers: threads; as many frames are judged at the same time.
        brake_above: share of the workers' time up to which streams that send many times their share may fill it.
        cores: the workers take these in turn, each one for itself; without any they run where the system puts them.
        max_waiting: lanes that may wait; beyond it `offer` says no.
        on_turn: told of each lane's turn: its frame, how long the lane was in the line, and the time.
    """

    def __init__(
        self,
        workers: int,
        *,
        max_waiting: int,
        brake_above: float = 1.0,
        cores: Sequence[int] = (),
        on_turn: Callable[[Frame, float, float], None] = lambda frame, waited, now: None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: Handover[tuple[Lane | None, Job, float]] = Handover()
        self._leisure: Callable[[], Job | None] | None = None  # begins the job for when there is nothing else to do
        self._line: Line[Lane] = Line()
        self._held = 0  # lanes whose slot is full, and whose turn the brake puts off
        self._brake = Brake(workers, brake_above, monotonic())
        self.worker_seconds = self.loop_seconds = 0.0  # CPU time of all jobs so far, by where they were done
        self._in_hand = 0  # jobs that are handed over and not done
        self._workers = workers
        self._max_waiting = max_waiting
        self._on_turn = on_turn
        self._settled = asyncio.Event()
        self._settled.set()
        self._threads = [
            threading.Thread(
                target=self._work,
                args=(cores[number % len(cores)] if cores else None,),
                name=f"lathe-worker-{number}",
                daemon=True,
            )
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Frames in slots."""
        return len(self._line) + self._held

    @property
    def in_hand(self) -> int:
        """Jobs that are handed over and not done."""
        return self._in_hand

    @property
    def queue_age_seconds(self) -> float:
        """How long the lane has waited for its turn that waits the longest; 0 where none does. Those that the brake
        keeps back do not count."""
        oldest = min((lane.since for lane in self._line), default=None)
        return 0.0 if oldest is None else monotonic() - oldest

    def offer(self, lane: Lane, frame: Frame, begin: Callable[[], Job | None], drop: Callable[[Outcome], None]) -> bool:
        """Puts a frame into its stream's slot.

        Args:
            begin: called when the frame's turn has come; None where it has been dealt with otherwise.
            drop: called instead, with the reason.

        Returns:
            False where too many lanes wait already; nothing was called then.
        """
        older, now = lane._waiting, monotonic()
        if older is None and self.waiting >= self._max_waiting:
            return False
        if not lane.once:
            self._brake.arrived(lane, now)
        lane._put(_Waiting(frame, begin, drop))
        if older:
            older.drop("dropped_superseded")
            return True
        self._settled.clear()
        pause = lane.last_turn + self._brake.interval(lane) - now
        if pause > 0:
            self._held += 1
            lane._held = self._loop.call_later(pause, self._let_go, lane)
        else:
            self._join(lane, now)
        return True

    def offer_leisure(self, begin: Callable[[], Job | None]) -> None:
        """Something to do when nobody waits and no frame that comes would have to wait for it, if there are two workers
        or more; with one it may have to. A newer offer takes the place of one that has not begun."""
        self._leisure = begin
        self._dispatch()

    def _let_go(self, lane: Lane) -> None:
        lane._held = None
        self._held -= 1
        self._join(lane, monotonic())

    def _join(self, lane: Lane, now: float) -> None:
        lane.since = now
        self._line.append(lane, lane.last_turn, high=lane.high)
        self._dispatch()
        self._note_settled()

    def clear(self, lane: Lane, reason: Outcome) -> None:
        """Empties a slot."""
        if waiting := lane._take():
            if lane._held:
                lane._held.cancel()
                lane._held = None
                self._held -= 1
            else:
                self._line.remove(lane)
            waiting.drop(reason)
            self._note_settled()

    async def settled(self) -> None:
        """Returns when no frame waits and no worker works."""
        await self._settled.wait()

    def close(self) -> None:
        """Ends the workers after the job in hand."""
        self._jobs.close(len(self._threads))

    def _dispatch(self) -> None:
        brief = 0
        while self._line and self._in_hand < self._hands():
            if brief >= BRIEF_AT_ONCE:
                self._loop.call_soon(self._dispatch_again)
                return
            lane = self._line.pop()
            waiting = lane._take()
            assert waiting, "a lane in the line has a frame in its slot"
            now = lane.last_turn = monotonic()
            self._on_turn(waiting.frame, now - lane.since, now)
            if reason := fate(waiting.frame, now):
                waiting.drop(reason)
            elif job := waiting.begin():
                if job.is_brief:
                    brief += 1
                    self._run_here(lane, job, waiting.frame.arrived)
                else:
                    self._hand_over(lane, job, waiting.frame.arrived, high=lane.high)
        if self._leisure and not self._line and self._in_hand < max(1, self._workers - 1):
            begin, self._leisure = self._leisure, None
            if job := begin():
                self._hand_over(None, job, monotonic(), high=False)

    def _dispatch_again(self) -> None:
        self._dispatch()
        self._note_settled()

    def _run_here(self, lane: Lane, job: Job, arrived: float) -> None:
        began, seconds, cpu_seconds = _timed(job)
        self.loop_seconds += cpu_seconds
        self._brake.worked(None if lane.once else lane, seconds)
        job.done(began - arrived, seconds, cpu_seconds)

    def _hands(self) -> int:
        return hands(len(self._line), self._workers, high=self._line.high_is_next, once=self._line.next.once)

    def _hand_over(self, lane: Lane | None, job: Job, arrived: float, *, high: bool) -> None:
        self._in_hand += 1
        self._settled.clear()
        self._jobs.put((lane, job, arrived), high=high)

    def _note_settled(self) -> None:
        if not self.waiting and not self._in_hand:
            self._settled.set()

    def _work(self, core: int | None) -> None:
        become_worker(core)
        while task := self._jobs.take():
            lane, job, arrived = task
            began, seconds, cpu_seconds = _timed(job)
            self._loop.call_soon_threadsafe(self._finish, lane, job, began - arrived, seconds, cpu_seconds)
            del task, job

    def _finish(self, lane: Lane | None, job: Job, queue_seconds: float, seconds: float, cpu_seconds: float) -> None:
        self._in_hand -= 1
        self.worker_seconds += cpu_seconds
        self._brake.worked(None if lane is None or lane.once else lane, seconds)
        self._dispatch()  # first: the worker need not wait until the result is on its way
        try:
            job.done(queue_seconds, seconds, cpu_seconds)
        finally:
            self._note_settled()


def _timed(job: Job) -> tuple[float, float, float]:
    """Does it; when it began, the time it took, and of that on the processor."""
    began, began_cpu = monotonic(), thread_time()
    job.run()
    return began, monotonic() - began, thread_time() - began_cpu
