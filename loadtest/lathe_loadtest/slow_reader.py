"""A client that reads slowly: what has come waits, and the server gets no room for more until it is read."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from lathe_loadtest.http2 import Connection
from lathe_loadtest.http2_call import Call

NARROW_WINDOW = 1 << 15
"""Some hundred answers."""


class SlowReader:
    """Args:
    rest_seconds: before each answer.
    connection: has `NARROW_WINDOW`.
    read: told of each answer when it is read.
    """

    def __init__(self, rest_seconds: float, connection: Connection, read: Callable[[Call, bytes], None]) -> None:
        self._rest_seconds = rest_seconds
        self._connection = connection
        self._read = read
        self._unread: deque[tuple[Call, bytes]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def take(self, call: Call, message: bytes) -> None:
        self._unread.append((call, message))
        if not self._timer:
            self._rest()

    def leave(self) -> list[tuple[Call, bytes]]:
        """Reads no more; what it has not come to."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        left = list(self._unread)
        self._unread.clear()
        return left

    def _rest(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._rest_seconds, self._next)

    def _next(self) -> None:
        self._timer = None
        call, message = self._unread.popleft()
        self._read(call, message)
        if len(message) + 5 <= NARROW_WINDOW:  # for a larger one there was room as it came
            self._connection.has_read(len(message) + 5, call)
        if self._unread:
            self._rest()
