"""What Prometheus is told of variants: the state each is in, how long it took to get there, what it is, and what its
card says of it."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from lathe.card import enum_word
from lathe.repository import VariantRef
from lathe.v1 import card_pb2
from lathe_server.lifecycle import STATES, State

VARIANT = ("model", "variant", "version")
PHASES: tuple[State, ...] = ("loading", "checking", "warming", "draining")
"""States that take a swap's time."""
_LOADING = PHASES[:3]
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


def labels_of(ref: VariantRef | None) -> tuple[str, str, str]:
    """By `VARIANT`. What belongs to no variant (frames for a model that is not served, or a pipeline's as a whole)
    counts under empty labels."""
    return (ref.model, ref.variant, str(ref.version or "")) if ref else ("", "", "")


class VariantMetrics:
    """On the event loop only."""

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._state = Gauge(
            "lathe_variant_state",
            "1 for the state that a variant is in, of those on its way into memory and out of it",
            (*VARIANT, "state"),
            registry=registry,
        )
        self._phase = Histogram(
            "lathe_swap_phase_seconds",
            "Time that variants spent on their way into memory and out of it",
            ("model", "phase"),
            buckets=_BUCKETS,
            registry=registry,
        )
        self._failures = Counter(
            "lathe_load_failures_total",
            "Variants that were refused, by how far they had come",
            ("model", "phase"),
            registry=registry,
        )
        self._info = Gauge(
            "lathe_variant_info",
            "1 while a variant is in memory: what it is, and what runs it",
            (*VARIANT, "sha256", "precision", "sparsity", "opset", "engine"),
            registry=registry,
        )
        self._size = Gauge("lathe_variant_size_bytes", "Of its file, while it is in memory", VARIANT, registry=registry)
        self._speedup = Gauge(
            "lathe_variant_speedup",
            "Speed of its network against that of the variant it was made from, as its card says",
            VARIANT,
            registry=registry,
        )
        self._quality = Gauge(
            "lathe_variant_quality",
            "Quality as its card says, while it is in memory",
            (*VARIANT, "metric", "data"),
            registry=registry,
        )
        self._since: dict[VariantRef, tuple[State, float]] = {}
        self._told: dict[VariantRef, list[tuple[Gauge, tuple[str, ...]]]] = {}

    def know(self, model: str) -> None:
        """Variants of it may be loaded; all that may happen to them is there from the start, at 0."""
        for phase in PHASES:
            self._phase.labels(model, phase)
        for phase in _LOADING:
            self._failures.labels(model, phase)

    def set_state(self, ref: VariantRef, state: State | None) -> None:
        """None is a variant that is not in memory."""
        for one in STATES:
            self._state.labels(*labels_of(ref), one).set(one == state)
        now = self._clock()
        before, since = self._since.pop(ref, (None, now))
        if before in PHASES:
            self._phase.labels(ref.model, before).observe(now - since)
        if state == "failed":
            self._failures.labels(ref.model, before or "loading").inc()
        if state:
            self._since[ref] = state, now
        if state in (None, "failed"):
            for gauge, labels in self._told.pop(ref, []):
                gauge.remove(*labels)

    def set_info(self, ref: VariantRef, card: card_pb2.Card, engine: str, opset: int) -> None:
        """Tells of a variant until it is gone.

        Args:
            engine: what runs it.
            opset: version of the standard operators; 0 where it has none.
        """
        own = labels_of(ref)
        facts = card.sha256, enum_word("Precision", card.precision), f"{card.sparsity:.3g}", str(opset), engine
        self._tell(ref, self._info, (*own, *facts), 1)
        self._tell(ref, self._size, own, card.size_bytes)
        if card.latency and card.latency[0].speedup:
            self._tell(ref, self._speedup, own, card.latency[0].speedup)
        for quality in card.quality:
            self._tell(ref, self._quality, (*own, quality.metric, quality.data), quality.value)

    def _tell(self, ref: VariantRef, gauge: Gauge, labels: tuple[str, ...], value: float) -> None:
        gauge.labels(*labels).set(value)
        told = self._told.setdefault(ref, [])
        if (gauge, labels) not in told:  # a card may say one figure twice
            told.append((gauge, labels))
