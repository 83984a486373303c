"""A call on a connection of HTTP/2, and who makes it."""

from __future__ import annotations

from collections import deque
from typing import Protocol


class Caller(Protocol):
    """Who makes calls. Nothing here waits, so nothing that it is told may."""

    def on_sent(self, tag: int) -> None:
        """A message is with the kernel."""

    def on_message(self, call: Call, message: bytes) -> None: ...

    def on_end(self, call: Call, code: int, text: str) -> None:
        """Once for each call, by its end or the connection's."""

    def on_closed(self, text: str) -> None:
        """The connection is gone; all its calls have ended."""


class Call:
    """Attributes:
    tag: whatever its caller wants to know of it.
    messages: that have come.
    code, text: its status; None while it goes on.
    unsent: messages for which the server has no room yet: what is left of each, its tag, whether it is the last.
    """

    __slots__ = (
        "buffer",
        "code",
        "is_half_closed",
        "messages",
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
        self.messages = 0
        self.buffer = b""
        self.unread = 0
        self.is_half_closed = False
        self.status: int | None = None
        self.text = ""
        self.code: int | None = None
        self.unsent: deque[tuple[list[memoryview], int, bool]] = deque()
