"""As much of HTTP/2 as a camera needs that calls gRPC, at a fraction of what a whole client costs.

gRPC's own client spends 210 to 340 µs of CPU on a frame of 50 KB, most of it in its threads and their hand-overs; the
kernel's part is 35 to 50. Here one thread makes one write of a frame and one read of its answer. It also does what no
client library lets a test do: cut a connection without a word, or read as slowly as it likes.

Not there: priorities, pushes, compressed messages (none are asked for), and servers that are slow to take the preface.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from typing import cast
from urllib.parse import unquote

from hpack import Decoder
from hpack.exceptions import HPACKError

from lathe_loadtest.http2_call import Call, Caller
from lathe_loadtest.http2_frames import (
    ACK,
    CANCELLED,
    CONNECTION_LOST,
    CONTINUATION,
    DATA,
    DEFAULT_WINDOW,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADER,
    HEADERS,
    HTTP_STATUSES,
    INITIAL_WINDOW,
    INTERNAL,
    ITEM,
    LARGEST_FRAME,
    MAX_FRAME,
    MAX_STREAMS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    RESET_STATUSES,
    RST_STREAM,
    SETTINGS,
    TABLE_SIZE,
    UNKNOWN,
    WIDE_WINDOW,
    WINDOW_UPDATE,
    WORD,
    frame,
)
from lathe_loadtest.http2_pulse import Pulse


class Connection(asyncio.Protocol):
    """One connection.

    Args:
        window: bytes of answers that the server may be ahead of who reads them.
        on_open: the server has spoken.
    """

    def __init__(self, caller: Caller, *, window: int = WIDE_WINDOW, on_open: Callable[[], None]) -> None:
        self._caller = caller
        self._on_open: Callable[[], None] | None = on_open
        self._read_window = window
        self._transport: asyncio.Transport | None = None
        self._calls: dict[int, Call] = {}
        self._next_number = 1
        self._max_streams = 1 << 31
        self._window = self._initial_window = DEFAULT_WINDOW
        self._max_frame = 1 << 14
        self._blocked: dict[Call, None] = {}  # calls with unsent messages, the first one first
        self._buffer = b""
        self._block: tuple[int, int, bytes] | None = None  # headers that go on in the next frame
        self._known: dict[bytes, dict[str, str]] = {}
        self._decoder = Decoder()
        self._decoder.max_allowed_table_size = 0
        self._unread = 0
        self._pulse = Pulse()
        self._why = ""

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    @property
    def has_room_for_call(self) -> bool:
        return self.is_open and not self._why and len(self._calls) < self._max_streams

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        settings = {TABLE_SIZE: 0, ENABLE_PUSH: 0, INITIAL_WINDOW: self._read_window}
        body = b"".join(ITEM.pack(*one) for one in settings.items())
        widen = frame(WINDOW_UPDATE, 0, 0, WORD.pack(WIDE_WINDOW))
        transport.write(PREFACE + frame(SETTINGS, 0, 0, body) + widen)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        text = self._why or "the connection was lost"
        self._blocked.clear()
        for call in list(self._calls.values()):
            self._end(call, CONNECTION_LOST if call.status is None else call.status, call.text or text)
        self._caller.on_closed(text)

    def begin(self, headers: bytes, tag: int = -1) -> Call:
        """Opens a call."""
        assert self._transport
        call = Call(self._next_number, self._initial_window, tag)
        self._next_number += 2
        self._calls[call.number] = call
        self._transport.write(frame(HEADERS, END_HEADERS, call.number, headers))
        return call

    def send(self, call: Call, parts: Sequence[bytes | memoryview], tag: int, *, is_last: bool = False) -> None:
        """Sends a message, or keeps it until the server has room for it; `parts` together are the message."""
        size = sum(map(len, parts))
        whole = [memoryview(b"\0" + WORD.pack(size)), *(memoryview(part) for part in parts)]
        if call.unsent or not self._write(call, whole, is_last):
            call.unsent.append((whole, tag, is_last))
            self._blocked[call] = None
        else:
            self._caller.on_sent(tag)

    def half_close(self, call: Call) -> None:
        """No more messages on this call, after those that wait."""
        if call.unsent:
            if not call.unsent[-1][2]:
                call.unsent.append(([], -1, True))
        elif self._transport and call.code is None and not call.is_half_closed:
            call.is_half_closed = True
            self._transport.write(frame(DATA, END_STREAM, call.number))

    def cancel(self, call: Call) -> None:
        """Ends a call from this side."""
        if self._transport and call.code is None:
            self._transport.write(frame(RST_STREAM, 0, call.number, WORD.pack(8)))
            call.is_half_closed = True
            self._end(call, CANCELLED, "cancelled")

    def close(self) -> None:
        if self._transport:
            self._transport.close()

    def abort(self, why: str = "cut") -> None:
        """Cuts the connection without a word."""
        if self._transport:
            self._why = self._why or why
            self._transport.abort()

    def beat(self) -> None:
        """About once a second: asks a server that has long said nothing whether it is there, and gives it up."""
        todo = self._pulse.beat(is_owed=bool(self._calls))
        if todo == "gone":
            self.abort("the server says nothing any more")
        elif todo == "ask" and self._transport:
            self._transport.write(frame(PING, 0, 0, bytes(8)))

    def has_read(self, size: int, call: Call) -> None:
        """The caller is done with so many bytes: the server may send as many more."""
        if not self._transport:
            return
        self._unread += size
        call.unread += size
        if self._unread > WIDE_WINDOW // 2:
            self._transport.write(frame(WINDOW_UPDATE, 0, 0, WORD.pack(self._unread)))
            self._unread = 0
        if call.unread > self._read_window // 2 and call.code is None:
            self._transport.write(frame(WINDOW_UPDATE, 0, call.number, WORD.pack(call.unread)))
            call.unread = 0

    def _write(self, call: Call, parts: list[memoryview], is_last: bool) -> bool:
        """Writes as much of a message as there is room for; what is left stays in `parts`. False where some is."""
        assert self._transport
        if call.code is not None:
            return True
        out: list[bytes | memoryview] = []
        while parts:
            room = min(self._window, call.window, self._max_frame)
            if room <= 0:
                break
            chunk: list[memoryview] = []
            size = 0
            while parts and size < room:
                part = parts[0]
                if len(part) > room - size:
                    chunk.append(part[: room - size])
                    parts[0] = part[room - size :]
                    size = room
                else:
                    chunk.append(part)
                    size += len(part)
                    del parts[0]
            flags = END_STREAM if is_last and not parts else 0
            out.append(HEADER.pack(size >> 8, size & 0xFF, DATA, flags, call.number))
            out += chunk
            self._window -= size
            call.window -= size
        if out:
            self._transport.write(b"".join(out))
        if not parts and is_last:
            call.is_half_closed = True
            if not out:
                self._transport.write(frame(DATA, END_STREAM, call.number))
        return not parts

    def _go_on(self) -> None:
        """Sends what waits, in order, as far as there is room."""
        for call in tuple(self._blocked):
            while call.unsent and self._transport:
                parts, tag, is_last = call.unsent[0]
                if not self._write(call, parts, is_last):
                    break
                call.unsent.popleft()
                if tag >= 0 and call.code is None:
                    self._caller.on_sent(tag)
            if not call.unsent:
                self._blocked.pop(call, None)
            if self._window <= 0:
                return

    def data_received(self, data: bytes) -> None:
        self._pulse.was_heard = True
        if self._buffer:
            data = self._buffer + data
        at, end = 0, len(data)
        while end - at >= 9 and self._transport:
            high, low, kind, flags, number = HEADER.unpack_from(data, at)
            size = high << 8 | low
            stop = at + 9 + size
            if stop > end and size <= LARGEST_FRAME:
                break
            try:
                if size > LARGEST_FRAME:
                    raise ValueError("a frame is too large")
                self._on_frame(kind, flags, number & 0x7FFFFFFF, data[at + 9 : stop])
            except (struct.error, HPACKError, IndexError, ValueError, UnicodeDecodeError):
                self.abort("the server does not speak HTTP/2")
                return
            at = stop
        self._buffer = data[at:]

    def _on_frame(self, kind: int, flags: int, number: int, body: bytes) -> None:
        assert self._transport
        if self._on_open:
            if kind != SETTINGS:
                raise ValueError("the first frame is of settings")
            self._on_settings(flags, body)
            on_open, self._on_open = self._on_open, None
            on_open()
        elif kind == DATA:
            self._on_data(flags, number, body)
        elif kind == WINDOW_UPDATE:
            (more,) = WORD.unpack(body)
            if not number:
                self._window += more
            elif number in self._calls:
                self._calls[number].window += more
            self._go_on()
        elif kind in (HEADERS, CONTINUATION):
            self._on_headers(kind, flags, number, body)
        elif kind == RST_STREAM and number in self._calls:
            (reason,) = WORD.unpack(body)
            call = self._calls[number]
            code = RESET_STATUSES.get(reason, INTERNAL)
            call.is_half_closed = True  # as far as anybody listens
            self._end(call, code if call.status is None else call.status, f"the server has reset it ({reason})")
        elif kind == SETTINGS:
            self._on_settings(flags, body)
        elif kind == PING:
            if flags & ACK:
                self._pulse.was_answered = True
            else:
                self._transport.write(frame(PING, ACK, 0, body))
        elif kind == GOAWAY:
            last, _ = struct.unpack_from(">II", body)
            if not self._why:
                self._why = "the server goes away"
                self._caller.on_going_away()
            for call in [call for call in self._calls.values() if call.number > last]:
                self._end(call, CONNECTION_LOST, self._why)
            if not self._calls:
                self._transport.close()

    def _on_settings(self, flags: int, body: bytes) -> None:
        assert self._transport
        if flags & ACK:
            return
        for key, value in ITEM.iter_unpack(body):
            if key == INITIAL_WINDOW:
                for call in self._calls.values():
                    call.window += value - self._initial_window
                self._initial_window = value
            elif key == MAX_FRAME:
                self._max_frame = min(value, 1 << 20)
            elif key == MAX_STREAMS:
                self._max_streams = value
        self._transport.write(frame(SETTINGS, ACK, 0))
        self._go_on()
        self._caller.on_room()

    def _on_data(self, flags: int, number: int, body: bytes) -> None:
        call = self._calls.get(number)
        whole = len(body)
        if flags & PADDED:
            body = body[1 : whole - body[0]]
        if call is None:  # of a call that has ended here
            self._unread += whole
            return
        is_large = call.awaited > self._read_window
        if call.status is None:  # otherwise it is the page of a proxy
            for message in call.messages(body):
                self._caller.on_message(call, message)
        # A slow reader says when; but of a message that is larger than its window it could never have the end.
        if self._read_window == WIDE_WINDOW or is_large or call.awaited > self._read_window:
            self.has_read(whole, call)
        if flags & END_STREAM:
            if call.status is None:
                self._end(call, INTERNAL, "the call ended without a status")
            else:
                self._end(call, call.status, call.text)

    def _on_headers(self, kind: int, flags: int, number: int, body: bytes) -> None:
        if kind == CONTINUATION:
            if self._block is None:
                raise ValueError("nothing to go on with")
            number, first_flags, begun = self._block
            body, ends = begun + body, first_flags & END_STREAM
        else:
            if flags & PADDED:
                body = body[1 : len(body) - body[0]]
            if flags & PRIORITY:
                body = body[5:]
            ends = flags & END_STREAM
        if not flags & END_HEADERS:
            self._block = (number, ends, body)
            return
        self._block = None
        found = self._known.get(body)
        if found is None:
            found = {str(field[0]): str(field[1]) for field in self._decoder.decode(body)}
            if len(self._known) < 64:
                self._known[body] = found
        call = self._calls.get(number)
        if call is None:
            return
        http = found.get(":status", "200")
        if http != "200":
            call.status, call.text = HTTP_STATUSES.get(http, UNKNOWN), f"HTTP {http}"
        if "grpc-status" in found:
            call.status, call.text = int(found["grpc-status"]), unquote(found.get("grpc-message", ""))
        if ends:
            self._end(call, UNKNOWN if call.status is None else call.status, call.text)

    def _end(self, call: Call, code: int, text: str) -> None:
        self._calls.pop(call.number, None)
        if call.code is None:
            call.code = code
            call.unsent.clear()
            self._blocked.pop(call, None)
            if self._transport and not call.is_half_closed:
                self._transport.write(frame(RST_STREAM, 0, call.number, WORD.pack(0)))
            self._caller.on_end(call, code, text)
        if self._why and not self._calls and self._transport:
            self._transport.close()  # after a GOAWAY
