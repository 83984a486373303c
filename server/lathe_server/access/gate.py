"""Who may come in, and how often: asked by every port before anything else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lathe.errors import LatheError, Overloaded, PermissionDenied
from lathe_server.access.tokens import Identity, Role, Tokens


class Gate:
    """
    Args:
        tokens: None lets everybody in who reaches a port, and those on this machine control it too.
        on_refusal: told of each, with the status.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        tokens: Tokens | None,
        on_refusal: Callable[[str], None] = lambda status: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tokens = tokens
        self._on_refusal = on_refusal
        self._clock = clock
        self._calls: dict[str, _Bucket] = {}
        self._streams: dict[str, int] = {}

    @property
    def asks_for_tokens(self) -> bool:
        return self._tokens is not None

    def admit(
        self, authorization: str, role: Role, *, is_here: bool = False, is_counted: bool = True
    ) -> Identity | None:
        """Who calls; None where no tokens are asked for.

        Args:
            authorization: the header.
            role: that the call needs.
            is_here: the caller is on this machine.
            is_counted: it is one of the calls that the identity may make in a second.

        Raises:
            Unauthenticated: no token that is good now.
            PermissionDenied: it is not good for this; or no tokens are asked for, and the caller is on another machine.
            Overloaded: its calls come faster than they may.
        """
        try:
            if self._tokens is None:
                if role != "infer" and not is_here:
                    raise PermissionDenied("this is for callers on the same machine, or with a token for it")
                return None
            identity = self._tokens.identify(authorization)
            if not identity.may(role):
                raise PermissionDenied(f"the token of {identity.name} is not good for this")
            if is_counted:
                self._count(identity)
        except LatheError as error:
            self._on_refusal(error.status)
            raise
        return identity

    def check_here(self, role: Role, *, is_here: bool) -> None:
        """For methods of the inference port that need another role: where tokens are asked for, `Admission` has looked
        at them.

        Raises:
            PermissionDenied: no tokens are asked for, and the caller is on another machine.
        """
        if self._tokens is None:
            self.admit("", role, is_here=is_here)

    def _count(self, identity: Identity) -> None:
        if identity.max_calls_per_second:
            bucket = self._calls.setdefault(identity.name, _Bucket(self._clock()))
            if not bucket.take(identity.max_calls_per_second, self._clock()):
                raise Overloaded(f"{identity.name} may make {identity.max_calls_per_second:g} calls a second")

    @contextmanager
    def stream(self, identity: Identity | None) -> Iterator[None]:
        """One of the streams that an identity may have open.

        Raises:
            Overloaded: all of them are.
        """
        if identity is None or not identity.max_streams:
            yield
            return
        if self._streams.get(identity.name, 0) >= identity.max_streams:
            self._on_refusal(Overloaded.status)
            raise Overloaded(f"{identity.name} may have {identity.max_streams} streams open")
        self._streams[identity.name] = self._streams.get(identity.name, 0) + 1
        try:
            yield
        finally:
            self._streams[identity.name] -= 1


class _Bucket:
    """A second's worth of calls, filled as time goes by.

    >>> bucket = _Bucket(0.0)
    >>> [bucket.take(2.0, now) for now in (0.0, 0.1, 0.2, 0.7, 0.8)]
    [True, True, False, True, False]
    """

    def __init__(self, now: float) -> None:
        self._left: float | None = None
        self._at = now

    def take(self, per_second: float, now: float) -> bool:
        most = max(1.0, per_second)
        left = most if self._left is None else min(most, self._left + (now - self._at) * per_second)
        self._at = now
        self._left = left - 1 if left >= 1 else left
        return left >= 1
