"""A proxy that passes TCP connections on and cuts them, as a load balancer may."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from typing import Any, Literal, Self

SECONDS = 10.0


class Proxy:
    """Stands before a server, on a thread of its own, while the context lasts.

    Args:
        delay_seconds: that everything takes on its way, each way.

    Attributes:
        address: where it listens.
        taken: how many connections it has passed on.
    """

    def __init__(self, server: str, delay_seconds: float = 0.0) -> None:
        self._delay_seconds = delay_seconds
        self._host, _, port = server.rpartition(":")
        self._port = int(port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._open: set[asyncio.StreamWriter] = set()
        self._silent: set[asyncio.StreamWriter] = set()
        self.taken = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._listening = self._run(asyncio.start_server(self._take, "127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self, how: Literal["reset", "close", "silence"]) -> None:
        """Ends the connections there are; or passes nothing on any more and says so to nobody."""
        self._run(self._cut(how))

    def close(self) -> None:
        """Ends the connections there are, and takes no more."""
        self._loop.call_soon_threadsafe(self._listening.close)
        self.cut("reset")

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(SECONDS)

    async def _cut(self, how: str) -> None:
        for writer in self._open:
            if how == "silence":
                self._silent.add(writer)
            elif how == "close":
                writer.close()
            elif not writer.is_closing():
                at_once = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
                writer.transport.abort()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream, downstream = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.close()
            return
        self.taken += 1
        self._open |= {writer, downstream}
        await asyncio.gather(self._pass_on(reader, downstream), self._pass_on(upstream, writer))
        self._open -= {writer, downstream}

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(2**16):
                if writer in self._silent:
                    continue
                if self._delay_seconds:
                    self._loop.call_later(self._delay_seconds, writer.write, data)
                else:
                    writer.write(data)
                    await writer.drain()
        self._loop.call_later(self._delay_seconds, writer.close)

    async def _end(self) -> None:
        if passing := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(passing, timeout=SECONDS)
