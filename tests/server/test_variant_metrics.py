"""States of variants, how long they took, how far those came that were refused, and what cards say."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from lathe.errors import LatheError
from lathe.repository import VariantRef
from lathe.v1 import card_pb2
from lathe_server.lifecycle import State
from lathe_server.variant_metrics import PHASES, VariantMetrics
from tests.calls import metric, until
from tests.conftest import RunningServer
from tests.models import card_for

A = VariantRef("spots", "a", 1)
LABELS = {"model": "spots", "variant": "a", "version": "1"}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def moved(metrics: VariantMetrics, clock: Clock, *steps: tuple[State | None, float]) -> None:
    """Each state with the seconds that it lasts."""
    for state, seconds in steps:
        metrics.set_state(A, state)
        clock.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry, clock: Clock) -> VariantMetrics:
    metrics = VariantMetrics(registry, clock)
    metrics.know("spots")
    return metrics


def phases(registry: CollectorRegistry, kind: str) -> list[float | None]:
    name = f"lathe_swap_phase_seconds_{kind}"
    return [registry.get_sample_value(name, {"model": "spots", "phase": phase}) for phase in PHASES]


def test_a_life_gives_the_time_of_each_phase(
    metrics: VariantMetrics, clock: Clock, registry: CollectorRegistry
) -> None:
    assert phases(registry, "count") == [0, 0, 0, 0]
    moved(metrics, clock, ("loading", 1), ("checking", 2), ("warming", 3), ("ready", 50), ("draining", 4), (None, 9))
    assert phases(registry, "sum") == [1, 2, 3, 4]
    assert phases(registry, "count") == [1, 1, 1, 1]


@pytest.mark.parametrize("last", ["loading", "checking", "warming"])
def test_a_refusal_counts_where_it_came_to(
    metrics: VariantMetrics, clock: Clock, registry: CollectorRegistry, last: State
) -> None:
    way: list[State] = ["loading", "checking", "warming"]
    moved(metrics, clock, *((state, 1.0) for state in (*way[: way.index(last) + 1], "failed")))
    for phase in way:
        value = registry.get_sample_value("lathe_load_failures_total", {"model": "spots", "phase": phase})
        assert value == (phase == last)


def test_what_a_card_says_is_told_while_the_variant_is_in_memory(
    metrics: VariantMetrics, clock: Clock, registry: CollectorRegistry
) -> None:
    card = card_for("spots", "a")
    card.size_bytes = 1234
    card.latency.append(card_pb2.Latency(speedup=2.5))
    for _ in range(2):  # a card may say the same twice
        card.quality.append(card_pb2.Quality(metric="ap50", data="lobby", value=0.75))
    moved(metrics, clock, ("loading", 1), ("ready", 1))
    metrics.set_info(A, card, "engine", 17)
    quality = {**LABELS, "metric": "ap50", "data": "lobby"}
    for _ in range(2):
        assert registry.get_sample_value("lathe_variant_size_bytes", LABELS) == 1234
        assert registry.get_sample_value("lathe_variant_speedup", LABELS) == 2.5
        assert registry.get_sample_value("lathe_variant_quality", quality) == 0.75
        moved(metrics, clock, ("draining", 1), (None, 1))
        assert registry.get_sample_value("lathe_variant_quality", quality) is None
        assert registry.get_sample_value("lathe_variant_size_bytes", LABELS) is None
        moved(metrics, clock, ("loading", 1), ("ready", 1))
        metrics.set_info(A, card, "engine", 17)


def test_a_swap_on_a_server_is_counted_with_its_phases(server: RunningServer) -> None:
    assert metric(server, "lathe_swaps_total", model="spots") == 0
    with server.client() as client:
        client.set_route("spots", {"b": 1})
    assert metric(server, "lathe_swaps_total", model="spots", result="done") == 1
    until(lambda: metric(server, "lathe_swap_phase_seconds_count", phase="draining") == 1)
    assert metric(server, "lathe_swap_phase_seconds_count", phase="warming") == 2  # the start's, and the swap's
    assert metric(server, "lathe_variant_info", opset="17", variant="b") == 1
    with server.client() as client, pytest.raises(LatheError):
        client.set_route("spots", {"b": 1}, expected_revision=77)
    assert metric(server, "lathe_swaps_total", model="spots", result="refused") == 1
