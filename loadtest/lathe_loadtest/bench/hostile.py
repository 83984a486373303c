"""Clients without manners beside cameras that have some: what the cameras feel of them, and what stays behind.

As a program (`python -m lathe_loadtest.bench.hostile KIND HOST:PORT PICTURE`) it is one such client: it says `go` once
it is at it, and is at it until it is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from grpc import aio

from lathe.errors import Unavailable
from lathe.scrape import scrape
from lathe.server_process import ServerProcess
from lathe.v1 import inference_pb2, inference_pb2_grpc
from lathe_loadtest.bench.rig import MODEL, STREAMS, Rig, latencies, play, unanswered
from lathe_loadtest.bench.scenarios import Figures, capacity_of, percentile_ms

STREAM = "lathe.v1.InferenceService/DetectStream"
OPENED = 10_000
"""Streams that are opened and cancelled in all rounds together, if these are long enough."""
MOST_A_SECOND = 500
IDLE = 1000
KILLED = 5
"""Clients that are killed in each round, one after the other."""
SETTLE_SECONDS, POLL_SECONDS, REST_SECONDS = 10.0, 0.1, 1.0


def hostile(rig: Rig, variant: str) -> Figures:
    """Half load, in turns alone and beside one kind of client."""
    figures: dict[str, float] = {"dropped": 0.0}
    with rig.server({variant: 1}, flags=("--max-streams", str(IDLE + 2 * STREAMS))) as server:
        cameras = rig.cameras(STREAMS, 0.5 * capacity_of(rig, server))
        asyncio.run(play(server, cameras, rig.seconds))
        before = _held(server)
        for kind in KINDS:
            opened = _opened(server)
            ratios = []
            for _ in range(rig.rounds):
                without = asyncio.run(play(server, cameras, rig.seconds))
                with _beside(rig, server, kind) as during:
                    beside = asyncio.run(_all(play(server, cameras, rig.seconds), during))
                ratios.append(percentile_ms(latencies(beside), 99) / percentile_ms(latencies(without), 99))
                _rested(server, lambda streams: not streams)
                figures["dropped"] += unanswered(beside)
            figures[f"{kind}_p99_ratio"] = median(ratios)
            figures[f"{kind}_streams"] = _opened(server) - opened - 2 * rig.rounds * STREAMS
        after = _settled(server, before)
    figures["memory_ratio"] = after[0] / before[0]
    figures["descriptors_gained"] = after[1] - before[1]
    return figures


async def _all(playing: Awaitable[Any], during: Callable[[], Awaitable[None]]) -> Any:
    played, _ = await asyncio.gather(playing, during())
    return played


@contextmanager
def _beside(rig: Rig, server: ServerProcess, kind: str) -> Iterator[Callable[[], Awaitable[None]]]:
    """Such a client, or several; what is given is to be awaited while they are there."""
    rate = min(OPENED / (rig.rounds * rig.seconds), MOST_A_SECOND)
    command = [sys.executable, "-m", __spec__.name, kind, server.grpc, str(rig.picture), str(rate)]
    with ExitStack() as running:
        clients = [running.enter_context(_client(command)) for _ in range(KILLED if kind == "killed" else 1)]
        for client in clients:
            assert client.stdout
            if client.stdout.readline() != "go\n":
                raise Unavailable(f"the client that is to be {kind} does not come to it")
        if kind == "idle":
            _rested(server, lambda streams: streams >= IDLE)

        async def during() -> None:
            if kind == "killed":
                for client in clients:
                    await asyncio.sleep(rig.seconds / (KILLED + 1))
                    assert client.stdin
                    assert client.stdout
                    client.stdin.write("\n")
                    client.stdin.flush()
                    await asyncio.to_thread(client.stdout.readline)
                    client.kill()

        yield during
        if kind != "killed" and clients[0].poll() is not None:
            raise Unavailable(f"the client that was to be {kind} has ended")


@contextmanager
def _client(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """It shares a core with who drives the cameras, and must not keep that from its work."""
    client = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: os.nice(19) and None
    )
    try:
        yield client
    finally:
        client.kill()
        client.wait()
        for pipe in (client.stdin, client.stdout):
            if pipe:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def _held(server: ServerProcess) -> tuple[float, float]:
    """Resident bytes and descriptors."""
    seen = scrape(server.http)
    return seen.total("process_resident_memory_bytes"), seen.total("process_open_fds")


def _opened(server: ServerProcess) -> float:
    """Streams that have ended."""
    return scrape(server.http).total("lathe_requests_total", method=STREAM)


def _rested(server: ServerProcess, is_so: Callable[[float], bool]) -> None:
    """What it takes to come to so many streams, or back, is not to be felt in what follows."""
    _poll(lambda: is_so(scrape(server.http).total("lathe_streams")))
    time.sleep(REST_SECONDS)


def _settled(server: ServerProcess, before: tuple[float, float]) -> tuple[float, float]:
    """What is held when the last of the connections are gone, or after a while."""
    _poll(lambda: _held(server)[1] <= before[1])
    return _held(server)


def _poll(is_so: Callable[[], bool]) -> None:
    """Until something is so, or for a while."""
    end = time.monotonic() + SETTLE_SECONDS
    while not is_so() and time.monotonic() < end:
        time.sleep(POLL_SECONDS)


_CONFIG = inference_pb2.DetectStreamRequest(config=inference_pb2.StreamConfig(model=MODEL))


async def _cancelled(stub: Any, picture: bytes, rate: float) -> None:
    """Opens a stream and goes; so many a second."""
    print("go", flush=True)
    began = time.monotonic()
    number = 0
    while True:
        call = stub.DetectStream()
        with contextlib.suppress(aio.AioRpcError, asyncio.InvalidStateError):  # it was not even taken
            await call.write(_CONFIG)
        call.cancel()
        number += 1
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))


async def _idle(stub: Any, picture: bytes, rate: float) -> None:
    """Holds streams open and says nothing."""
    calls = [stub.DetectStream() for _ in range(IDLE)]
    for call in calls:
        await call.write(_CONFIG)
    print("go", flush=True)
    await asyncio.Event().wait()


async def _deaf(stub: Any, picture: bytes, rate: float) -> None:
    """Sends as fast as it may and reads nothing; when it is thrown out it comes back."""
    print("go", flush=True)
    while True:
        call = stub.DetectStream()
        with contextlib.suppress(aio.AioRpcError, asyncio.InvalidStateError):
            await call.write(_CONFIG)
            for index in range(1 << 30):
                await call.write(_frame(index, picture))
        await asyncio.sleep(0.1)


async def _killed(stub: Any, picture: bytes, rate: float) -> None:
    """When it is told, sends a frame and says so: it dies before that is answered."""
    call = stub.DetectStream()
    await call.write(_CONFIG)
    print("go", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await call.write(_frame(0, picture))
    print("sent", flush=True)
    await asyncio.Event().wait()


def _frame(index: int, picture: bytes) -> inference_pb2.DetectStreamRequest:
    return inference_pb2.DetectStreamRequest(frame=inference_pb2.Frame(index=index, encoded=picture))


KINDS = {"cancelled": _cancelled, "idle": _idle, "deaf": _deaf, "killed": _killed}


async def _main(kind: str, address: str, picture: str, rate: str) -> None:
    content = await asyncio.to_thread(Path(picture).read_bytes)
    async with aio.insecure_channel(address) as channel:
        await KINDS[kind](inference_pb2_grpc.InferenceServiceStub(channel), content, float(rate))


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
