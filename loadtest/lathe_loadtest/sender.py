"""One process of the driver: some of the cameras, on one event loop.

It says `Ready`, is told when to begin, says how it does every second, and gives its notes at the end. Whoever started
it may stop it before; where that one has gone, it goes too.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import TYPE_CHECKING

from lathe.connection import Connection
from lathe_loadtest.link import Link, Peer
from lathe_loadtest.messages import messages_of
from lathe_loadtest.notes import Notes, Rows
from lathe_loadtest.pacer import Alarm
from lathe_loadtest.scenario import Scenario
from lathe_loadtest.schedule import CameraPlan, plans

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
_SETTLE_SECONDS = 0.02


@dataclass(frozen=True)
class Task:
    """What a process is to do.

    Attributes:
        part: it has every `parts`-th camera, from this one on.
        pictures: files of JPEGs, by the cameras' group; each is a length of four bytes and so many bytes, repeated.
    """

    scenario: Scenario
    address: str
    connection: Connection
    part: int
    parts: int
    pictures: dict[str, Path]


@dataclass(frozen=True)
class Ready:
    """Attributes:
    connected: cameras.
    wanted: that should be.
    """

    connected: int
    wanted: int
    problem: str


@dataclass(frozen=True)
class Begin:
    """At a time of the monotonic clock, which is the same for all processes of a machine, and as Unix time."""

    at: float
    at_unix: float


@dataclass(frozen=True)
class Stop:
    """Frames that were due later than this are none; answers to the others are waited for, where `drain` says so."""

    seconds: float
    drain: bool = True


@dataclass(frozen=True)
class Beat:
    """Attributes:
    open: cameras that are connected.
    last_open_seconds: when one last was, since the start.
    """

    seconds: float
    rows: int
    open: int
    last_open_seconds: float
    problem: str


def run(task: Task, pipe: Pipe) -> None:
    """The process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal's: whoever started this tells it
    with suppress(OSError):  # root's alone
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
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
        peer = Peer(task.address, tls, task.connection.token)
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
        self._last_open = 0.0

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
                rows = await self._send(begin, orders)
                loop.remove_reader(self._pipe.fileno())
                os.set_blocking(self._pipe.fileno(), True)  # not the loop's way, but this is more than a pipe holds
                self._pipe.send(rows)
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
        for link in first:
            link.open()
        end = time.monotonic() + READY_SECONDS
        while not all(link.is_open or link.problem for link in first) and time.monotonic() < end:
            if all(link.attempts > FIRST_ATTEMPTS for link in first):  # nobody is there
                break
            await asyncio.sleep(_SETTLE_SECONDS)
        return Ready(sum(link.is_open for link in first), len(first), self._problem)

    @property
    def _problem(self) -> str:
        return next((link.problem for link in self._links if link.problem), "")

    async def _send(self, begin: Begin, orders: asyncio.Queue[object]) -> Rows:
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
        for link in self._links:
            link.end()
        count = self._row
        if isinstance(stop, Stop):
            while count and self._notes.due[count - 1] >= stop.seconds:
                count -= 1
        connections = [link.connections for link in self._links]
        return self._notes.rows(self._scenario.warmup_seconds, count, connections, cpu_seconds)

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
        while True:
            await asyncio.sleep(1.0 - (time.monotonic() - self._start) % 1.0)
            now = time.monotonic()
            for link in self._links:
                link.sweep(now)
            is_open = sum(link.is_open for link in self._links)
            if is_open:
                self._last_open = now - self._start
            beat = Beat(now - self._start, self._row, is_open, self._last_open, self._problem)
            self._pipe.send(beat)


def _is_early(plan: CameraPlan) -> bool:
    return bool(plan.stays) and plan.stays[0][0] <= EARLY_SECONDS


def _happenings(plans: Sequence[CameraPlan], links: Sequence[Link]) -> list[tuple[float, Callable[[], None]]]:
    """When cameras come, go and are cut; those that are there from the start are connected before."""
    found: list[tuple[float, Callable[[], None]]] = []
    for plan, link in zip(plans, links, strict=True):
        gone = 0.0
        for begin, end in plan.stays:
            if begin > EARLY_SECONDS:
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
