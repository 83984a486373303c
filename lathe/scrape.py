"""Reads a server's metrics as Prometheus would."""

from __future__ import annotations

import http.client
import ssl
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from lathe.errors import Unavailable

TIMEOUT_SECONDS = 5.0

Samples = tuple[tuple[str, dict[str, str], float], ...]


@dataclass(frozen=True)
class Scrape:
    """All samples of one scrape: name, labels, value."""

    samples: Samples

    @cached_property
    def _by_name(self) -> dict[str, list[tuple[Mapping[str, str], float]]]:
        found: dict[str, list[tuple[Mapping[str, str], float]]] = defaultdict(list)
        for name, labels, value in self.samples:
            found[name].append((labels, value))
        return dict(found)

    def names(self) -> Iterable[str]:
        return self._by_name.keys()

    def series(self, name: str) -> Sequence[tuple[Mapping[str, str], float]]:
        """Labels and value of each series of that name."""
        return self._by_name.get(name, ())

    def total(self, name: str, **labels: str) -> float:
        """Sum over the series of that name that carry these labels; 0 where there are none."""
        return sum(value for own, value in self.series(name) if labels.items() <= own.items())

    def totals(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """The same for all values of some labels at once, as `sum by` does.

        >>> frames = (("frames", {"stream": name, "outcome": outcome}, 2.0) for name in "ab" for outcome in "xy")
        >>> Scrape(tuple(frames)).totals("frames", "stream")
        {('a',): 4.0, ('b',): 4.0}
        """
        found: dict[tuple[str, ...], float] = defaultdict(float)
        for own, value in self.series(name):
            found[tuple(own.get(label, "") for label in labels)] += value
        return dict(found)

    def has(self, name: str) -> bool:
        return name in self._by_name


def samples_of(families: Iterable[Metric]) -> Samples:
    """What a scrape of them holds: of a text that was parsed, or of a registry's `collect()`."""
    return tuple((sample.name, dict(sample.labels), sample.value) for family in families for sample in family.samples)


def scrape(address: str, tls: ssl.SSLContext | None = None) -> Scrape:
    """Fetches /metrics of HOST:PORT.

    Args:
        tls: how the server is known; None talks in plain text.

    Raises:
        Unavailable: nothing answers there, or it has no metrics.
    """
    url = f"{'https' if tls else 'http'}://{address}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS, context=tls) as response:
            text = response.read().decode()
        return Scrape(samples_of(text_string_to_metric_families(text)))
    except (OSError, http.client.HTTPException, ValueError) as error:  # no server, not HTTP, no text of metrics
        raise Unavailable(f"no metrics at {address}{_hint(error, tls)}", detail=str(error)) from error


def _hint(error: Exception, tls: ssl.SSLContext | None) -> str:
    if isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError):
        return ": its certificate is not one that LATHE_CA vouches for"
    if not tls and isinstance(error, http.client.HTTPException | ConnectionResetError):
        return ": what answers there is no HTTP; where it talks TLS, LATHE_CA has to name its root"
    return ""
