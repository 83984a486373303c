"""The server's own figures while a load test runs, from its /metrics."""

from __future__ import annotations

import ssl
import threading
import time
from contextlib import suppress

from lathe.errors import Unavailable
from lathe.scrape import Scrape, scrape
from lathe_loadtest.result import ServerReading

EVERY_SECONDS = 1.0


def reading(seen: Scrape, model: str, at_seconds: float) -> ServerReading:
    """What one scrape says; what the server does not tell is None."""
    costs = seen.totals("lathe_cost_usage_total", "currency")
    sources = sorted({name for (name,), joules in seen.totals("lathe_energy_joules_total", "source").items() if joules})
    outcomes = {
        outcome: value
        for (name, outcome), value in seen.totals("lathe_frames_total", "model", "outcome").items()
        if name == model and value
    }
    return ServerReading(
        at_seconds=at_seconds,
        cpu_seconds=_told(seen, "process_cpu_seconds_total"),
        resident_bytes=int(seen.total("process_resident_memory_bytes")),
        streams=int(seen.total("lathe_streams")),
        waiting_frames=int(seen.total("lathe_waiting_frames")),
        frames={outcome: int(value) for outcome, value in outcomes.items()},
        cost_usage=_told(seen, "lathe_cost_usage_total"),
        cost_allocation=_told(seen, "lathe_cost_allocation_total"),
        currency="+".join(sorted(name for (name,) in costs if name)),
        joules=_told(seen, "lathe_energy_joules_total"),
        energy_source="+".join(sources),
        workers=int(seen.total("lathe_workers")),
    )


def _told(seen: Scrape, name: str) -> float | None:
    return seen.total(name) if seen.has(name) else None


class Readings:
    """Reads once a second on a thread of its own, until it is closed. Seconds in which nothing answers are left out.

    Args:
        address: HOST:PORT of the HTTP port; empty reads nothing.
        start: by the monotonic clock.
    """

    def __init__(self, address: str, tls: ssl.SSLContext | None, model: str, start: float) -> None:
        self._address = address
        self._tls = tls
        self._model = model
        self._start = start
        self._found: list[ServerReading] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> tuple[ServerReading, ...]:
        """The last one is of the end."""
        self._is_over.set()
        self._thread.join()
        return tuple(self._found)

    def _run(self) -> None:
        if not self._address:
            return
        while True:
            with suppress(Unavailable):
                seen = scrape(self._address, self._tls)
                at = time.monotonic() - self._start
                self._found.append(reading(seen, self._model, max(0.0, at)))
            if self._is_over.is_set():
                return
            self._is_over.wait(EVERY_SECONDS - (time.monotonic() - self._start) % EVERY_SECONDS)
