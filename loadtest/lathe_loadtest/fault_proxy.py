"""A proxy that passes TCP connections on as a bad network does, and cuts them as a load balancer may."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections import deque
from collections.abc import Coroutine
from typing import Any, Self

from lathe_loadtest.faults import CutHow, Faults, Lane, Line

SECONDS = 10.0
CHUNK_BYTES = 2**16

_Ends = tuple[asyncio.StreamWriter, asyncio.StreamWriter]


class Proxy:
    """Stands before a server, on a thread of its own, while the context lasts.

    The same seed draws the same faults; what they meet depends on when the connections send.

    Args:
        server: HOST:PORT of who is passed on to.
        delay_seconds: that everything takes on its way, each way, where there is no `faults`.
        faults: how connections are treated.

    Attributes:
        address: where it listens.
        taken: how many connections it has passed on.
        cuts: how many it has cut, by itself or because it was told to.
    """

    def __init__(self, server: str, delay_seconds: float = 0.0, *, faults: Faults | None = None) -> None:
        self._faults = faults or Faults(delay_seconds=delay_seconds)
        self._host, _, port = server.rpartition(":")
        self._port = int(port)
        self._random = random.Random(f"{self._faults.seed} cuts")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._open: dict[int, _Ends] = {}
        self._silent: set[asyncio.StreamWriter] = set()
        self.taken = self.cuts = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self, how: CutHow, share: float = 1.0) -> None:
        """Ends the connections there are; or passes nothing on any more and says so to nobody.

        Args:
            share: of them, drawn at random, at least one.
        """
        self._run(self._cut(how, share))

    def close(self) -> None:
        """Ends the connections there are, and takes no more."""
        self._loop.call_soon_threadsafe(self._listening.close)
        self.cut("reset")

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(SECONDS)

    async def _listen(self) -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        if self._faults.bytes_per_second:
            # Otherwise the kernel would hold megabytes more than a router does.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, CHUNK_BYTES)
        self._lines = tuple(Line(self._faults, self._loop.time(), name) for name in ("up", "down"))
        self._listening = await asyncio.start_server(self._take, sock=listening)
        self.address = f"127.0.0.1:{listening.getsockname()[1]}"
        self._cutting = asyncio.create_task(self._cut_at_random()) if self._faults.cuts_per_second else None

    async def _cut_at_random(self) -> None:
        while True:
            await asyncio.sleep(self._random.expovariate(self._faults.cuts_per_second))
            await self._cut(self._faults.cut_how, 0.0)

    async def _cut(self, how: CutHow, share: float) -> None:
        numbers = [
            number
            for number, (writer, _) in self._open.items()
            if not writer.is_closing() and (how != "silence" or writer not in self._silent)
        ]
        for number in self._random.sample(numbers, min(len(numbers), max(1, round(share * len(numbers))))):
            self.cuts += 1
            for writer in self._open[number]:
                self._cut_one(writer, how)

    def _cut_one(self, writer: asyncio.StreamWriter, how: CutHow) -> None:
        if how == "silence":
            self._silent.add(writer)
        elif how == "close":
            writer.close()
        elif not writer.is_closing():
            at_once = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
            writer.transport.abort()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # by `_end`; Python 3.11 would complain of it
            await self._pass_both(reader, writer)

    async def _pass_both(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream, downstream = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.close()
            return
        number = self.taken
        self.taken += 1
        self._open[number] = writer, downstream
        up, down = (
            Lane(self._faults, line, f"{name} {number}") for line, name in zip(self._lines, ("up", "down"), strict=True)
        )
        try:
            await asyncio.gather(self._pass_on(reader, downstream, up), self._pass_on(upstream, writer, down))
        finally:
            for one in (writer, downstream):
                if not one.is_closing():  # it was told nothing, or there is no time for more
                    one.transport.abort()
            self._silent -= {writer, downstream}
            del self._open[number]

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lane: Lane) -> None:
        way = _Way(self._faults.buffer_bytes)
        taking = asyncio.create_task(self._take_in(reader, writer, lane, way))
        with contextlib.suppress(OSError):
            while True:
                at, data = await way.next()
                if (wait := at - self._loop.time()) > 0:
                    await asyncio.sleep(wait)
                if not data:
                    break
                if writer not in self._silent:
                    writer.write(data)
                    await writer.drain()
        taking.cancel()
        if writer not in self._silent:
            writer.close()

    async def _take_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lane: Lane, way: _Way) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                if writer not in self._silent:
                    await way.put(lane.arrives(self._loop.time(), len(data)), data)
        await way.put(lane.arrives(self._loop.time(), 0), b"")

    async def _end(self) -> None:
        if self._cutting:
            self._cutting.cancel()
        passing = asyncio.all_tasks() - {asyncio.current_task()}
        for task in passing:
            task.cancel()
        await asyncio.gather(*passing, return_exceptions=True)


class _Way:
    """What is on its way in one direction, with when it arrives; holds back who puts more than it can hold."""

    def __init__(self, buffer_bytes: int) -> None:
        self._buffer_bytes = buffer_bytes
        self._chunks: deque[tuple[float, bytes]] = deque()
        self._bytes = 0
        self._changed = asyncio.Event()

    async def put(self, at: float, data: bytes) -> None:
        while self._bytes and self._bytes + len(data) > self._buffer_bytes:
            await self._change()
        self._chunks.append((at, data))
        self._bytes += len(data)
        self._changed.set()

    async def next(self) -> tuple[float, bytes]:
        while not self._chunks:
            await self._change()
        at, data = self._chunks.popleft()
        self._bytes -= len(data)
        self._changed.set()
        return at, data

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
