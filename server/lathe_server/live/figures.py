"""What the server's own metrics say of the last seconds; nothing is kept while nobody looks."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry

from lathe.overview import overview
from lathe.scrape import Scrape, samples_of

WINDOW_SECONDS = 5.0
"""Rates and percentiles are over so long, to twice that."""


class Figures:
    """One caller at a time; on any thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._before: list[tuple[float, Scrape]] = []  # at most two: where the window begins, and where the next will

    def look(self, now: float, unix_seconds: float) -> dict[str, Any] | None:
        """As `Overview.plain`; None at the first look, which has nothing to compare with.

        Args:
            now: seconds, monotonic.
        """
        scrape = Scrape(samples_of(self._registry.collect()))
        before, self._before = self._before, window(self._before, now, scrape)
        if not before or not now > before[0][0]:
            return None
        at, earlier = before[0]
        return overview(earlier, scrape, now - at, now=unix_seconds).plain()

    def forget(self) -> None:
        self._before = []


def window(before: list[tuple[float, Scrape]], now: float, scrape: Scrape) -> list[tuple[float, Scrape]]:
    """What the next look compares with.

    >>> empty, kept = Scrape(()), []
    >>> for now in range(12):
    ...     kept = window(kept, float(now), empty)
    >>> [at for at, _ in kept]
    [5.0, 10.0]
    """
    if before and now - before[-1][0] < WINDOW_SECONDS:
        return before
    return [*before[-1:], (now, scrape)]
