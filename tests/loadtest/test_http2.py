"""HTTP/2 as the load test speaks it, against a server that is played frame by frame."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytest
from hpack import Encoder

from lathe_loadtest.http2 import Connection
from lathe_loadtest.http2_call import Call
from lathe_loadtest.http2_frames import (
    ACK,
    CONNECTION_LOST,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADER,
    HEADERS,
    INITIAL_WINDOW,
    ITEM,
    MAX_FRAME,
    MAX_STREAMS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WIDE_WINDOW,
    WINDOW_UPDATE,
    WORD,
    frame,
    request_headers,
)
from lathe_loadtest.http2_pulse import AGAIN_BEATS, ANSWER_BEATS, QUIET_BEATS

REQUEST = request_headers("/a/b", "server:1")


class Wire:
    """The transport, and the server at its other end."""

    def __init__(self) -> None:
        self.written = b""
        self.is_closed: bool = False
        self.is_aborted: bool = False

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.is_closed or self.is_aborted

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_aborted = True

    def frames(self) -> list[tuple[int, int, int, bytes]]:
        """What has been sent since it was last asked: kind, flags, stream and content of each."""
        return list(self._frames())

    def _frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        data, self.written = self.written.removeprefix(PREFACE), b""
        while data:
            high, low, kind, flags, stream = HEADER.unpack_from(data)
            end = 9 + (high << 8 | low)
            yield kind, flags, stream, data[9:end]
            data = data[end:]


class Camera:
    """Whose connection it is: remembers what it is told."""

    def __init__(self, window: int = WIDE_WINDOW) -> None:
        self.sent: list[int] = []
        self.messages: list[bytes] = []
        self.ended: list[tuple[int, int, str]] = []
        self.told: list[str] = []
        self.wire = Wire()
        self.connection = Connection(self, window=window, on_open=lambda: self.told.append("open"))
        self.connection.connection_made(cast(asyncio.Transport, self.wire))

    def on_sent(self, tag: int) -> None:
        self.sent.append(tag)

    def on_message(self, call: Call, message: bytes) -> None:
        self.messages.append(message)

    def on_end(self, call: Call, code: int, text: str) -> None:
        self.ended.append((call.tag, code, text))

    def on_room(self) -> None:
        self.told.append("room")

    def on_going_away(self) -> None:
        self.told.append("going away")

    def on_closed(self, text: str) -> None:
        self.told.append(text)

    def hear(self, *frames: bytes) -> None:
        self.connection.data_received(b"".join(frames))

    def call(self, tag: int = 7) -> Call:
        return self.connection.begin(REQUEST, tag)


def settings(**values: int) -> bytes:
    keys = {"window": INITIAL_WINDOW, "frame": MAX_FRAME, "streams": MAX_STREAMS}
    return frame(SETTINGS, 0, 0, b"".join(ITEM.pack(keys[name], value) for name, value in values.items()))


def block(**fields: Any) -> bytes:
    return encoded([(name.replace("_", "-"), str(value)) for name, value in fields.items()])


def page(status: int) -> bytes:
    return encoded([(":status", str(status))])


def encoded(fields: Sequence[tuple[str, str]]) -> bytes:
    encoder = Encoder()
    encoder.header_table_size = 0
    return bytes(encoder.encode(fields))


def message(content: bytes) -> bytes:
    return b"\0" + WORD.pack(len(content)) + content


def connected(window: int = WIDE_WINDOW, **values: int) -> Camera:
    camera = Camera(window)
    camera.hear(settings(**values))
    camera.wire.frames()
    return camera


def answer(call: Call, *contents: bytes) -> bytes:
    return frame(DATA, 0, call.number, b"".join(map(message, contents)))


def end(call: Call, status: int = 0, text: str = "") -> bytes:
    return frame(HEADERS, END_HEADERS | END_STREAM, call.number, block(grpc_status=status, grpc_message=text))


def test_a_connection_begins_with_settings_and_is_open_when_the_server_has_sent_its_own() -> None:
    camera = Camera()
    assert camera.wire.written.startswith(PREFACE)
    assert [kind for kind, *_ in camera.wire.frames()] == [SETTINGS, WINDOW_UPDATE]
    assert camera.told == []
    camera.hear(settings())
    assert camera.told[-1] == "open"
    assert camera.wire.frames() == [(SETTINGS, ACK, 0, b"")]


def test_a_call_with_two_messages_and_their_answers() -> None:
    camera = connected()
    call = camera.call()
    camera.connection.send(call, [b"one", b"two"], 1)
    camera.connection.send(call, [b"three"], 2, is_last=True)
    assert camera.wire.frames() == [
        (HEADERS, END_HEADERS, 1, REQUEST),
        (DATA, 0, 1, message(b"onetwo")),
        (DATA, END_STREAM, 1, message(b"three")),
    ]
    camera.hear(frame(HEADERS, END_HEADERS, 1, page(200)), answer(call, b"a", b"b"), end(call))
    assert (camera.sent, camera.messages, camera.ended) == ([1, 2], [b"a", b"b"], [(7, 0, "")])


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_frames_and_messages_may_come_in_pieces(size: int) -> None:
    camera = connected()
    call = camera.call()
    long = bytes(range(256)) * 3
    whole = message(b"short") + message(b"") + message(long)
    parts = [frame(DATA, 0, 1, whole[at : at + 300]) for at in range(0, len(whole), 300)]
    data = b"".join([frame(HEADERS, END_HEADERS, 1, page(200)), *parts, end(call)])
    for at in range(0, len(data), size):
        camera.hear(data[at : at + size])
    assert camera.messages == [b"short", b"", long]
    assert camera.ended == [(7, 0, "")]


def test_padding_priorities_and_headers_that_go_on() -> None:
    camera = connected()
    call = camera.call()
    head, tail = page(200), block(grpc_status=5, grpc_message="no%20model")
    camera.hear(
        frame(HEADERS, END_HEADERS | PADDED | PRIORITY, 1, b"\3" + bytes(5) + head + bytes(3)),
        frame(DATA, PADDED, 1, b"\4" + message(b"a") + bytes(4)),
        frame(HEADERS, END_STREAM, 1, tail[:4]),
        frame(CONTINUATION, 0, 1, tail[4:9]),
        frame(CONTINUATION, END_HEADERS, 1, tail[9:]),
    )
    assert camera.messages == [b"a"]
    assert camera.ended == [(call.tag, 5, "no model")]


def test_a_message_goes_as_far_as_there_is_room_and_counts_as_sent_when_all_of_it_has_gone() -> None:
    camera = connected(window=WIDE_WINDOW)
    camera.hear(settings(window=10))
    call = camera.call()
    camera.wire.frames()
    camera.connection.send(call, [bytes(20)], 1)
    camera.connection.send(call, [b"x"], 2)
    assert [len(body) for *_, body in camera.wire.frames()] == [10]
    camera.hear(frame(WINDOW_UPDATE, 0, 1, WORD.pack(10)))
    assert (camera.sent, [len(body) for *_, body in camera.wire.frames()]) == ([], [10])
    camera.hear(settings(window=16))  # six more for each call, of which the first message takes five
    assert camera.sent == [1]
    camera.hear(frame(WINDOW_UPDATE, 0, 1, WORD.pack(5)))
    assert camera.sent == [1, 2]
    assert b"".join(body for kind, *_, body in camera.wire.frames() if kind == DATA)[-6:] == message(b"x")


def test_the_window_of_the_connection_is_shared_and_frames_are_as_small_as_the_server_wants() -> None:
    camera = connected(window=WIDE_WINDOW, frame=20_000)
    calls = [camera.call(tag) for tag in (1, 2)]
    camera.hear(settings(window=1 << 20))
    camera.wire.frames()
    for call in calls:
        camera.connection.send(call, [bytes(50_000 - 5)], call.tag, is_last=True)
    sizes = [len(body) for kind, *_, body in camera.wire.frames()]
    assert sizes == [20_000, 20_000, 10_000, 15_535]
    camera.hear(frame(WINDOW_UPDATE, 0, 0, WORD.pack(1 << 20)))
    assert camera.sent == [1, 2]
    assert camera.wire.frames()[-1][:3] == (DATA, END_STREAM, 3)


def test_there_is_room_for_as_many_calls_as_the_server_takes() -> None:
    camera = connected(streams=0)
    room = [camera.connection.has_room_for_call]
    camera.told.clear()
    camera.hear(settings(streams=1))
    assert camera.told == ["room"]
    room.append(camera.connection.has_room_for_call)
    call = camera.call()
    room.append(camera.connection.has_room_for_call)
    camera.hear(end(call))
    room.append(camera.connection.has_room_for_call)
    assert room == [False, True, False, True]


def test_a_server_that_goes_away_ends_what_it_has_begun() -> None:
    camera = connected()
    first, _ = camera.call(1), camera.call(2)
    camera.hear(frame(GOAWAY, 0, 0, struct.pack(">II", first.number, 0)))
    assert camera.told[-1] == "going away"
    assert camera.ended == [(2, CONNECTION_LOST, "the server goes away")]
    assert not camera.connection.has_room_for_call
    camera.hear(frame(GOAWAY, 0, 0, struct.pack(">II", first.number, 0)), answer(first, b"a"), end(first))
    assert camera.told.count("going away") == 1
    assert (camera.messages, camera.ended[-1], camera.wire.is_closed) == ([b"a"], (1, 0, ""), True)


@pytest.mark.parametrize(("reason", "code"), [(0, 13), (2, 13), (7, 14), (8, 1), (11, 8), (12, 7)])
def test_a_call_that_is_reset_has_the_status_that_grpc_makes_of_the_reason(reason: int, code: int) -> None:
    camera = connected()
    call = camera.call()
    camera.hear(frame(RST_STREAM, 0, call.number, WORD.pack(reason)))
    assert camera.ended == [(7, code, f"the server has reset it ({reason})")]


@pytest.mark.parametrize(("status", "code"), [(503, 14), (404, 12), (400, 13), (418, 2)])
@pytest.mark.parametrize("has_body", [True, False])
def test_a_page_of_a_proxy_is_its_status_and_no_message(status: int, code: int, has_body: bool) -> None:
    camera = connected()
    call = camera.call()
    if has_body:
        body = [frame(DATA, 0, call.number, b"<html>sorry"), frame(DATA, END_STREAM, call.number, b"</html>")]
        camera.hear(frame(HEADERS, END_HEADERS, call.number, page(status)), *body)
    else:
        camera.hear(frame(HEADERS, END_HEADERS | END_STREAM, call.number, page(status)))
    assert (camera.messages, camera.ended) == ([], [(7, code, f"HTTP {status}")])


def test_a_call_that_ends_without_a_status() -> None:
    camera = connected()
    call = camera.call()
    camera.hear(frame(HEADERS, END_HEADERS, 1, page(200)), frame(DATA, END_STREAM, call.number, b""))
    assert camera.ended == [(7, 13, "the call ended without a status")]


@pytest.mark.parametrize(
    "said",
    [
        [frame(PING, 0, 0, bytes(8))],
        [b"HTTP/1.1 400 Bad Request\r\n\r\n"],
        [settings(), HEADER.pack(65, 0, DATA, 0, 1)],  # of 16 640 bytes
        [settings(), frame(CONTINUATION, END_HEADERS, 1, b"")],
        [settings(), frame(WINDOW_UPDATE, 0, 0, b"")],
    ],
)
def test_who_does_not_speak_http2_is_hung_up_on(said: Sequence[bytes]) -> None:
    camera = Camera()
    camera.hear(*said)
    assert camera.wire.is_aborted
    camera.connection.connection_lost(None)
    assert camera.told[-1] == "the server does not speak HTTP/2"


def test_a_ping_is_answered() -> None:
    camera = connected()
    camera.hear(frame(PING, 0, 0, b"abcdefgh"))
    assert camera.wire.frames() == [(PING, ACK, 0, b"abcdefgh")]


def asked_after(camera: Camera) -> int:
    """Beats until the server is asked whether it is there."""
    for beat in range(1, 100):
        camera.connection.beat()
        if any(kind == PING for kind, *_ in camera.wire.frames()):
            return beat
    raise AssertionError("it is never asked")


def test_a_server_that_says_nothing_is_asked_and_given_up_if_it_does_not_answer() -> None:
    camera = connected()
    camera.connection.beat()  # it has sent its settings since the last one
    for _ in range(20):
        camera.connection.beat()
    assert camera.wire.frames() == []  # it owes nothing
    camera.call()
    assert asked_after(camera) == QUIET_BEATS
    camera.hear(frame(PING, ACK, 0, bytes(8)))
    assert asked_after(camera) == 1 + AGAIN_BEATS
    camera.hear(frame(WINDOW_UPDATE, 0, 0, WORD.pack(1)))
    assert asked_after(camera) == 1 + QUIET_BEATS
    for _ in range(ANSWER_BEATS):
        assert not camera.wire.is_aborted
        camera.connection.beat()
    assert camera.wire.is_aborted
    camera.connection.connection_lost(None)
    assert camera.ended == [(7, CONNECTION_LOST, "the server says nothing any more")]


def test_a_call_is_half_closed_once() -> None:
    camera = connected()
    call = camera.call()
    camera.wire.frames()
    for _ in range(2):
        camera.connection.half_close(call)
    assert camera.wire.frames() == [(DATA, END_STREAM, call.number, b"")]


def test_a_call_is_half_closed_after_what_waits() -> None:
    camera = connected(window=WIDE_WINDOW)
    camera.hear(settings(window=0))
    call = camera.call()
    camera.wire.frames()
    camera.connection.send(call, [b"a"], 1)
    for _ in range(2):
        camera.connection.half_close(call)
    camera.hear(frame(WINDOW_UPDATE, 0, call.number, WORD.pack(100)))
    assert camera.wire.frames() == [(DATA, 0, 1, message(b"a")), (DATA, END_STREAM, 1, b"")]
    assert camera.sent == [1]


def test_a_narrow_window_opens_as_answers_are_read_and_for_one_that_is_larger_as_it_comes() -> None:
    camera = connected(window=1000)
    call = camera.call()
    camera.wire.frames()
    camera.hear(answer(call, bytes(600)))
    assert camera.wire.frames() == []
    camera.connection.has_read(605, call)
    assert camera.wire.frames() == [(WINDOW_UPDATE, 0, 1, WORD.pack(605))]
    large = message(bytes(2500))
    credit = 1000
    while large:
        assert credit > 0, "the server may not send the rest"
        part, large = large[: min(credit, 700)], large[min(credit, 700) :]
        camera.hear(frame(DATA, 0, call.number, part))
        credit -= len(part)
        credit += sum(WORD.unpack(body)[0] for kind, _, stream, body in camera.wire.frames() if stream)
    assert [len(one) for one in camera.messages] == [600, 2500]


def test_a_call_that_is_cancelled_is_reset_and_what_still_comes_for_it_is_passed_over() -> None:
    camera = connected()
    call = camera.call()
    camera.wire.frames()
    camera.connection.cancel(call)
    assert camera.wire.frames() == [(RST_STREAM, 0, call.number, WORD.pack(8))]
    camera.hear(answer(call, b"late"), end(call))
    assert (camera.messages, camera.ended) == ([], [(7, 1, "cancelled")])


def test_a_connection_that_is_lost_ends_its_calls() -> None:
    camera = connected()
    camera.call(1)
    call = camera.call(2)
    camera.hear(frame(HEADERS, END_HEADERS, call.number, block(grpc_status=14, grpc_message="draining")))
    camera.connection.connection_lost(None)
    assert camera.ended == [(1, CONNECTION_LOST, "the connection was lost"), (2, 14, "draining")]
    assert camera.told[-1] == "the connection was lost"
    assert not camera.connection.is_open
