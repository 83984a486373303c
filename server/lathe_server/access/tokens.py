"""Bearer tokens: who has one, and what it is good for.

    [[tokens]]
    name = "gate-cameras"
    role = "infer"                      # or "gallery", which may also enrol; or "control", which may do everything
    sha256 = "…"                        # of the token; the token itself is kept nowhere
    expires = 2027-01-01T00:00:00Z      # this and what follows is optional
    max_streams = 50
    max_calls_per_second = 100

Tokens are random and long, so that one round of SHA-256 keeps them as safe as many would.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from lathe import config
from lathe.card import check_name
from lathe.errors import LatheError, NotFound, Unauthenticated

log = logging.getLogger(__name__)

Role = Literal["infer", "gallery", "control"]
ROLES: tuple[Role, ...] = ("infer", "gallery", "control")
"""Each may do what those before it may."""

PREFIX = "lathe_"
"""Of every token, so that one that leaks is recognised."""
LOOK_SECONDS = 1.0
"""Between two looks for a changed file."""
MAX_TOKEN = 512


@dataclass(frozen=True)
class Entry:
    """One token of the file.

    Attributes:
        name: of whoever has it.
        sha256: of the token, in hex.
        expires: it is good for nothing from then on; with a time zone.
        max_streams: that it may have open at once; 0 sets no limit, as for the next.
        max_calls_per_second: streams that are opened among them.
    """

    name: str
    role: Role
    sha256: str
    expires: datetime | None = None
    max_streams: int = 0
    max_calls_per_second: float = 0.0

    def __post_init__(self) -> None:
        check_name(self.name, "token")
        if len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef"):
            raise ValueError("sha256 must be 64 hex digits in lower case")
        if self.expires and self.expires.tzinfo is None:
            raise ValueError("expires must have a time zone, such as Z")
        if not (self.max_streams >= 0 and 0 <= self.max_calls_per_second < math.inf):
            raise ValueError("max_streams and max_calls_per_second must not be negative")


@dataclass(frozen=True)
class TokenFile:
    """The file's top level."""

    tokens: tuple[Entry, ...] = ()

    def __post_init__(self) -> None:
        if len({one.name for one in self.tokens}) < len(self.tokens):
            raise ValueError("each token has a name of its own")
        if len({one.sha256 for one in self.tokens}) < len(self.tokens):
            raise ValueError("no two names have the same token")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls."""

    name: str
    role: Role
    max_streams: int = 0
    max_calls_per_second: float = 0.0

    def may(self, role: Role) -> bool:
        return ROLES.index(self.role) >= ROLES.index(role)


def new_token() -> tuple[str, str]:
    """A fresh token, and the SHA-256 that goes into the file."""
    token = PREFIX + secrets.token_urlsafe(32)
    return token, digest(token)


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class Tokens:
    """Those of a file, which is read anew when it changes; safe for threads.

    Args:
        now: wall clock.

    Raises:
        LatheError: the file cannot be read, or is not as it should be. When it becomes so later, the tokens before go
            on being good, and the log says why.
    """

    def __init__(self, path: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._path = path
        self._now = now
        self._lock = threading.Lock()
        try:
            self._seen = self._mark()  # before it is read: what changes in between is seen at the next look
        except OSError as error:
            raise NotFound(f"the file of tokens {path.name} cannot be read", detail=str(error)) from error
        self._entries = config.load(TokenFile, path).tokens
        self._look_at = time.monotonic() + LOOK_SECONDS

    def identify(self, authorization: str) -> Identity:
        """Who a call's `authorization` says that it is.

        Raises:
            Unauthenticated: there is none, or it is not a token that is good now. Which of these is not told.
        """
        scheme, _, token = authorization.partition(" ")
        found: Entry | None = None
        token = token.strip()
        if scheme.lower() == "bearer" and 0 < len(token) <= MAX_TOKEN:
            told = digest(token)
            for one in self._current():  # all of them, so that the time tells nothing
                if hmac.compare_digest(one.sha256, told):
                    found = one
        if found is None or (found.expires and found.expires <= self._now()):
            raise Unauthenticated("a token is needed: authorization: Bearer …")
        return Identity(found.name, found.role, found.max_streams, found.max_calls_per_second)

    def _current(self) -> tuple[Entry, ...]:
        with self._lock:
            if time.monotonic() >= self._look_at:
                self._look_at = time.monotonic() + LOOK_SECONDS
                self._look()
            return self._entries

    def _look(self) -> None:
        try:
            if (mark := self._mark()) == self._seen:
                return
            self._entries, self._seen = config.load(TokenFile, self._path).tokens, mark
            log.info("%d tokens are good from now on", len(self._entries))
        except (LatheError, OSError, ValueError, OverflowError, RecursionError) as error:
            log.error("the file of tokens has changed and cannot be read; those before go on being good: %s", error)

    def _mark(self) -> tuple[int, int, int]:
        told = self._path.stat()
        return told.st_mtime_ns, told.st_size, told.st_ino
