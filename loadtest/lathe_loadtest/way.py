"""One connection of a camera, and the frames on it: what is asked, what is owed, and what became of it.

A camera has one to send on. Others of it may still be there: those that it left, or that the server is about to close,
until all that was sent on them is answered.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from lathe_loadtest.http2 import Connection
from lathe_loadtest.http2_call import Call
from lathe_loadtest.http2_frames import DEADLINE_EXCEEDED, INTERNAL, OK, UNKNOWN, WIDE_WINDOW
from lathe_loadtest.messages import Messages, outcome_of
from lathe_loadtest.notes import Notes
from lathe_loadtest.result import DISCONNECTED, LOST, UNFINISHED, UNSENT
from lathe_loadtest.slow_reader import NARROW_WINDOW, SlowReader

CONNECT_SECONDS = 5.0
DEADLINE_GRACE_SECONDS = 0.5
"""After a call's deadline, for the server to say so itself."""
_FAILED = {UNKNOWN, INTERNAL, 15}
"""Statuses of a stream that say that the server did wrong, and not that it or the connection went away."""

Frame = tuple[int, Sequence[bytes]]
"""Its row, and the parts of its message."""


@dataclass(frozen=True)
class Peer:
    """Attributes:
    address: HOST:PORT to connect to.
    server: HOST:PORT of the server, by whose name it is asked for and shows its certificate; another where a proxy is
        between.
    """

    address: str
    server: str
    tls: ssl.SSLContext | None = None
    token: str = ""


class Owner(Protocol):
    """The camera.

    Attributes:
        problem: why another try would not help; empty as long as it may.
    """

    problem: str

    def on_answer(self) -> None:
        """A frame has its answer."""

    def on_status(self, code: int, text: str) -> None:
        """The server has ended a call."""

    def on_strange(self, what: str) -> None:
        """The server did something that none should."""

    def on_leaving(self, way: Way, waiting: Sequence[Frame]) -> None:
        """No frame can be sent on it any more; those that waited for room are handed back."""

    def on_closed(self, way: Way) -> None:
        """It is gone, and all its frames are settled."""


class Way:
    """Args:
    headers: of each call.
    deadline_seconds: of a unary call.
    read_seconds: a slow reader's rest; 0 reads at once.

    Attributes:
        start: of the run, by the monotonic clock; to be set before the first frame.
    """

    def __init__(
        self,
        owner: Owner,
        messages: Messages,
        notes: Notes,
        headers: bytes,
        *,
        deadline_seconds: float,
        read_seconds: float,
    ) -> None:
        self._owner = owner
        self._messages = messages
        self._notes = notes
        self._headers = headers
        self.start = 0.0
        self._deadline_seconds = deadline_seconds
        self._opened: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        window = NARROW_WINDOW if read_seconds else WIDE_WINDOW
        self._connection = Connection(self, window=window, on_open=partial(self._open, True))
        self._reader = SlowReader(read_seconds, self._connection, self._read) if read_seconds else None
        self._stream: Call | None = None
        self._owed: dict[int, Call] = {}  # rows without an outcome, in the order of sending
        self._waiting: deque[Frame] = deque()  # for which there is no room for another call
        self._is_finishing = False
        self._last_answer, self._last_row = 0.0, -1

    @property
    def is_open(self) -> bool:
        return self._connection.is_open

    @property
    def is_settled(self) -> bool:
        return not self._owed and not self._waiting

    async def open(self, peer: Peer) -> None:
        """Connects.

        Raises:
            OSError, TimeoutError: there is no server, or none that speaks HTTP/2.
        """
        host, port = _host_port(peer.address)
        name = _host_port(peer.server)[0] if peer.tls else None
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                loop = asyncio.get_running_loop()
                await loop.create_connection(lambda: self._connection, host, port, ssl=peer.tls, server_hostname=name)
                if not await self._opened:
                    raise ConnectionResetError("the server has closed the connection at once")
        except BaseException:
            self._connection.abort()
            raise

    def begin(self) -> None:
        """Opens the camera's stream, where it has one."""
        if self._messages.is_stream:
            self._stream = self._connection.begin(self._headers)
            if self._messages.opening is not None:
                self._connection.send(self._stream, [self._messages.opening], -1)

    def send(self, row: int, parts: Sequence[bytes]) -> None:
        if self._stream:
            self._owed[row] = self._stream
            self._connection.send(self._stream, parts, row)
        elif self._connection.has_room_for_call and not self._waiting:
            self._ask(row, parts)
        else:
            self._waiting.append((row, parts))

    def finish(self) -> None:
        """Takes no more, and goes when all is answered."""
        self._is_finishing = True
        if self._stream:
            self._connection.half_close(self._stream)
        else:
            self._go_on()

    def abort(self) -> None:
        """The connection is gone without a word."""
        self._connection.abort()

    def beat(self, now: float) -> None:
        """About once a second: gives up a server that is gone without a word, and unary calls whose deadline is over
        and of which nothing was heard."""
        self._connection.beat()
        self._expire(now)
        self._go_on()

    def end(self, progress_seconds: float) -> None:
        """Whatever has no outcome now has been lost, was never sent, or would have needed more time.

        Args:
            progress_seconds: a stream that was answered so recently is at work.
        """
        now = time.monotonic()
        self._expire(now)
        is_at_work = self._leave_unread() or not self._messages.is_stream or now - self._last_answer < progress_seconds
        for row in self._owed:
            if not self._notes.was_sent(row):
                self._notes.settle(row, UNSENT)
            else:
                self._notes.settle(row, UNFINISHED if is_at_work and not self._is_skipped(row) else LOST)
        for row, _ in self._waiting:
            self._notes.settle(row, UNSENT)
        self._owed.clear()
        self._waiting.clear()
        self._connection.abort()

    def on_sent(self, tag: int) -> None:
        if tag >= 0:
            self._notes.sent(tag)

    def on_message(self, call: Call, message: bytes) -> None:
        if self._reader:
            self._reader.take(call, message)
        else:
            self._read(call, message)

    def on_end(self, call: Call, code: int, text: str) -> None:
        if call is self._stream:
            self._stream = None
            self._leave_unread()
            outcome = LOST if code == OK else "failed" if code in _FAILED else DISCONNECTED
            for row in tuple(self._owed):
                self._settle(row, LOST if self._is_skipped(row) else outcome)
            if code in _FAILED:
                self._owner.on_strange(f"streams that the server has ended with an error: {text or code}")
            self._owner.on_status(code, text)
            self._owner.on_leaving(self, ())
            self._is_finishing = True
        elif call.tag in self._owed:
            self._settle(call.tag, outcome_of(code))
            self._owner.on_status(code, text)
        self._go_on()

    def on_room(self) -> None:
        self._go_on()

    def on_going_away(self) -> None:
        if not self._messages.is_stream:  # a stream is not moved, but ends, as gRPC's clients have it
            waiting = tuple(self._waiting)
            self._waiting.clear()
            self._owner.on_leaving(self, waiting)

    def on_closed(self, text: str) -> None:
        self._open(False)
        for row in (*self._owed, *(row for row, _ in self._waiting)):
            self._settle(row, DISCONNECTED)
        self._waiting.clear()
        self._leave_unread()
        self._owner.on_closed(self)

    def _open(self, is_open: bool) -> None:
        if not self._opened.done():
            self._opened.set_result(is_open)

    def _ask(self, row: int, parts: Sequence[bytes]) -> None:
        self._owed[row] = call = self._connection.begin(self._headers, row)
        self._connection.send(call, parts, row, is_last=True)

    def _go_on(self) -> None:
        while self._waiting and self._connection.has_room_for_call:
            self._ask(*self._waiting.popleft())
        if self._is_finishing and not self._stream and self.is_settled:
            self._connection.close()

    def _expire(self, now: float) -> None:
        if self._messages.is_stream:
            return
        limit = now - self.start - self._deadline_seconds
        late = outcome_of(DEADLINE_EXCEEDED)
        while self._waiting and self._notes.due[self._waiting[0][0]] <= limit:
            self._settle(self._waiting.popleft()[0], late)
        for row, call in list(self._owed.items()):
            if self._notes.due[row] > limit - DEADLINE_GRACE_SECONDS:
                break
            self._settle(row, late)
            self._connection.cancel(call)

    def _is_skipped(self, row: int) -> bool:
        """Whether a later frame has its answer: a stream's answers come in order."""
        return self._messages.is_stream and row < self._last_row

    def _leave_unread(self) -> bool:
        """Answers that are here, and that a slow reader will not come to; whether there are any."""
        left = self._reader.leave() if self._reader else []
        for _, message in left:
            with suppress(ValueError):
                row, _, _ = self._messages.answer(message)
                if row in self._owed:
                    self._settle(row, UNFINISHED)
        return bool(left)

    def _read(self, call: Call, message: bytes) -> None:
        now = time.monotonic()
        try:
            index, outcome, variant = self._messages.answer(message)
        except ValueError:
            self._owner.problem = self._owner.problem or "the server's answers are not of the protocol"
            return
        row = index if call.tag < 0 else call.tag
        if row not in self._owed:
            self._owner.on_strange("answers to no frame, or to one that had its answer")
            return
        self._last_answer, self._last_row = now, row
        self._owner.on_answer()
        del self._owed[row]
        self._notes.settle(row, outcome, variant, now - self.start - self._notes.due[row])

    def _settle(self, row: int, outcome: str) -> None:
        self._owed.pop(row, None)
        self._notes.settle(row, outcome)


def _host_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
