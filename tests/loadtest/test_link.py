"""One camera and its connections, against a server that is played frame by frame."""

from __future__ import annotations

import asyncio
import errno
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from lathe.v1 import inference_pb2
from lathe_loadtest.http2_frames import (
    CANCELLED,
    DATA,
    DEADLINE_EXCEEDED,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADER,
    HEADERS,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WORD,
    frame,
)
from lathe_loadtest.link import Link
from lathe_loadtest.messages import OUTCOME_NUMBERS, messages_of
from lathe_loadtest.notes import Notes
from lathe_loadtest.scenario import Cameras, Protocol, Scenario
from lathe_loadtest.schedule import plans
from lathe_loadtest.way import Peer
from tests.loadtest.test_http2 import block, message, page, settings

WORDS = {number: word for word, number in OUTCOME_NUMBERS.items()}
PATIENCE_SECONDS = 30.0


class Visit:
    """One connection, at the server's end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.seen: list[tuple[int, int, int]] = []

    async def greet(self, **values: int) -> None:
        await self._reader.readexactly(len(PREFACE))
        self.write(settings(**values))

    def write(self, *frames: bytes) -> None:
        self._writer.write(b"".join(frames))

    async def until(self, kind: int, flags: int = 0) -> tuple[int, bytes]:
        """The next frame of a kind that has these flags: its stream, and what is in it."""
        while True:
            high, low, is_kind, is_flags, stream = HEADER.unpack(await self._reader.readexactly(9))
            body = await self._reader.readexactly(high << 8 | low)
            self.seen.append((is_kind, is_flags, stream))
            if is_kind == kind and is_flags & flags == flags:
                return stream, body

    async def to_the_end(self) -> None:
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await self.until(99)

    def answer(self, stream: int, *indexes: int) -> None:
        for index in indexes:
            result = inference_pb2.Result(index=index, outcome=inference_pb2.OUTCOME_ANSWERED)
            response = inference_pb2.DetectStreamResponse(result=result).SerializeToString()  # as of Detect, too
            self.write(frame(DATA, 0, stream, message(response)))

    def head(self, stream: int) -> None:
        self.write(frame(HEADERS, END_HEADERS, stream, page(200)))

    def end(self, stream: int, status: int = 0, text: str = "") -> None:
        self.write(frame(HEADERS, END_HEADERS | END_STREAM, stream, block(grpc_status=status, grpc_message=text)))


class Played:
    """A camera, of whose frames a test says when they are due, and the server's side of its connections."""

    def __init__(self, protocol: Protocol, port: int, visits: asyncio.Queue[Visit], **cameras: Any) -> None:
        kind = Cameras(fps=10.0, fps_spread=0.0, **cameras)
        scenario = Scenario("any", (kind,), protocol=protocol, seconds=2.0)
        plan = next(plans(scenario))
        self.notes = Notes([plan])
        address = f"127.0.0.1:{port}"
        pictures = [bytes([number]) for number in range(20)]
        messages = messages_of(scenario, kind, plan.name)
        self.link = Link(plan, messages, pictures, 0, Peer(address, address), self.notes)
        self.link.start(time.monotonic(), time.time())
        self._visits = visits

    async def visit(self, **values: int) -> Visit:
        """The next connection, when it is open."""
        visit = await self._visits.get()
        await visit.greet(**values)
        await self.until(lambda: self.link.is_open)
        return visit

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():  # noqa: ASYNC110  nothing tells
            await asyncio.sleep(0)

    def outcomes(self, count: int) -> list[str]:
        rows = self.notes.rows(0.0, count, [1], 0.0)
        return [WORDS.get(int(number), "") for number in rows.outcome]


@asynccontextmanager
async def played(protocol: Protocol = "stream", **cameras: Any) -> AsyncIterator[Played]:
    visits: asyncio.Queue[Visit] = asyncio.Queue()
    writers = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await visits.put(Visit(reader, writer))

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    found = Played(protocol, server.sockets[0].getsockname()[1], visits, **cameras)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            yield found
    finally:
        found.link.end()
        server.close()
        for writer in writers:
            writer.close()


def test_a_camera_comes_back_while_its_last_answers_are_on_their_way() -> None:
    async def play() -> None:
        async with played() as one:
            one.link.open()
            first = await one.visit()
            one.link.due(0)
            one.link.close()
            assert not one.link.is_open
            one.link.open()
            second = await one.visit()
            one.link.due(1)
            for visit, index in ((first, 0), (second, 1)):
                stream, _ = await visit.until(HEADERS)
                visit.head(stream)
                visit.answer(stream, index)
            await one.until(lambda: one.link.is_settled)
            assert one.outcomes(2) == ["answered", "answered"]
            one.link.close()
            one.link.close()
            for visit in (first, second):
                visit.end(1)
                await visit.to_the_end()
                assert [flags for kind, flags, _ in visit.seen if kind == DATA].count(END_STREAM) == 1
            assert one.link.connections == 2

    asyncio.run(play())


def test_a_unary_frame_goes_on_a_new_connection_when_the_server_closes_the_old_one() -> None:
    async def play() -> None:
        async with played("unary") as one:
            one.link.open()
            first = await one.visit()
            one.link.due(0)
            stream, _ = await first.until(HEADERS)
            first.write(frame(GOAWAY, 0, 0, struct.pack(">II", stream, 0)))
            await one.until(lambda: not one.link.is_open)
            one.link.due(1)
            second = await one.visit()
            one.link.due(2)
            for visit, count in ((second, 2), (first, 1)):
                for number in range(count):
                    await visit.until(DATA, END_STREAM)
                    visit.head(2 * number + 1)
                    visit.answer(2 * number + 1, 0)
                    visit.end(2 * number + 1)
            await one.until(lambda: one.link.is_settled)
            assert one.outcomes(3) == ["answered"] * 3
            await first.to_the_end()

    asyncio.run(play())


def test_unary_frames_wait_for_room_with_their_own_pictures() -> None:
    async def play() -> None:
        async with played("unary") as one:
            one.link.open()
            visit = await one.visit(streams=1)
            for row in range(3):
                one.link.due(row)
            for row in range(3):
                stream, body = await visit.until(DATA, END_STREAM)
                assert body[-1] == row  # the picture is the end of the message
                visit.head(stream)
                visit.answer(stream, 0)
                visit.end(stream)
            await one.until(lambda: one.link.is_settled)
            assert one.outcomes(3) == ["answered"] * 3

    asyncio.run(play())


@pytest.mark.parametrize(
    ("status", "outcome", "strange"),
    [
        (13, "failed", {"streams that the server has ended with an error: it broke": 1}),
        (14, "dropped_disconnected", {}),
        (0, "lost", {}),
    ],
)
def test_a_stream_that_the_server_ends(status: int, outcome: str, strange: dict[str, int]) -> None:
    async def play() -> None:
        async with played() as one:
            one.link.open()
            visit = await one.visit()
            for row in range(4):
                one.link.due(row)
            stream, _ = await visit.until(HEADERS)
            visit.head(stream)
            visit.answer(stream, 0, 2)
            visit.end(stream, status, "it broke")
            await one.until(lambda: one.link.is_settled)
            # Answers come in order: the one that was passed over would never have come.
            assert one.outcomes(4) == ["answered", "lost", "answered", outcome]
            assert one.link.strange == strange
            await one.visit()

    asyncio.run(play())


def test_answers_to_no_frame_are_counted() -> None:
    async def play() -> None:
        async with played() as one:
            one.link.open()
            visit = await one.visit()
            one.link.due(0)
            stream, _ = await visit.until(HEADERS)
            visit.head(stream)
            visit.answer(stream, 0, 0, 9)
            await one.until(lambda: one.link.strange.total() == 2)
            assert one.outcomes(1) == ["answered"]

    asyncio.run(play())


async def _answered_one_of_four(one: Played) -> None:
    one.link.open()
    visit = await one.visit()
    for row in range(4):
        one.link.due(row)
    stream, _ = await visit.until(HEADERS)
    visit.head(stream)
    visit.answer(stream, 1)
    await one.until(lambda: "answered" in one.outcomes(4))


@pytest.mark.parametrize(
    ("protocol", "progress_seconds", "outcomes"),
    [
        ("stream", 1000.0, ["lost", "answered", "dropped_unfinished", "dropped_unfinished"]),
        ("stream", 0.0, ["lost", "answered", "lost", "lost"]),
    ],
)
def test_what_is_lost_at_the_end_and_what_was_only_on_its_way(
    protocol: Protocol, progress_seconds: float, outcomes: list[str]
) -> None:
    async def play() -> None:
        async with played(protocol) as one:
            await _answered_one_of_four(one)
            one.link.end(progress_seconds)
            assert one.outcomes(4) == outcomes

    asyncio.run(play())


def test_frames_for_which_the_server_has_no_room_are_unsent() -> None:
    async def play() -> None:
        async with played() as one:
            one.link.open()
            await one.visit(window=0)
            one.link.due(0)
            one.link.end(1000.0)
            assert one.outcomes(1) == ["dropped_unsent"]

    asyncio.run(play())


def test_a_unary_frame_that_has_time_left_at_the_end_is_not_lost() -> None:
    async def play() -> None:
        async with played("unary", deadline_seconds=1000.0) as one:
            one.link.open()
            await one.visit()
            one.link.due(0)
            one.link.end()
            assert one.outcomes(1) == ["dropped_unfinished"]

    asyncio.run(play())


def test_a_unary_frame_of_which_nothing_is_heard_is_given_up_after_its_deadline() -> None:
    async def play() -> None:
        async with played("unary") as one:
            one.link.open()
            visit = await one.visit(streams=1)
            for row in range(2):  # the second one waits for room
                one.link.due(row)
            one.link.beat(time.monotonic() + 5.0)
            assert one.outcomes(2) == ["", ""]
            one.link.beat(time.monotonic() + 1000.0)
            assert one.outcomes(2) == ["dropped_deadline", "dropped_deadline"]
            stream, body = await visit.until(RST_STREAM)
            assert (stream, WORD.unpack(body)) == (1, (8,))

    asyncio.run(play())


@pytest.mark.parametrize(("status", "outcome"), [(8, "dropped_overloaded"), (DEADLINE_EXCEEDED, "dropped_deadline")])
def test_a_unary_call_that_ends_with_a_status(status: int, outcome: str) -> None:
    async def play() -> None:
        async with played("unary") as one:
            one.link.open()
            visit = await one.visit()
            one.link.due(0)
            stream, _ = await visit.until(HEADERS)
            visit.end(stream, status)
            await one.until(lambda: one.link.is_settled)
            assert one.outcomes(1) == [outcome]

    asyncio.run(play())


def test_a_camera_whose_server_is_gone_loses_what_was_under_way_and_comes_back() -> None:
    async def play() -> None:
        async with played("unary") as one:
            one.link.open()
            visit = await one.visit()
            one.link.due(0)
            one.link.cut()
            await visit.to_the_end()
            await one.until(lambda: not one.link.is_open)
            one.link.due(1)
            await one.visit()
            assert one.outcomes(2) == ["dropped_disconnected"] * 2
            assert one.link.connections == 2

    asyncio.run(play())


def test_a_slow_reader_rests_before_each_answer_and_leaves_the_others() -> None:
    async def play() -> None:
        async with played(read_seconds=0.001) as one:
            await _answered_one_of_four(one)
        async with played(read_seconds=1000.0) as one:
            one.link.open()
            visit = await one.visit()
            for row in range(3):
                one.link.due(row)
            stream, _ = await visit.until(HEADERS)
            visit.head(stream)
            visit.answer(stream, 0, 1)
            visit.end(stream, CANCELLED)
            await one.until(lambda: not one.link.is_open)
            assert one.outcomes(3) == ["dropped_unfinished", "dropped_unfinished", "dropped_disconnected"]

    asyncio.run(play())


def test_a_probe_connects_and_sends_nothing() -> None:
    async def play() -> None:
        async with played() as one:
            probing = asyncio.create_task(one.link.probe())
            visit = await one._visits.get()
            await visit.greet()
            assert await probing
            await visit.to_the_end()
            assert {kind for kind, *_ in visit.seen} <= {SETTINGS, 8}
            assert (one.link.connections, one.link.is_open) == (0, False)

    asyncio.run(play())


def connecting(monkeypatch: pytest.MonkeyPatch, connect: Callable[..., Awaitable[Any]]) -> None:
    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", connect)


def test_a_limit_of_the_drivers_machine_is_no_fault_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.EMFILE, "too many")

    async def play() -> None:
        async with played() as one:
            connecting(monkeypatch, fail)
            one.link.open()
            await one.until(lambda: bool(one.link.own_limit))
            assert one.link.own_limit == "Too many open files"

    asyncio.run(play())


def test_a_server_behind_a_proxy_must_show_its_own_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    async def refuse(_: Any, host: str, port: int, *, server_hostname: str | None, **__: Any) -> None:
        asked.append((host, port, server_hostname))
        raise ConnectionRefusedError

    async def play() -> None:
        async with played() as one:
            connecting(monkeypatch, refuse)
            tls = cast(ssl.SSLContext, object())
            one.link._peer = Peer("127.0.0.1:9", "[fd00::1]:8500", tls)
            assert not await one.link.probe()
            one.link._peer = Peer("127.0.0.1:9", "cam.example:8500")
            assert not await one.link.probe()

    asyncio.run(play())
    assert asked == [("127.0.0.1", 9, "fd00::1"), ("127.0.0.1", 9, None)]
