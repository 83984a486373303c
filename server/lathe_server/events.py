"""What happened to the models: told to the log, to Prometheus, to the journal, and to whoever watches."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable

from lathe.repository import VariantRef
from lathe.v1 import control_pb2
from lathe_server.facts import of_variant
from lathe_server.metrics import Metrics
from lathe_server.route_message import to_name

log = logging.getLogger(__name__)

KEPT = 100
"""Events that a new watcher is told first."""
MOST_UNREAD = 1000
"""A watcher that leaves more of them unread is let go."""

Kind = control_pb2.EventKind


class Events:
    """The newest events, and those who want to hear of the next; on the event loop only.

    Args:
        write_down: keeps an event; returns at once.
    """

    def __init__(self, metrics: Metrics, write_down: Callable[[control_pb2.Event], None] = lambda event: None) -> None:
        self._metrics = metrics
        self._write_down = write_down
        self._kept: deque[control_pb2.Event] = deque(maxlen=KEPT)
        self._watchers: set[asyncio.Queue[control_pb2.Event | None]] = set()

    def tell(
        self,
        kind: Kind.ValueType,
        model: str,
        text: str,
        *,
        revision: int = 0,
        experiment: str = "",
        variant: VariantRef | None = None,
    ) -> None:
        """Args:
        model: one that is served, because it becomes a label.
        text: one line; without paths, because it is sent.
        """
        event = control_pb2.Event(kind=kind, model=model, text=text, revision=revision, experiment=experiment)
        if variant:
            event.variant.CopyFrom(to_name(variant))
        event.at.GetCurrentTime()
        word = Kind.Name(kind).removeprefix("EVENT_KIND_").lower()
        facts = {"model": model, **of_variant(variant), "revision": revision, "experiment": experiment}
        log.info("%s: %s", word, text, extra={name: fact for name, fact in facts.items() if fact})
        self._metrics.happened(model, word, event.at.ToNanoseconds() / 1e9)
        self._write_down(event)
        self._kept.append(event)
        for queue in list(self._watchers):
            if queue.qsize() < MOST_UNREAD:
                queue.put_nowait(event)
            else:
                self._watchers.discard(queue)
                queue.put_nowait(None)

    def newest(self, most: int) -> list[control_pb2.Event]:
        """In the order in which they happened."""
        return list(self._kept)[-most:]

    async def watch(self, model: str) -> AsyncGenerator[control_pb2.Event, None]:
        """The newest events, then each as it happens, until the server goes or the watcher falls behind.

        Args:
            model: whose; empty for all.
        """
        queue: asyncio.Queue[control_pb2.Event | None] = asyncio.Queue()
        for event in self._kept:
            queue.put_nowait(event)
        self._watchers.add(queue)
        try:
            while event_or_end := await queue.get():
                if model in ("", event_or_end.model):
                    yield event_or_end
        finally:
            self._watchers.discard(queue)

    def close(self) -> None:
        """Lets all watchers go."""
        for queue in self._watchers:
            queue.put_nowait(None)
