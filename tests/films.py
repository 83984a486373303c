"""Films for streams, and what became of their frames."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator

from lathe.exchange import Result


class Film:
    """Pictures until it is told to end, or so many.

    Attributes:
        drawn: how many were taken from it.
    """

    def __init__(self, picture: bytes = b"x", count: int = 10**6, fps: float = 0.0) -> None:
        self.drawn = 0
        self.has_ended = False
        self._picture = picture
        self._count = count
        self._fps = fps

    def __iter__(self) -> Iterator[tuple[bytes, float]]:
        while self.drawn < self._count and not self.has_ended:
            self.drawn += 1
            yield self._picture, time.time()
            if self._fps:
                time.sleep(1 / self._fps)

    async def __aiter__(self) -> AsyncIterator[tuple[bytes, float]]:
        while self.drawn < self._count and not self.has_ended:
            self.drawn += 1
            yield self._picture, time.time()
            await asyncio.sleep(1 / self._fps if self._fps else 0)


def is_complete(results: list[Result], film: Film) -> bool:
    """One result a frame, in order."""
    return [result.index for result in results] == list(range(film.drawn))


def outcomes(results: list[Result]) -> list[str]:
    """Each outcome once for each stretch of it."""
    return [outcome for outcome, _ in itertools.groupby(result.outcome for result in results)]
