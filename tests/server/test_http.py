"""The HTTP port under what comes in from a network."""

from __future__ import annotations

import asyncio
import http.client
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack

import pytest

from lathe_server.http import MAX_CONNECTIONS, HttpServer, Reply, Request
from tests.calls import eventually
from tests.conftest import RunningServer


@pytest.fixture
def connection(shared_server: RunningServer) -> Iterator[http.client.HTTPConnection]:
    opened = http.client.HTTPConnection(shared_server.http, timeout=10)
    yield opened
    opened.close()


def said(server: RunningServer, request: bytes) -> bytes:
    """All that comes back until the server closes."""
    host, _, port = server.http.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as opened:
        opened.sendall(request)
        opened.shutdown(socket.SHUT_WR)
        answer = b""
        while part := opened.recv(65536):
            answer += part
    return answer


def test_one_connection_asks_for_page_after_page(connection: http.client.HTTPConnection) -> None:
    for path, body in (("/healthz", b"ok\n"), ("/readyz", b"ok\n"), ("/healthz?verbose=1", b"ok\n")):
        connection.request("GET", path)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, body)
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    assert answer.getheader("content-type", "").startswith("text/plain; version=")
    assert b"lathe_streams" in answer.read()


def test_head_has_the_headers_alone(connection: http.client.HTTPConnection) -> None:
    connection.request("HEAD", "/healthz")
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("content-length"), answer.read()) == (200, "3", b"")
    connection.request("GET", "/healthz")
    assert connection.getresponse().read() == b"ok\n"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        pytest.param(b"GET /nothing HTTP/1.1\r\nhost: a\r\n\r\n", b"404", id="no such page"),
        pytest.param(b"DELETE /metrics HTTP/1.1\r\nhost: a\r\n\r\n", b"405", id="another method"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00 tls\r\n\r\n", b"400", id="TLS on a port of plain text"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"405", id="HTTP/2"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", b"400", id="no host"),
        pytest.param(b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"a" * 100_000, b"431", id="endless headers"),
        pytest.param(b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabcdefghi", b"413", id="a body"),
    ],
)
def test_what_is_no_request_is_told_so_and_hung_up_on(
    shared_server: RunningServer, request_bytes: bytes, status: bytes
) -> None:
    assert said(shared_server, request_bytes).split(b" ")[1] == status
    assert said(shared_server, b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").endswith(b"ok\n")


def test_silent_and_broken_connections_hold_up_nobody(
    shared_server: RunningServer, connection: http.client.HTTPConnection
) -> None:
    host, _, port = shared_server.http.rpartition(":")
    with ExitStack() as stack:
        for number in range(MAX_CONNECTIONS // 2):
            silent = stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
            silent.sendall(b"GET /metr"[: number % 9])
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b"ok\n"


def test_beyond_its_bound_a_connection_is_closed_at_once(server: RunningServer) -> None:
    host, _, port = server.http.rpartition(":")
    with ExitStack() as stack:
        opened = [
            stack.enter_context(socket.create_connection((host, int(port)), timeout=10)) for _ in range(MAX_CONNECTIONS)
        ]
        opened[-1].sendall(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
        assert opened[-1].recv(100).startswith(b"HTTP/1.1 200")
        one_more = stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
        assert one_more.recv(100) == b""


class Started:
    """A server of its own in this process, with an API that answers what it is given to answer."""

    def __init__(self, reply: Callable[[], Awaitable[Reply]]) -> None:
        async def live(request: Request) -> Reply:
            return Reply(200, b"ok\n")

        self._answer = reply
        self.http = HttpServer({"/healthz": live}, self, "/v2", 1000)

    def admit(self, head: Request) -> Reply | None:
        return Reply(401) if head.path == "/v2/no" else None

    async def answer(self, request: Request) -> Reply:
        return await self._answer()

    async def __aenter__(self) -> Started:
        self._port = await self.http.start("127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.close()

    async def said(self, request: bytes, *, read: bool = True) -> tuple[asyncio.StreamWriter, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1)
        writer.write(request)
        return writer, await reader.read(12) if read else b""


POST, GET = b"POST /v2/x HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n", b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n"


async def large() -> Reply:
    return Reply(200, bytes(50_000_000))


def test_a_reply_that_nobody_takes_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lathe_server.http.PATIENCE_SECONDS", 0.1)

    async def act() -> None:
        async with Started(large) as server:
            writer, _ = await server.said(POST + b"123456789", read=False)
            await eventually(lambda: server.http._connections)
            await eventually(lambda: not server.http._connections)
            assert server.http._held == server.http._asked == 0
            writer.close()

    asyncio.run(act())


def test_probes_find_room_while_the_api_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lathe_server.http.MAX_API_REQUESTS", 2)

    async def act() -> list[bytes]:
        async with Started(large) as server:
            slow = [await server.said(POST + b"1", read=False) for _ in range(2)]
            await eventually(lambda: server.http._asked == 2)
            heard = [(await server.said(request))[1] for request in (POST, GET)]
            for writer, _ in slow:
                writer.close()
            return heard

    assert asyncio.run(act()) == [b"HTTP/1.1 503", b"HTTP/1.1 200"]


def test_bodies_together_are_no_larger_than_they_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lathe_server.http.MAX_HELD_BYTES", 15)
    go = asyncio.Event()

    async def wait() -> Reply:
        await go.wait()
        return Reply(200)

    async def act() -> None:
        async with Started(wait) as server:
            first, _ = await server.said(POST + b"123456789", read=False)
            await eventually(lambda: server.http._held == 9)
            assert (await server.said(POST + b"123456789"))[1] == b"HTTP/1.1 503"
            go.set()
            await eventually(lambda: not server.http._held)
            first.close()

    asyncio.run(act())


def test_who_waits_for_a_reply_gets_it_before_the_port_closes() -> None:
    go = asyncio.Event()

    async def wait() -> Reply:
        await go.wait()
        return Reply(200)

    async def act() -> bytes:
        async with Started(wait) as server:
            asking = asyncio.create_task(server.said(POST + b"123456789"))
            await eventually(lambda: server.http._asked)
            closing = asyncio.create_task(server.http.close(10))
            await asyncio.sleep(0)
            go.set()
            await closing
            return (await asking)[1]

    assert asyncio.run(act()) == b"HTTP/1.1 200"


def test_who_is_turned_away_hears_it_before_the_body_has_come() -> None:
    async def act() -> bytes:
        async with Started(large) as server:
            return (await server.said(POST.replace(b"/x", b"/no")))[1]

    assert asyncio.run(act()) == b"HTTP/1.1 401"
