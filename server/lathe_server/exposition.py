"""The text that Prometheus scrapes: made once for all who ask at the same time, beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import thread_time

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

PLAIN, OPEN = "text/plain", "application/openmetrics-text"
_ACCEPTED = {PLAIN: "", OPEN: f"{OPEN};version=1.0.0"}
"""By format, what is asked of the library, which reads whatever versions clients make up."""


@dataclass(frozen=True, slots=True)
class Text:
    """Attributes:
    content_type: its format, by Prometheus' names.
    """

    content: bytes
    content_type: str


class Exposition:
    """On the event loop. However many ask, one text of a format is made at a time, and each gets one that was begun
    after he asked.

    Args:
        refresh: brings gauges up to date, before each text.
        made: told of the CPU time that one took.
    """

    def __init__(self, registry: CollectorRegistry, refresh: Callable[[], None], made: Callable[[float], None]) -> None:
        self._registry = registry
        self._refresh = refresh
        self._made = made
        self._in_hand = asyncio.Lock()
        self._next: dict[str, asyncio.Task[Text]] = {}  # by format, not begun

    async def text(self, accept: str) -> Text:
        """
        Args:
            accept: the header; traces are named as exemplars where OpenMetrics is taken.
        """
        form = OPEN if OPEN in accept.lower() else PLAIN
        task = self._next.get(form)
        if task is None:
            task = self._next[form] = asyncio.create_task(self._make(form))
        return await asyncio.shield(task)

    async def _make(self, form: str) -> Text:
        async with self._in_hand:
            del self._next[form]
            self._refresh()
            encode, content_type = choose_encoder(_ACCEPTED[form])
            content, cpu_seconds = await asyncio.to_thread(self._encoded, encode)
            self._made(cpu_seconds)
            return Text(content, content_type)

    def _encoded(self, encode: Callable[[CollectorRegistry], bytes]) -> tuple[bytes, float]:
        began = thread_time()
        return encode(self._registry), thread_time() - began
