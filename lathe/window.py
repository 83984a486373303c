"""What a server's counters did between two scrapes, as `increase`, `rate` and `histogram_quantile` would say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from lathe.quantiles import bucket_quantile
from lathe.scrape import Scrape


class Window:
    """Increases of counters. Those of a server that began anew, and those that are new, count from 0.

    Args:
        seconds: between the scrapes, above 0.

    Attributes:
        after: the second scrape.
        has_restarted: the server began anew between them.
    """

    def __init__(self, before: Scrape, after: Scrape, seconds: float) -> None:
        if not seconds > 0:
            raise ValueError("there is no time between the scrapes")
        self.after = after
        self._seconds = seconds
        earlier = {_series(name, labels): value for name, labels, value in before.samples if _is_counter(name)}
        self._rises: dict[str, list[tuple[Mapping[str, str], float]]] = defaultdict(list)
        for name, labels, value in after.samples:
            if _is_counter(name):
                self._rises[name].append((labels, value - earlier.get(_series(name, labels), 0.0)))
        started = "process_start_time_seconds"
        self.has_restarted = (
            after.total(started) != before.total(started)
            if after.has(started) and before.has(started)
            else any(rise < 0 for rises in self._rises.values() for _, rise in rises)
        )

    def rises(self, name: str, *by: str) -> dict[tuple[str, ...], float]:
        """Sums of the increases, by the values of some labels."""
        found: dict[tuple[str, ...], float] = defaultdict(float)
        for labels, rise in self.after.series(name) if self.has_restarted else self._rises.get(name, ()):
            found[tuple(labels.get(label, "") for label in by)] += max(0.0, rise)
        return dict(found)

    def rate(self, name: str) -> float | None:
        """A second, of all series together; None where there is no such metric."""
        return self.rises(name).get((), 0.0) / self._seconds if self.after.has(name) else None

    def rates(self, name: str, *by: str) -> dict[tuple[str, ...], float]:
        """A second, by the values of some labels."""
        return {key: rise / self._seconds for key, rise in self.rises(name, *by).items()}

    def quantiles(self, share: float, histogram: str, *by: str) -> dict[tuple[str, ...], float | None]:
        """Of what was observed, by the values of some labels."""
        buckets: dict[tuple[str, ...], dict[float, float]] = defaultdict(dict)
        for (*key, end), rise in self.rises(f"{histogram}_bucket", *by, "le").items():
            buckets[tuple(key)][float(end)] = rise
        return {key: bucket_quantile(share, found) for key, found in buckets.items()}

    def gauge(self, name: str) -> float | None:
        """As it is at the second scrape; None where there is no such metric."""
        return self.after.total(name) if self.after.has(name) else None


def _is_counter(name: str) -> bool:
    return name.endswith(("_total", "_bucket", "_count", "_sum"))


def _series(name: str, labels: Mapping[str, str]) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())
