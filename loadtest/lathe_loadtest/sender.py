"""One process of the driver: some of the cameras, on one event loop.

It says `Ready`, is told when to begin, says how it does every second, and is `Done` with its notes at the end. Whoever
started it may stop it before; where that one has gone, it goes too.
"""

from __future__ import annotations

import asyncio
import gc
import math
import os
import resource
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import TYPE_CHECKING

from lathe_loadtest.link import LONGEST_PAUSE_SECONDS, Link
from lathe_loadtest.messages import messages_of
from lathe_loadtest.notes import Notes
from lathe_loadtest.orders import Beat, Begin, Done, Ready, Stop, Task
from lathe_loadtest.pacer import Alarm
from lathe_loadtest.presence import Presence
from lathe_loadtest.schedule import CameraPlan, plans
from lathe_loadtest.way import Peer

if TYPE_CHECKING:
    from collections.abc import Callable

READY_SECONDS = 10.0
"""For the first connections; cameras that have none by then go on trying."""
FIRST_ATTEMPTS = 3
"""To connect, of each camera: when all have failed there is no server."""
EARLY_SECONDS = 0.25
"""A camera that joins connects so long before its first frame."""
NICENESS = -10
"""Real cameras are on no server's machine and wait for nobody there: where both share one, those here come first."""
RETURN_SECONDS = LONGEST_PAUSE_SECONDS + 0.5
"""For cameras to come back at the end that have just lost their connections, before the server counts as lost."""
PROGRESS_SECONDS, SHORTEST_PROGRESS_SECONDS = 2.0, 0.25
"""A stream that was answered so recently is at work at the end; no longer than half of the time for answers, though."""
_SETTLE_SECONDS = 0.02


def run(task: Task, pipe: Pipe) -> None:
    """The process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal's: whoever started this tells it
    with suppress(OSError):  # root's alone
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    with suppress(OSError, ValueError):  # a file for each connection
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    runner = asyncio.run
    try:
        import uvloop

        runner = uvloop.run
    except ImportError:
        pass
    runner(_Sender(task, pipe).life())


class _Sender:
    def __init__(self, task: Task, pipe: Pipe) -> None:
        self._scenario = task.scenario
        self._pipe = pipe
        self._plans = [plan for n, plan in enumerate(plans(task.scenario)) if n % task.parts == task.part]
        self._notes = Notes(self._plans)
        tls = task.connection.ssl_context()
        if tls:
            tls.set_alpn_protocols(["h2"])
        peer = Peer(task.address, task.server, tls, task.connection.token)
        pictures = {name: _read_pictures(path) for name, path in task.pictures.items()}
        self._links = [
            Link(
                plan,
                messages_of(task.scenario, plan.cameras, plan.name),
                pictures[plan.cameras.name],
                n * 7,
                peer,
                self._notes,
            )
            for n, plan in enumerate(self._plans)
        ]
        self._row = 0
        self._rows = len(self._notes)
        self._happenings = sorted(_happenings(self._plans, self._links), key=lambda one: one[0])
        self._happened = 0
        self._start = 0.0
        self._wanted_since: float | None = None

    async def life(self) -> None:
        loop = asyncio.get_running_loop()
        orders: asyncio.Queue[object] = asyncio.Queue()
        loop.add_reader(self._pipe.fileno(), self._listen, orders)
        try:
            self._pipe.send(await self._ready())
            begin = await orders.get()
            if isinstance(begin, Begin):
                gc.collect()
                gc.freeze()
                done = await self._send(begin, orders)
                loop.remove_reader(self._pipe.fileno())
                os.set_blocking(self._pipe.fileno(), True)  # not the loop's way, but this is more than a pipe holds
                self._pipe.send(done)
        except (BrokenPipeError, ConnectionResetError):  # nobody wants to know any more
            pass
        finally:
            for link in self._links:
                link.end()
            await asyncio.sleep(_SETTLE_SECONDS)

    def _listen(self, orders: asyncio.Queue[object]) -> None:
        try:
            orders.put_nowait(self._pipe.recv())
        except EOFError:
            asyncio.get_running_loop().remove_reader(self._pipe.fileno())
            orders.put_nowait(Stop(0.0, drain=False))

    async def _ready(self) -> Ready:
        """Connects the cameras that are there from the start."""
        first = [link for link, plan in zip(self._links, self._plans, strict=True) if _is_early(plan)]
        if not first:
            return Ready(int(await self._links[0].probe()), self._rows, "")
        for link in first:
            link.open()
        end = time.monotonic() + READY_SECONDS
        while not all(link.is_open or link.problem for link in first) and time.monotonic() < end:
            if all(link.attempts > FIRST_ATTEMPTS for link in first):  # nobody is there
                break
            await asyncio.sleep(_SETTLE_SECONDS)
        return Ready(sum(link.is_open for link in first), self._rows, self._problem)

    @property
    def _problem(self) -> str:
        return next((link.problem for link in self._links if link.problem), "")

    async def _send(self, begin: Begin, orders: asyncio.Queue[object]) -> Done:
        self._start = begin.at
        for link in self._links:
            link.start(begin.at, begin.at_unix)
        done = asyncio.Event()
        self._alarm = Alarm(lambda: self._ring(done))
        self._alarm.set(begin.at)
        beating = asyncio.create_task(self._beat())
        stopping = asyncio.create_task(orders.get())
        began = time.process_time()
        sending = asyncio.create_task(done.wait())
        await asyncio.wait([sending, stopping], return_when=asyncio.FIRST_COMPLETED)
        self._alarm.close()
        stop = stopping.result() if stopping.done() else None
        drain = not isinstance(stop, Stop) or stop.drain
        if stop is None:
            await self._come_back()
        presence, problem = self._presence(), self._problem
        for link in self._links:
            link.close()
        end = time.monotonic() + (self._scenario.drain_seconds if drain else 0.0)
        while (  # noqa: ASYNC110  many links, and a moment more or less does not matter
            not all(link.is_settled for link in self._links)
            and time.monotonic() < end
            and not (stop is None and stopping.done())
        ):
            await asyncio.sleep(_SETTLE_SECONDS)
        cpu_seconds = time.process_time() - began
        beating.cancel()
        sending.cancel()
        stopping.cancel()
        progress = min(PROGRESS_SECONDS, self._scenario.drain_seconds / 2)
        for link in self._links:
            link.end(max(progress, SHORTEST_PROGRESS_SECONDS))
        count = self._row
        if isinstance(stop, Stop):
            while count and self._notes.due[count - 1] >= stop.seconds:
                count -= 1
        connections = [link.connections for link in self._links]
        rows = self._notes.rows(self._scenario.warmup_seconds, count, connections, cpu_seconds)
        own_limits = Counter(link.own_limit for link in self._links if link.own_limit)
        strange: Counter[str] = sum((link.strange for link in self._links), Counter())
        return Done(rows, presence, problem, own_limits, strange)

    async def _come_back(self) -> None:
        """Gives cameras that are just reconnecting the time for it: those of a server that is lost do not come back."""
        end = time.monotonic() + RETURN_SECONDS
        while (  # noqa: ASYNC110  see below
            any(link.is_wanted for link in self._links)
            and not any(link.is_open or link.problem for link in self._links)
            and time.monotonic() < end
        ):
            await asyncio.sleep(_SETTLE_SECONDS)

    def _presence(self) -> Presence:
        now = time.monotonic() - self._start
        is_open, wanted = sum(link.is_open for link in self._links), sum(link.is_wanted for link in self._links)
        if not wanted:
            self._wanted_since = None
        elif self._wanted_since is None:
            self._wanted_since = now
        last = now if is_open else max(0.0, *(link.last_open - self._start for link in self._links))
        return Presence(is_open, wanted, last, now if self._wanted_since is None else self._wanted_since)

    def _ring(self, done: asyncio.Event) -> None:
        """Sends all that is due, and sets the alarm for what is due next."""
        notes, links, start = self._notes, self._links, self._start
        now = time.monotonic() - start
        while True:
            at_row = notes.due[self._row] if self._row < self._rows else self._scenario.seconds
            at = self._happenings[self._happened][0] if self._happened < len(self._happenings) else at_row
            if min(at, at_row) > now:
                now = time.monotonic() - start  # sending takes time, too
                if min(at, at_row) > now:
                    break
            if at < at_row:
                self._happenings[self._happened][1]()
                self._happened += 1
            elif self._row < self._rows:
                row = self._row
                notes.lateness[row] = time.monotonic() - start - at_row
                links[notes.camera[row]].due(row)
                self._row = row + 1
            else:
                done.set()
                return
        self._alarm.set(start + min(at, at_row))

    async def _beat(self) -> None:
        at = 0.0
        while True:
            at = next_beat(at, time.monotonic() - self._start)
            await asyncio.sleep(self._start + at - time.monotonic())
            now = time.monotonic()
            for link in self._links:
                link.beat(now)
            self._pipe.send(Beat(now - self._start, self._row, self._presence(), self._problem))


def next_beat(last: float, now: float) -> float:
    """When the beat after one that was to be at `last` is to be. One is a second after the other, or more: a loop wakes
    up a little too early or much too late, and neither makes two of one.

    >>> next_beat(2.0, now=1.999), next_beat(2.0, now=2.001), next_beat(2.0, now=7.3)
    (3.0, 3.0, 8.0)
    """
    return max(last + 1.0, math.floor(now) + 1.0)


def _is_early(plan: CameraPlan) -> bool:
    return bool(plan.stays) and plan.stays[0][0] <= EARLY_SECONDS


def _happenings(plans: Sequence[CameraPlan], links: Sequence[Link]) -> list[tuple[float, Callable[[], None]]]:
    """When cameras come, go and are cut; those that are there from the start are connected before."""
    found: list[tuple[float, Callable[[], None]]] = []
    for plan, link in zip(plans, links, strict=True):
        gone = 0.0
        for number, (begin, end) in enumerate(plan.stays):
            if number or not _is_early(plan):
                found.append((begin - min(EARLY_SECONDS, (begin - gone) / 2), link.open))
            gone = end
            found.append((end, link.close))
        found += [(at, link.cut) for at in plan.cuts]
    return found


def write_pictures(pictures: Sequence[bytes], path: Path) -> None:
    """See `Task`."""
    path.write_bytes(b"".join(len(one).to_bytes(4) + one for one in pictures))


def _read_pictures(path: Path) -> tuple[bytes, ...]:
    content, at, found = path.read_bytes(), 0, []
    while at < len(content):
        size = int.from_bytes(content[at : at + 4])
        found.append(content[at + 4 : at + 4 + size])
        at += 4 + size
    return tuple(found)
