"""The order in which full slots get their turns: first in, first out, in two classes."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")

HIGH_IN_A_ROW = 4
"""Turns that the higher class takes while the lower one waits; then the lower has one, so that nobody starves."""


class Line(Generic[T]):
    """
    >>> line = Line()
    >>> for name in "ab": line.append(name)
    >>> for name in "ABCDEF": line.append(name, high=True)
    >>> "".join(line.popleft() for _ in range(8))
    'ABCDaEFb'
    """

    def __init__(self) -> None:
        self._high: deque[T] = deque()
        self._normal: deque[T] = deque()
        self._in_a_row = 0

    def __len__(self) -> int:
        return len(self._high) + len(self._normal)

    def append(self, item: T, *, high: bool = False) -> None:
        (self._high if high else self._normal).append(item)

    def popleft(self) -> T:
        """Whose turn it is.

        Raises:
            IndexError: nobody waits.
        """
        if self._high and not (self._normal and self._in_a_row >= HIGH_IN_A_ROW):
            self._in_a_row = self._in_a_row + 1 if self._normal else 0
            return self._high.popleft()
        self._in_a_row = 0
        return self._normal.popleft()

    def remove(self, item: T) -> None:
        """Takes one out of the line.

        Raises:
            ValueError: it is not in it.
        """
        (self._high if item in self._high else self._normal).remove(item)
