"""Pictures that browsers have been told of, each encoded when the first one asks, and once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from lathe_server.live.cameras import Shot

KEPT_LOOKS = 3
"""Pictures of the last looks can be had: a browser asks for them after it was told."""
AT_ONCE = 2
"""Encoded at the same time, beside the frames that are judged."""


class Wall:
    """On the event loop only.

    Args:
        encode: a shot that has a picture as a JPEG file; blocking.
    """

    def __init__(self, encode: Callable[[Shot], bytes]) -> None:
        self._encode = encode
        self._looks: deque[dict[int, Shot]] = deque(maxlen=KEPT_LOOKS)
        self._encoded: dict[int, asyncio.Task[bytes | None]] = {}
        self._room = asyncio.Semaphore(AT_ONCE)

    def hang(self, shots: Iterable[Shot]) -> None:
        """From now on these can be had too; those of the oldest look cannot."""
        self._looks.append({shot.number: shot for shot in shots if shot.picture})
        for number in [number for number in self._encoded if self._shot(number) is None]:
            del self._encoded[number]

    async def jpeg(self, number: int) -> bytes | None:
        """None where there is no such picture any more."""
        shot = self._shot(number)
        if shot is None:
            return None
        if number not in self._encoded:
            self._encoded[number] = asyncio.create_task(self._made(shot))
        return await asyncio.shield(self._encoded[number])  # others wait for it, whoever goes

    async def _made(self, shot: Shot) -> bytes | None:
        async with self._room:
            if self._shot(shot.number) is None:  # it has waited too long
                return None
            return await asyncio.to_thread(self._encode, shot)

    def _shot(self, number: int) -> Shot | None:
        return next((look[number] for look in self._looks if number in look), None)

    def clear(self) -> None:
        self._looks.clear()
        self._encoded.clear()
