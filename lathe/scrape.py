"""Reads a server's metrics as Prometheus would."""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass
from urllib.error import URLError

from prometheus_client.parser import text_string_to_metric_families

from lathe.errors import Unavailable

TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True)
class Scrape:
    """All samples of one scrape."""

    samples: tuple[tuple[str, dict[str, str], float], ...]

    def total(self, name: str, **labels: str) -> float:
        """Sum over the series of that name that carry these labels; 0 where there are none."""
        return sum(
            value for own, own_labels, value in self.samples if own == name and labels.items() <= own_labels.items()
        )

    def has(self, name: str) -> bool:
        return any(own == name for own, _, _ in self.samples)


def scrape(http: str) -> Scrape:
    """Fetches /metrics of HOST:PORT.

    Raises:
        Unavailable: nothing answers there.
    """
    try:
        with urllib.request.urlopen(f"http://{http}/metrics", timeout=TIMEOUT_SECONDS) as response:
            text = response.read().decode()
    except (URLError, TimeoutError) as error:
        raise Unavailable(f"no metrics at {http}") from error
    return Scrape(
        tuple(
            (sample.name, dict(sample.labels), sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        )
    )
