"""One camera's way to the server: it sends what is due, whatever the answers do, and notes what became of it.

Everything happens in callbacks on one event loop, and nothing here waits.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from lathe_loadtest.http2 import Connection
from lathe_loadtest.http2_call import Call
from lathe_loadtest.http2_frames import DEADLINE_EXCEEDED, OK, WIDE_WINDOW, request_headers
from lathe_loadtest.messages import Messages, outcome_of
from lathe_loadtest.notes import Notes
from lathe_loadtest.result import DISCONNECTED, LOST, UNFINISHED, UNSENT
from lathe_loadtest.schedule import CameraPlan

CONNECT_SECONDS = 5.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 1.0
NARROW_WINDOW = 1 << 15
"""Of a slow reader: some hundred answers, and room for the largest."""
DEADLINE_GRACE_SECONDS = 0.5
"""After a call's deadline, for the server to say so itself."""
PROGRESS_SECONDS = 2.0
"""A stream that was answered so recently is at work."""
_HOPELESS = {
    5: "NOT_FOUND",
    9: "FAILED_PRECONDITION",
    7: "PERMISSION_DENIED",
    12: "UNIMPLEMENTED",
    16: "UNAUTHENTICATED",
}
_HOPELESS_STREAM = {3: "INVALID_ARGUMENT", **_HOPELESS}
"""Statuses that another try would not change, of a call; and of a stream, where no frame's own error ends it."""


@dataclass(frozen=True)
class Peer:
    """Attributes:
    address: HOST:PORT of the inference port.
    """

    address: str
    tls: ssl.SSLContext | None = None
    token: str = ""

    @property
    def host_port(self) -> tuple[str, int]:
        host, _, port = self.address.rpartition(":")
        return host.strip("[]"), int(port)


class Link:
    """Attributes:
    connections: that were made.
    problem: why another try would not help, where the server has said so; empty otherwise.
    is_open: frames can be sent.
    attempts: to connect, since the last answer.
    """

    def __init__(
        self, plan: CameraPlan, messages: Messages, pictures: Sequence[bytes], first: int, peer: Peer, notes: Notes
    ) -> None:
        self.connections = 0
        self.problem = ""
        self.is_open = False
        self._plan = plan
        self._messages = messages
        self._pictures = pictures
        self._picture = first
        self._peer = peer
        self._notes = notes
        self._start = self._start_unix_ns = 0.0
        self._wanted = False
        self._connection: Connection | None = None
        self._call: Call | None = None
        self._owed: dict[int, Call] = {}  # rows without an outcome, in the order of sending
        self._waiting: deque[int] = deque()  # rows for which there is no room for another call
        self._unread: deque[tuple[Call, bytes]] = deque()  # of a slow reader
        self.attempts = 0
        self._has_answered = False
        self._last_answer = 0.0
        self._opened: asyncio.Future[None] | None = None
        self._connecting: asyncio.Task[None] | None = None
        metadata = [("authorization", f"Bearer {peer.token}")] if peer.token else []
        if not messages.is_stream:
            metadata.append(("grpc-timeout", f"{round(plan.cameras.deadline_seconds * 1e3)}m"))
        scheme = "https" if peer.tls else "http"
        self._headers = request_headers(messages.path, peer.address, metadata, scheme)

    def start(self, at: float, at_unix: float) -> None:
        """The run's beginning, by the monotonic clock and as Unix time."""
        self._start, self._start_unix_ns = at, at_unix * 1e9

    @property
    def is_settled(self) -> bool:
        return not self._owed and not self._waiting

    def open(self) -> None:
        """Connects, and connects again whenever the connection is lost, until it is closed."""
        self._wanted = True
        if not self._connection and not self._connecting:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())

    def due(self, row: int) -> None:
        """Sends a frame."""
        connection = self._connection
        picture = self._pictures[self._picture % len(self._pictures)]
        self._picture += 1
        if not self.is_open or connection is None:
            self._notes.settle(row, DISCONNECTED)
            return
        if self._call:
            self._owed[row] = self._call
            connection.send(self._call, self._request(row, picture), row)
        elif connection.has_room_for_call and not self._waiting:
            self._ask(connection, row, picture)
        else:
            self._waiting.append(row)

    def close(self) -> None:
        """Sends no more, and goes when all is answered."""
        self._wanted = False
        if self._call and self._connection:
            self._connection.half_close(self._call)
        elif self._connection and self.is_settled:
            self._connection.close()

    def cut(self) -> None:
        """The connection is gone without a word."""
        if self._connection:
            self._connection.abort()

    def sweep(self, now: float) -> None:
        """Gives up unary calls whose deadline is over and of which nothing was heard."""
        if self._messages.is_stream:
            return
        limit = now - self._start - self._plan.cameras.deadline_seconds - DEADLINE_GRACE_SECONDS
        for row, call in list(self._owed.items()):
            if self._notes.due[row] > limit:
                break
            self._settle(row, outcome_of(DEADLINE_EXCEEDED))
            if self._connection:
                self._connection.cancel(call)

    def end(self) -> None:
        """Whatever has no outcome now has been lost, was never sent, or would have needed more time."""
        self._wanted = self.is_open = False
        is_at_work = self._messages.is_stream and time.monotonic() - self._last_answer < PROGRESS_SECONDS
        self._leave_unread()
        unanswered = UNFINISHED if is_at_work else LOST
        for row in (*self._owed, *self._waiting):
            self._notes.settle(row, unanswered if self._notes.was_sent(row) else UNSENT)
        self._owed.clear()
        self._waiting.clear()
        if self._connecting:
            self._connecting.cancel()
        if self._connection:
            self._connection.abort()

    def on_sent(self, tag: int) -> None:
        if tag >= 0:
            self._notes.sent(tag)

    def on_message(self, call: Call, message: bytes) -> None:
        if not self._plan.cameras.read_seconds:
            self._read(call, message)
            return
        self._unread.append((call, message))
        if len(self._unread) == 1:
            asyncio.get_running_loop().call_later(self._plan.cameras.read_seconds, self._read_next)

    def on_end(self, call: Call, code: int, text: str) -> None:
        if call is self._call:
            self._call, self.is_open = None, False
            self._leave_unread()
            outcome = LOST if code == OK else DISCONNECTED
            for row in tuple(self._owed):
                self._settle(row, outcome)
            self._judge(_HOPELESS_STREAM, code, text)
            if self._connection:
                self._connection.close()
        elif call.tag in self._owed:
            self._settle(call.tag, outcome_of(code))
            self._judge(_HOPELESS, code, text)
        if self._waiting and self._connection:
            self._flush(self._connection)
        if not self._wanted and not self._messages.is_stream and self.is_settled and self._connection:
            self._connection.close()

    def on_closed(self, text: str) -> None:
        for row in (*self._owed, *self._waiting):
            self._settle(row, DISCONNECTED)
        self._waiting.clear()
        self._connection, self._call, self.is_open = None, None, False
        if self._opened and not self._opened.done():
            self._opened.set_exception(ConnectionResetError(text))
        if self._wanted and not self.problem and not self._connecting:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        """Tries until it is connected, or no longer wanted."""
        loop = asyncio.get_running_loop()
        host, port = self._peer.host_port
        window = NARROW_WINDOW if self._plan.cameras.read_seconds else WIDE_WINDOW
        while self._wanted:
            if self.attempts:  # not all cameras at once
                pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (self.attempts - 1))
                await asyncio.sleep(pause * random.uniform(0.5, 1))
            self.attempts += 1
            self._opened = opened = loop.create_future()
            connection = Connection(self, window=window, on_open=partial(_resolve, opened))
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    tls = self._peer.tls
                    made = partial(_same, connection)
                    await loop.create_connection(made, host, port, ssl=tls, server_hostname=host if tls else None)
                    self._connection = connection
                    await opened
            except (OSError, TimeoutError):
                connection.abort()
                self._connection = None
                continue
            self._connecting = None
            self._begin(connection)
            return
        self._connecting = None

    def _begin(self, connection: Connection) -> None:
        if not self._wanted or not connection.is_open:
            connection.close()
            return
        self.connections += 1
        self.is_open = True
        if self._messages.is_stream:
            self._call = connection.begin(self._headers)
            if self._messages.opening is not None:
                connection.send(self._call, [self._messages.opening], -1)

    def _request(self, row: int, picture: bytes) -> Sequence[bytes]:
        captured = int(self._start_unix_ns + self._notes.captured[row] * 1e9)
        return self._messages.request(row, captured, picture)

    def _ask(self, connection: Connection, row: int, picture: bytes) -> None:
        self._owed[row] = call = connection.begin(self._headers, row)
        connection.send(call, self._request(row, picture), row, is_last=True)

    def _flush(self, connection: Connection) -> None:
        while self._waiting and connection.has_room_for_call:
            row = self._waiting.popleft()
            self._ask(connection, row, self._pictures[row % len(self._pictures)])

    def _read_next(self) -> None:
        if not self._unread:
            return
        call, message = self._unread.popleft()
        self._read(call, message)
        if self._connection:
            self._connection.has_read(len(message) + 5, call)
        if self._unread:
            asyncio.get_running_loop().call_later(self._plan.cameras.read_seconds, self._read_next)

    def _leave_unread(self) -> None:
        """Answers that are here, and that a slow reader will not come to."""
        for call, message in self._unread:
            with suppress(ValueError):
                self._settle(self._messages.answer(message)[0] if call.tag < 0 else call.tag, UNFINISHED)
        self._unread.clear()

    def _read(self, call: Call, message: bytes) -> None:
        now = time.monotonic()
        try:
            index, outcome, variant = self._messages.answer(message)
        except ValueError:
            self.problem = self.problem or "the server's answers are not of the protocol"
            return
        row = index if call.tag < 0 else call.tag
        if row not in self._owed:
            return
        self._has_answered, self._last_answer = True, now
        self.attempts = 0
        del self._owed[row]
        self._notes.settle(row, outcome, variant, now - self._start - self._notes.due[row])

    def _settle(self, row: int, outcome: str) -> None:
        self._owed.pop(row, None)
        self._notes.settle(row, outcome)

    def _judge(self, hopeless: dict[int, str], code: int, text: str) -> None:
        if code in hopeless and not self._has_answered:
            self.problem = f"{hopeless[code]}: {text}" if text else hopeless[code]


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _same(connection: Connection) -> Connection:
    return connection
