"""The HTTP port: metrics for Prometheus, and whether the server lives and is ready.

HTTP/1.1 is h11's; here are its bytes, on the event loop that serves gRPC.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import h11
from prometheus_client import CONTENT_TYPE_LATEST

from lathe_server.metrics import Metrics

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 10.0
"""For a whole request and its reply, and between two of one connection."""
MAX_CONNECTIONS = 100
READ_BYTES = 16_384


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


Page = Callable[[], Awaitable[Reply]]


def pages(metrics: Metrics, is_ready: Callable[[], bool], refresh: Callable[[], None]) -> dict[bytes, Page]:
    """/metrics, /healthz (the process lives) and /readyz (frames are taken).

    Args:
        refresh: brings gauges up to date before a scrape.
    """

    async def scrape() -> Reply:
        refresh()
        return Reply(200, await asyncio.to_thread(metrics.exposition), CONTENT_TYPE_LATEST)

    async def live() -> Reply:
        return Reply(200, b"ok\n")

    async def ready() -> Reply:
        return Reply(200, b"ok\n") if is_ready() else Reply(503, b"not ready\n")

    return {b"/metrics": scrape, b"/healthz": live, b"/readyz": ready}


class HttpServer:
    """Serves pages by their paths to whoever asks by GET or HEAD."""

    def __init__(self, pages: Mapping[bytes, Page]) -> None:
        self._pages = pages
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> int:
        """Opens the port and returns its number.

        Raises:
            OSError: the address cannot be opened.
        """
        self._server = await asyncio.start_server(self._accept, host, port)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            writer.close()
            return
        task = asyncio.create_task(self._talk(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER)
        try:
            while True:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    try:
                        request = await _next_request(connection, reader)
                        if request is None:
                            break
                        reply = await self._reply(request)
                    except h11.RemoteProtocolError as error:
                        request, reply = None, Reply(error.error_status_hint, b"")
                    writer.write(_bytes_of(connection, request, reply))
                    await writer.drain()
                if connection.states != {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
                    break
                connection.start_next_cycle()
        except (TimeoutError, OSError):  # it is slow, or gone
            pass
        finally:
            writer.close()

    async def _reply(self, request: h11.Request) -> Reply:
        if request.method not in (b"GET", b"HEAD"):
            return Reply(405, b"GET or HEAD only\n")
        page = self._pages.get(request.target.partition(b"?")[0])
        try:
            return await page() if page else Reply(404, b"no such page\n")
        except Exception:
            log.exception("a page failed")
            return Reply(500, b"")


async def _next_request(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """The next request once it is complete; None where the client has no more.

    Raises:
        h11.RemoteProtocolError: it is none, is too long, or has a body.
    """
    request: h11.Request | None = None
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(READ_BYTES))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.EndOfMessage):
            return request
        elif isinstance(event, h11.Data):
            raise h11.RemoteProtocolError("a body is not read", error_status_hint=413)
        else:
            return None


def _bytes_of(connection: h11.Connection, request: h11.Request | None, reply: Reply) -> bytes:
    headers = [("content-type", reply.content_type), ("content-length", str(len(reply.body)))]
    if request is None:  # it broke the protocol: what follows would be guesswork
        headers.append(("connection", "close"))
    body = b"" if request and request.method == b"HEAD" else reply.body
    events = [h11.Response(status_code=reply.status, headers=headers), h11.Data(body), h11.EndOfMessage()]
    return b"".join(connection.send(event) or b"" for event in events)
