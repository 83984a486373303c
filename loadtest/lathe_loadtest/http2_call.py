"""A call on a connection of HTTP/2, and who makes it."""

from __future__ import annotations

from collections import deque
from typing import Protocol


class Caller(Protocol):
    """Who makes calls. Nothing here waits, so nothing that it is told may."""

    def on_sent(self, tag: int) -> None:
        """A message is written, as far as HTTP/2's windows are concerned."""

    def on_message(self, call: Call, message: bytes) -> None: ...

    def on_end(self, call: Call, code: int, text: str) -> None:
        """Once for each call, by its end or the connection's."""

    def on_room(self) -> None:
        """There may be room for more calls."""

    def on_going_away(self) -> None:
        """The server takes no more calls on this connection; those that it has may end."""

    def on_closed(self, text: str) -> None:
        """The connection is gone; all its calls have ended."""


class Call:
    """Attributes:
    tag: whatever its caller wants to know of it.
    code, text: its status; None while it goes on.
    awaited: bytes of the message that has come in part; 0 where there is none, or where that is not known yet.
    unsent: messages for which the server has no room yet: what is left of each, its tag, whether it is the last.
    """

    __slots__ = (
        "_part",
        "awaited",
        "code",
        "is_half_closed",
        "number",
        "status",
        "tag",
        "text",
        "unread",
        "unsent",
        "window",
    )

    def __init__(self, number: int, window: int, tag: int) -> None:
        self.number = number
        self.window = window
        self.tag = tag
        self._part = bytearray()
        self.awaited = 0
        self.unread = 0
        self.is_half_closed = False
        self.status: int | None = None
        self.text = ""
        self.code: int | None = None
        self.unsent: deque[tuple[list[memoryview], int, bool]] = deque()

    def messages(self, body: bytes) -> list[bytes]:
        """Those that are whole with what comes now."""
        if self._part:
            self._part += body
            if len(self._part) < max(5, self.awaited):
                return []
            body = bytes(self._part)
            self._part.clear()
        found = []
        at, end, size = 0, len(body), 0
        while end - at >= 5:
            size = 5 + int.from_bytes(body[at + 1 : at + 5])
            if end - at < size:
                break
            found.append(body[at + 5 : at + size])
            at, size = at + size, 0
        if at < end:
            self._part += body[at:]
        self.awaited = size
        return found
