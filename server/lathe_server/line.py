"""The order in which full slots get their turns: whoever had its last turn the longest ago, in two classes.

A stream that sends more than its share has always just had a turn, so it stands behind every stream that has not;
and as turns only become later, everybody comes to be the one who waits the longest.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from itertools import count
from typing import Generic, TypeVar

T = TypeVar("T")

HIGH_IN_A_ROW = 4
"""Turns that the higher class takes while the lower one waits; then the lower has one, so that nobody starves."""


class Line(Generic[T]):
    """
    >>> line = Line()
    >>> for last_turn, name in (2, "a"), (1, "b"): line.append(name, last_turn)
    >>> for name in "ABCDEF": line.append(name, 3, high=True)
    >>> "".join(line.pop() for _ in range(8))
    'ABCDbEFa'
    """

    def __init__(self) -> None:
        self._high: list[tuple[float, int, T]] = []
        self._normal: list[tuple[float, int, T]] = []
        self._number = count()  # of two with the same last turn the one that came first
        self._in_a_row = 0

    def __len__(self) -> int:
        return len(self._high) + len(self._normal)

    def __iter__(self) -> Iterator[T]:
        """In no order."""
        return (item for _, _, item in (*self._high, *self._normal))

    @property
    def high_is_next(self) -> bool:
        return bool(self._high) and not (self._normal and self._in_a_row >= HIGH_IN_A_ROW)

    @property
    def next(self) -> T:
        """Whose turn it is.

        Raises:
            IndexError: nobody waits.
        """
        return (self._high if self.high_is_next else self._normal)[0][2]

    def append(self, item: T, last_turn: float, *, high: bool = False) -> None:
        insort(self._high if high else self._normal, (last_turn, next(self._number), item))

    def pop(self) -> T:
        """Whose turn it is.

        Raises:
            IndexError: nobody waits.
        """
        if self.high_is_next:
            self._in_a_row = self._in_a_row + 1 if self._normal else 0
            return self._high.pop(0)[2]
        self._in_a_row = 0
        return self._normal.pop(0)[2]

    def remove(self, item: T) -> None:
        """Takes one out of the line.

        Raises:
            ValueError: it is not in it.
        """
        for line in (self._high, self._normal):
            for place, (_, _, own) in enumerate(line):
                if own is item:
                    del line[place]
                    return
        raise ValueError("it is not in the line")
