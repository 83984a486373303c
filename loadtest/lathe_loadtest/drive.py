"""Drives a server by a scenario: starts the processes that send, watches the server beside them, and gathers."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Event as Flag
from typing import Any

from lathe.connection import Connection
from lathe.errors import InternalError, InvalidInput, Refused, Unavailable
from lathe.machine import available_cores, cpu_name
from lathe_loadtest import assemble, sender
from lathe_loadtest.actions import Moment, Performer
from lathe_loadtest.footage import jpegs
from lathe_loadtest.notes import Rows
from lathe_loadtest.orders import Beat, Begin, Done, Ready, Stop, Task
from lathe_loadtest.presence import lost_seconds
from lathe_loadtest.readings import Readings
from lathe_loadtest.result import Ended, LoadResult, Machine
from lathe_loadtest.scenario import Scenario
from lathe_loadtest.stage import Stage, Target

FRAMES_A_PROCESS = 2_000
"""A second: about a quarter of a core."""
MAX_FRAMES = 1e8
"""Of a run: some gigabytes of notes."""
_START_SECONDS = 60.0
_LEAD_SECONDS = 0.2
"""Between the word to begin and the beginning."""
_GATHER_SECONDS = 30.0


def drive(
    scenario: Scenario,
    target: Target,
    *,
    do: Callable[[Moment], None] | None = None,
    processes: int = 0,
    stop: Flag | None = None,
    on_beat: Callable[[float, int, int], None] = lambda *_: None,
) -> LoadResult:
    """Runs a scenario to its end, or until the server is gone or somebody stops it; what was seen until then is kept.

    Args:
        do: carries out the scenario's actions; over the target's control port by default.
        processes: that send; 0 takes as many as the load needs.
        stop: ends the run when it is set.
        on_beat: told about once a second: seconds passed, frames sent, cameras connected.

    Raises:
        Unavailable: no camera could connect.
        Refused: the server does not take such streams or calls; with its reason.
        InvalidInput: the scenario sends no frame, or more than can be noted; or a token would cross the network in
            plain text.
        NotFound, InvalidInput: of the footage, or of the connection's files.
    """
    if scenario.max_frames > MAX_FRAMES:
        raise InvalidInput(f"up to {scenario.max_frames:.0f} frames are more than a run can have, {MAX_FRAMES:.0f}")
    parts = processes or processes_for(scenario)
    connection = target.connection or Connection.from_environment()
    connection.check(target.server)
    tls = connection.ssl_context()
    do = do or partial(Stage(target).do, scenario.model)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lathe-load-")))
        tasks = _tasks(scenario, target, connection, min(parts, len(scenario.camera_names)), folder)
        crew = stack.enter_context(_crew(tasks))
        crew.await_ready(target.server, stop)
        begin = Begin(time.monotonic() + _LEAD_SECONDS, time.time() + _LEAD_SECONDS)
        crew.tell(begin)
        readings = Readings(target.http, tls, scenario.model, begin.at)
        try:
            with Performer(scenario, do, begin.at) as performer:
                ended, error, seconds = crew.watch(scenario, begin.at, stop, on_beat)
        finally:
            server_readings = readings.close()
        rows = crew.rows
        if not rows:
            raise InternalError("all processes of the driver have died")
        return LoadResult(
            scenario=scenario,
            machine=Machine(cpu_name(), available_cores()),
            address=target.server,
            started_at_unix=begin.at_unix,
            seconds=seconds,
            per_second=assemble.per_second(rows),
            cameras=assemble.cameras(scenario, rows),
            sender=assemble.sender(rows),
            server=server_readings,
            events=tuple(performer.events),
            why_invalid=(*assemble.why_invalid(rows, seconds, len(tasks) - len(rows)), *crew.own_limits),
            ended=ended,
            error=error,
            strange=crew.strange,
        )


def processes_for(scenario: Scenario) -> int:
    """As many as the load at its height needs, and no more than there are cores.

    >>> from lathe_loadtest.scenario import Cameras
    >>> processes_for(Scenario("face", (Cameras(count=4, fps=10),)))
    1
    """
    frames_per_second = scenario.max_frames / scenario.seconds
    return max(1, min(available_cores(), math.ceil(frames_per_second / FRAMES_A_PROCESS)))


def _tasks(scenario: Scenario, target: Target, connection: Connection, parts: int, folder: Path) -> list[Task]:
    kinds: dict[tuple[tuple[int, int], int], Path] = {}
    pictures = {}
    for cameras in scenario.cameras:
        kind = (cameras.size_wh, cameras.quality)
        if kind not in kinds:
            kinds[kind] = folder / f"{len(kinds)}.jpegs"
            sender.write_pictures(jpegs(scenario.footage, *kind), kinds[kind])
        pictures[cameras.name] = kinds[kind]
    return [Task(scenario, target.grpc, target.server, connection, part, parts, pictures) for part in range(parts)]


@contextlib.contextmanager
def _crew(tasks: Sequence[Task]) -> Iterator[_Crew]:
    context = multiprocessing.get_context("spawn")
    pairs = []
    # A child that is just starting must not die of the terminal's Ctrl-C: its notes would be lost.
    before = _set_sigint(signal.SIG_IGN)
    try:
        for task in tasks:
            own, theirs = context.Pipe()
            process = context.Process(target=sender.run, args=(task, theirs), daemon=True)
            process.start()
            theirs.close()
            pairs.append((process, own))
    finally:
        _set_sigint(before)
    crew = _Crew(pairs)
    try:
        yield crew
    finally:
        crew.close()


def _set_sigint(handler: Any) -> Any:
    """None where this is not the main thread, which alone may."""
    try:
        return signal.signal(signal.SIGINT, handler) if handler is not None else None
    except ValueError:
        return None


class _Crew:
    """The processes that send."""

    def __init__(self, members: Sequence[tuple[BaseProcess, Pipe]]) -> None:
        self._members = members
        self._pipes = [pipe for _, pipe in members]
        self._done: dict[Pipe, Done] = {}
        self._dead: set[Pipe] = set()
        self._beats: dict[Pipe, Beat] = {}

    @property
    def rows(self) -> list[Rows]:
        return [self._done[pipe].rows for pipe in self._pipes if pipe in self._done]

    @property
    def own_limits(self) -> list[str]:
        """Reasons for which this machine was the limit."""
        total = sum((Counter(done.own_limits) for done in self._done.values()), Counter[str]())
        return [
            f"{count} cameras could not connect: {limit}, on the driver's machine" for limit, count in total.items()
        ]

    @property
    def strange(self) -> dict[str, int]:
        """See `LoadResult`."""
        return dict(sum((Counter(done.strange) for done in self._done.values()), Counter[str]()))

    def tell(self, order: object) -> None:
        for pipe in self._pipes:
            if pipe not in self._done and pipe not in self._dead:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    pipe.send(order)

    def await_ready(self, address: str, stop: Flag | None) -> None:
        """Waits until all cameras are connected, or some have not managed to.

        Raises:
            Unavailable, Refused: see `drive`.
        """
        told: dict[Pipe, Ready] = {}
        end = time.monotonic() + _START_SECONDS
        while len(told) < len(self._pipes):
            if stop and stop.is_set():
                raise Unavailable("stopped before it began")
            if time.monotonic() > end:
                raise Unavailable("the driver did not start")
            for pipe, message in self._hear():
                if message is None:
                    raise InternalError("a process of the driver died while it started")
                if isinstance(message, Ready):
                    told[pipe] = message
        problem = next((ready.problem for ready in told.values() if ready.problem), "")
        if problem:
            raise Refused(f"the server refuses the cameras: {problem}")
        if not any(ready.connected for ready in told.values()):
            raise Unavailable(f"no server answers at {address}")
        if not any(ready.frames for ready in told.values()):
            raise InvalidInput("the scenario sends no frame")

    def watch(
        self, scenario: Scenario, start: float, stop: Flag | None, on_beat: Callable[[float, int, int], None]
    ) -> tuple[Ended, str, float]:
        """Hears them to their end: how it ended, why, and for how long frames were sent."""
        ended: Ended = "completed"
        error, seconds = "", scenario.seconds
        end = start + scenario.seconds + scenario.drain_seconds + _GATHER_SECONDS
        stopped = False
        while len(self._done) + len(self._dead) < len(self._pipes) and time.monotonic() < end:
            for pipe, message in self._hear():
                if isinstance(message, Beat):
                    self._beats[pipe] = message
                if isinstance(message, Beat) and message.seconds <= scenario.seconds:  # later ones go, as they should
                    self._tell_beat(message, on_beat)
            now = time.monotonic() - start
            if stopped or now >= scenario.seconds:
                continue
            problem = next((beat.problem for beat in self._beats.values() if beat.problem), "")
            if stop and stop.is_set():
                ended, error, seconds = "interrupted", f"interrupted after {now:.1f} s", now
            elif problem or self._lost_for(now) > scenario.give_up_seconds:
                reason = f"the server refuses the cameras: {problem}" if problem else "the server is gone"
                ended, error, seconds = "server_lost", f"{reason}: given up after {now:.1f} s", now
            if ended != "completed":
                stopped = True
                self.tell(Stop(seconds, drain=ended == "interrupted"))
                end = time.monotonic() + scenario.drain_seconds + _GATHER_SECONDS
        if ended == "completed":  # unless there was no time left to give up
            problem = next((done.problem for done in self._done.values() if done.problem), "")
            lost_for = lost_seconds([done.presence for done in self._done.values()], now=scenario.seconds)
            if problem:
                ended, error = "server_lost", f"the server refuses the cameras: {problem}"
            elif lost_for > 0:
                ended = "server_lost"
                error = f"the server is gone: nobody had a connection for the last {lost_for:.1f} s"
        return ended, error, seconds

    def _lost_for(self, now: float) -> float:
        alive = [pipe for pipe in self._pipes if pipe not in self._dead]
        beats = [self._beats[pipe] for pipe in alive if pipe in self._beats]
        return lost_seconds([beat.presence for beat in beats], now) if len(beats) == len(alive) else 0.0

    def _tell_beat(self, beat: Beat, on_beat: Callable[[float, int, int], None]) -> None:
        beats = self._beats.values()
        on_beat(beat.seconds, sum(one.rows for one in beats), sum(one.presence.open for one in beats))

    def _hear(self) -> list[tuple[Pipe, object]]:
        """What has been said in a moment; None of those that have died."""
        alive = [pipe for pipe in self._pipes if pipe not in self._done and pipe not in self._dead]
        heard: list[tuple[Pipe, object]] = []
        for pipe in wait(alive, timeout=0.1):
            assert isinstance(pipe, Pipe)
            try:
                message = pipe.recv()
            except (EOFError, OSError):
                message = None
                self._dead.add(pipe)
            if isinstance(message, Done):
                self._done[pipe] = message
            heard.append((pipe, message))
        return heard

    def close(self) -> None:
        for process, pipe in self._members:
            pipe.close()
            process.join(1.0)
            if process.is_alive():
                process.kill()
                process.join()
