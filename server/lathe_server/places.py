"""How many streams may be open at once, whatever they speak."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lathe.errors import Overloaded, Unavailable


class Place:
    """One open stream.

    Attributes:
        on_end: called when the server goes.
        ended: that has happened.
    """

    def __init__(self) -> None:
        self.on_end: Callable[[], object] = lambda: None
        self.ended = False


class Places:
    """Args:
    most: open at the same time; more are refused.
    is_draining: none is taken then.
    """

    def __init__(self, most: int, is_draining: Callable[[], bool]) -> None:
        self._most = most
        self._is_draining = is_draining
        self._taken: set[Place] = set()

    @property
    def open(self) -> int:
        return len(self._taken)

    @contextmanager
    def taken(self) -> Iterator[Place]:
        """
        Raises:
            Unavailable: the server is going.
            Overloaded: all are taken.
        """
        if self._is_draining():
            raise Unavailable("the server is shutting down")
        if len(self._taken) >= self._most:
            raise Overloaded(f"{self._most} streams are open; no more are taken")
        place = Place()
        self._taken.add(place)
        try:
            yield place
        finally:
            self._taken.discard(place)

    def end(self) -> None:
        """Tells every stream that the server goes."""
        for place in list(self._taken):
            place.ended = True
            place.on_end()
