"""One camera's way to the server: it sends what is due, whatever the answers do, and connects again when it must.

Everything happens in callbacks on one event loop, and nothing here waits.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
import time
from collections import Counter, deque
from collections.abc import Sequence

from lathe_loadtest.http2_frames import request_headers
from lathe_loadtest.messages import Messages
from lathe_loadtest.notes import Notes
from lathe_loadtest.result import DISCONNECTED
from lathe_loadtest.schedule import CameraPlan
from lathe_loadtest.way import Frame, Peer, Way

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 1.0
_HOPELESS = {
    5: "NOT_FOUND",
    9: "FAILED_PRECONDITION",
    7: "PERMISSION_DENIED",
    12: "UNIMPLEMENTED",
    16: "UNAUTHENTICATED",
}
_HOPELESS_STREAM = {3: "INVALID_ARGUMENT", **_HOPELESS}
"""Statuses that another try would not change, of a call; and of a stream, where no frame's own error ends it."""
_OWN_LIMITS = {errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM}
"""Errors of connecting that are of this machine, and not of the server or the network."""


class Link:
    """Attributes:
    connections: that were made.
    problem: why another try would not help, where the server has said so; empty otherwise.
    is_wanted: it is to be connected.
    last_open: when it last was, by the monotonic clock; where it is, see `is_open`.
    attempts: to connect, since the last answer.
    own_limit: why this machine could not make a connection; empty where it could.
    strange: what the server did that none should, and how often.
    """

    def __init__(
        self, plan: CameraPlan, messages: Messages, pictures: Sequence[bytes], first: int, peer: Peer, notes: Notes
    ) -> None:
        self.connections = 0
        self.problem = self.own_limit = ""
        self.is_wanted = False
        self.last_open = 0.0
        self.attempts = 0
        self.strange: Counter[str] = Counter()
        self._plan = plan
        self._messages = messages
        self._pictures = pictures
        self._picture = first
        self._peer = peer
        self._notes = notes
        self._start = self._start_unix_ns = 0.0
        self._way: Way | None = None  # on which it sends
        self._left: set[Way] = set()  # where it still waits for answers
        self._held: deque[Frame] = deque()  # for a new way, as the server closes the old one
        self._is_moving = False
        self._has_answered = False
        self._connecting: asyncio.Task[None] | None = None
        metadata = [("authorization", f"Bearer {peer.token}")] if peer.token else []
        if not messages.is_stream:
            metadata.append(("grpc-timeout", f"{round(plan.cameras.deadline_seconds * 1e3)}m"))
        scheme = "https" if peer.tls else "http"
        self._headers = request_headers(messages.path, peer.server, metadata, scheme)

    def start(self, at: float, at_unix: float) -> None:
        """The run's beginning, by the monotonic clock and as Unix time."""
        self._start, self._start_unix_ns = at, at_unix * 1e9
        if self._way:
            self._way.start = at

    @property
    def is_open(self) -> bool:
        """Frames can be sent."""
        return self._way is not None

    @property
    def is_settled(self) -> bool:
        return not self._held and all(way.is_settled for way in self._ways)

    async def probe(self) -> bool:
        """Whether a server is there: connects once, and sends nothing."""
        way = self._new_way()
        try:
            await way.open(self._peer)
        except (OSError, TimeoutError):
            return False
        way.finish()
        return True

    def open(self) -> None:
        """Connects, and connects again whenever the connection is lost, until it is closed."""
        self.is_wanted = True
        self._connect()

    def due(self, row: int) -> None:
        """Sends a frame."""
        picture = self._pictures[self._picture % len(self._pictures)]
        self._picture += 1
        if self._way:
            self._way.send(row, self._request(row, picture))
        elif self._is_moving:
            self._held.append((row, self._request(row, picture)))
        else:
            self._notes.settle(row, DISCONNECTED)

    def close(self) -> None:
        """Sends no more, and goes when all is answered."""
        self.is_wanted = False
        self._drop_held()
        way = self._way
        if way:
            self._leave(way)
            way.finish()

    def cut(self) -> None:
        """The connection is gone without a word."""
        if self._way:
            self._way.abort()

    def beat(self, now: float) -> None:
        """See `Way.beat`."""
        for way in self._ways:
            way.beat(now)

    def end(self, progress_seconds: float = 0.0) -> None:
        """See `Way.end`."""
        self.is_wanted = False
        self._drop_held()
        if self._connecting:
            self._connecting.cancel()
        ways, self._way = self._ways, None
        for way in ways:
            way.end(progress_seconds)

    def on_answer(self) -> None:
        self._has_answered = True
        self.attempts = 0

    def on_status(self, code: int, text: str) -> None:
        hopeless = _HOPELESS_STREAM if self._messages.is_stream else _HOPELESS
        if code in hopeless and not self._has_answered:
            self.problem = f"{hopeless[code]}: {text}" if text else hopeless[code]

    def on_strange(self, what: str) -> None:
        self.strange[what] += 1

    def on_leaving(self, way: Way, waiting: Sequence[Frame]) -> None:
        if way is self._way:
            self._leave(way)
            self._is_moving = self.is_wanted and not self._messages.is_stream
            self._held += waiting
            self._connect()

    def on_closed(self, way: Way) -> None:
        if way is self._way:
            self._leave(way)
        self._left.discard(way)
        self._connect()

    @property
    def _ways(self) -> tuple[Way, ...]:
        return (*self._left, self._way) if self._way else tuple(self._left)

    def _leave(self, way: Way) -> None:
        self._way, self.last_open = None, time.monotonic()
        self._left.add(way)

    def _drop_held(self) -> None:
        """There is no other way for them."""
        self._is_moving = False
        for row, _ in self._held:
            self._notes.settle(row, DISCONNECTED)
        self._held.clear()

    def _connect(self) -> None:
        if self.is_wanted and not self.problem and not self._way and not self._connecting:
            self._connecting = asyncio.get_running_loop().create_task(self._try_to_connect())

    async def _try_to_connect(self) -> None:
        """Tries until it is connected, or no longer wanted."""
        while self.is_wanted and not self.problem:
            if self.attempts:  # not all cameras at once
                pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(self.attempts - 1, 9))
                await asyncio.sleep(pause * random.uniform(0.5, 1))
            self.attempts += 1
            way = self._new_way()
            try:
                await way.open(self._peer)
            except (OSError, TimeoutError) as error:
                if isinstance(error, OSError) and error.errno in _OWN_LIMITS:
                    self.own_limit = os.strerror(error.errno)
                self._drop_held()
                continue
            if self.is_wanted and way.is_open:
                self._connecting = None
                self._begin(way)
                return
            way.finish()
        self._connecting = None

    def _new_way(self) -> Way:
        cameras = self._plan.cameras
        return Way(
            self,
            self._messages,
            self._notes,
            self._headers,
            deadline_seconds=cameras.deadline_seconds,
            read_seconds=cameras.read_seconds,
        )

    def _begin(self, way: Way) -> None:
        self.connections += 1
        self._way, self._is_moving = way, False
        way.start = self._start
        way.begin()
        while self._held:
            way.send(*self._held.popleft())

    def _request(self, row: int, picture: bytes) -> Sequence[bytes]:
        captured = int(self._start_unix_ns + self._notes.captured[row] * 1e9)
        return self._messages.request(row, captured, picture)
