"""The HTTP port: metrics for Prometheus, whether the server lives and is ready, and what else is asked by HTTP.

HTTP/1.1 is h11's; here are its bytes, on the event loop that serves gRPC.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import h11

from lathe_server.access.tls import Tls
from lathe_server.exposition import Exposition

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 10.0
"""For a request without its body, for each part of the body, for the reply to be taken, and between two requests of one
connection."""
BODY_SECONDS = 60.0
"""For a whole body."""
LINGER_SECONDS, LINGER_READS = 0.5, 64
MAX_CONNECTIONS = 1100
MAX_API_REQUESTS = 1000
"""Of these, so that probes find room."""
MAX_HELD_BYTES = 256 << 20
"""Of bodies that are read or answered at the same time."""
READ_BYTES = WRITE_BYTES = 65_536


@dataclass(frozen=True)
class Request:
    """Attributes:
    path: without what is asked behind a question mark.
    headers: names in lower case.
    is_from_here: the caller is on this machine.
    has_certificate: it has shown one that the server's root vouches for.
    """

    method: str
    path: str
    headers: Mapping[bytes, bytes] = field(default_factory=dict, repr=False)  # there may be tokens among them
    body: bytes = field(default=b"", repr=False)
    is_from_here: bool = False
    has_certificate: bool = False


@dataclass(frozen=True)
class Reply:
    """Attributes:
    headers: beside those of the body's type and length.
    """

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Sequence[tuple[str, str]] = ()


class _Caller(NamedTuple):
    """Of all requests of one connection."""

    is_from_here: bool
    has_certificate: bool


Page = Callable[[Request], Awaitable[Reply]]


class Api(Protocol):
    """What answers below a path."""

    def admit(self, head: Request) -> Reply | None:
        """Looks at a request before its body comes; a reply turns it away."""

    async def answer(self, request: Request) -> Reply:
        """Raises nothing."""


def pages(exposition: Exposition, is_ready: Callable[[], bool]) -> dict[str, Page]:
    """/metrics, /healthz (the process lives) and /readyz (frames are taken)."""

    async def scrape(request: Request) -> Reply:
        text = await exposition.text(request.headers.get(b"accept", b"").decode("latin-1"))
        return Reply(200, text.content, text.content_type)

    async def live(request: Request) -> Reply:
        return Reply(200, b"ok\n")

    async def ready(request: Request) -> Reply:
        return Reply(200, b"ok\n") if is_ready() else Reply(503, b"not ready\n")

    return {"/metrics": scrape, "/healthz": live, "/readyz": ready}


class HttpServer:
    """Serves pages by their paths to whoever asks by GET or HEAD, and an API below a path.

    Args:
        pages: one whose path ends with a slash is for all paths right below it.
        prefix: of the API's paths; it takes any method, and requests with a body.
        max_body: of those, in bytes.
        tls: None talks in plain text. Where it asks callers for certificates, the API does; pages are for probes.
    """

    def __init__(
        self,
        pages: Mapping[str, Page],
        api: Api | None = None,
        prefix: str = "/",
        max_body: int = 0,
        tls: Tls | None = None,
    ) -> None:
        self._tls = tls
        self._pages = pages
        self._api = api
        self._prefix = prefix
        self._max_body = max_body
        self._connections: set[asyncio.Task[None]] = set()
        self._busy: set[asyncio.Task[None]] = set()  # those that owe a reply
        self._closing = False
        self._asked = 0  # requests of the API in hand
        self._held = 0  # bytes of their bodies

    async def start(self, host: str, port: int) -> int:
        """Opens the port and returns its number.

        Raises:
            OSError: the address cannot be opened.
        """
        self._server = await asyncio.start_server(
            self._accept,
            host,
            port,
            ssl=self._tls.http if self._tls else None,
            ssl_handshake_timeout=PATIENCE_SECONDS if self._tls else None,
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self, grace_seconds: float = 0.0) -> None:
        """Takes no more requests, and gives those in hand so long for their replies."""
        self._closing = True
        self._server.close()
        for connection in self._connections - self._busy:
            connection.cancel()
        if self._busy:
            await asyncio.wait(self._busy, timeout=grace_seconds)
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
        caller = _Caller(_is_loopback(writer.get_extra_info("peername")), bool(writer.get_extra_info("peercert")))
        task = asyncio.current_task()
        assert task
        try:
            while True:
                head = None
                try:
                    async with asyncio.timeout(PATIENCE_SECONDS):
                        head = await _next_head(connection, reader)
                    if head is None:
                        break
                    self._busy.add(task)
                    asked = Request(head.method.decode("latin-1"), _path(head), dict(head.headers), b"", *caller)
                    if refusal := self._turned_away(asked):
                        await _send(writer, _bytes_of(connection, None, refusal))
                        await _linger(reader)
                        break
                    with self._room(head) as room:
                        request = await room.whole(connection, reader, writer, head, caller)
                        reply = await self._reply(request)
                        await _send(writer, _bytes_of(connection, head, reply))
                except h11.RemoteProtocolError as error:
                    await _send(writer, _bytes_of(connection, None, Reply(error.error_status_hint)))
                    await _linger(reader)
                self._busy.discard(task)
                if self._closing or connection.states != {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
                    break
                connection.start_next_cycle()
            writer.close()
        except (TimeoutError, OSError):  # it is slow, or gone
            writer.transport.abort()
        except BaseException:
            writer.transport.abort()
            raise
        finally:
            self._busy.discard(task)

    @contextmanager
    def _room(self, head: h11.Request) -> Iterator[_Room]:
        """For one request.

        Raises:
            h11.RemoteProtocolError: there are as many as there may be.
        """
        if not self._is_for_api(_path(head)):
            yield _Room(0, lambda size: None)
            return
        if self._asked >= MAX_API_REQUESTS:
            raise h11.RemoteProtocolError("too many requests", error_status_hint=503)
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            if self._held + size > MAX_HELD_BYTES:
                raise h11.RemoteProtocolError("too many bodies", error_status_hint=503)
            held += size
            self._held += size

        self._asked += 1
        try:
            yield _Room(self._max_body, hold)
        finally:
            self._asked -= 1
            self._held -= held

    def _is_for_api(self, path: str) -> bool:
        return self._api is not None and (path == self._prefix or path.startswith(f"{self._prefix}/"))

    def _turned_away(self, head: Request) -> Reply | None:
        if not (self._api and self._is_for_api(head.path)):
            return None
        if self._tls and self._tls.asks_callers and not head.has_certificate:
            return Reply(403, b'{"error": "a certificate is asked for"}', "application/json")
        return self._api.admit(head)

    async def _reply(self, request: Request) -> Reply:
        if self._api and self._is_for_api(request.path):
            return await self._api.answer(request)
        if request.method not in ("GET", "HEAD"):
            return Reply(405, b"GET or HEAD only\n")
        page = self._pages.get(request.path) or self._pages.get(f"{request.path.rpartition('/')[0]}/")
        try:
            return await page(request) if page else Reply(404, b"no such page\n")
        except Exception:
            log.exception("a page failed")
            return Reply(500)


@dataclass(frozen=True)
class _Room:
    """What one request may bring.

    Attributes:
        most: bytes of its body.
        hold: told of each part of it, and refuses what is too much for all requests together.
    """

    most: int
    hold: Callable[[int], None]

    async def whole(
        self,
        connection: h11.Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        head: h11.Request,
        caller: _Caller,
    ) -> Request:
        """A request with its body.

        Raises:
            h11.RemoteProtocolError: the body is longer than it may be, or breaks the protocol.
            TimeoutError: it comes too slowly.
        """
        told = next((value for name, value in head.headers if name == b"content-length"), b"0")
        if int(told) > self.most:  # h11 has seen that it is a number
            raise h11.RemoteProtocolError("the body is too long", error_status_hint=413)
        parts, size = [], 0
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    if connection.they_are_waiting_for_100_continue and self.most:
                        writer.write(connection.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
                    async with asyncio.timeout(PATIENCE_SECONDS):
                        connection.receive_data(await reader.read(READ_BYTES))
                elif isinstance(event, h11.Data):
                    size += len(event.data)
                    if size > self.most:
                        raise h11.RemoteProtocolError("the body is too long", error_status_hint=413)
                    self.hold(len(event.data))
                    parts.append(bytes(event.data))
                else:
                    break
        return Request(head.method.decode("latin-1"), _path(head), dict(head.headers), b"".join(parts), *caller)


def _path(head: h11.Request) -> str:
    return head.target.partition(b"?")[0].decode("latin-1")


async def _linger(reader: asyncio.StreamReader) -> None:
    """Takes for a moment what still comes: a connection that is closed before is reset, and its last reply lost."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            for _ in range(LINGER_READS):
                if not await reader.read(READ_BYTES):
                    break


async def _send(writer: asyncio.StreamWriter, content: bytes) -> None:
    """
    Raises:
        TimeoutError: the client takes nothing for a while.
    """
    for place in range(0, len(content), WRITE_BYTES):
        writer.write(content[place : place + WRITE_BYTES])
        async with asyncio.timeout(PATIENCE_SECONDS):
            await writer.drain()


async def _next_head(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """The next request, its body not read yet; None where the client has no more.

    Raises:
        h11.RemoteProtocolError: it is none, or is too long.
    """
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(READ_BYTES))
        elif isinstance(event, h11.Request):
            return event
        else:
            return None


def _is_loopback(peer: object) -> bool:
    return isinstance(peer, tuple) and (str(peer[0]).startswith("127.") or peer[0] == "::1")


def _bytes_of(connection: h11.Connection, request: h11.Request | None, reply: Reply) -> bytes:
    headers = [("content-type", reply.content_type), ("content-length", str(len(reply.body))), *reply.headers]
    if request is None:  # it broke the protocol: what follows would be guesswork
        headers.append(("connection", "close"))
    body = b"" if request and request.method == b"HEAD" else reply.body
    events = [h11.Response(status_code=reply.status, headers=headers), h11.Data(body), h11.EndOfMessage()]
    return b"".join(connection.send(event) or b"" for event in events)
