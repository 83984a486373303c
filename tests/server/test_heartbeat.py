"""A late event loop is seen, and a server that is short of memory takes no frames until it has some again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import grpc
import pytest

from lathe.client import ServerError
from lathe.repository import Repository
from lathe_server.heartbeat import BEAT_SECONDS, REST_BEATS, Heartbeat, MemoryGuard, resident_memory
from lathe_server.metrics import Metrics
from tests.calls import eventually, metric, until
from tests.conftest import RunningServer, start_server


async def beat(metrics: Metrics, guard: MemoryGuard, resident: int) -> asyncio.Task[None]:
    task = asyncio.create_task(Heartbeat(guard, metrics, lambda: resident).run())
    await eventually(lambda: metrics.registry.get_sample_value("lathe_event_loop_lag_seconds_count"))
    await asyncio.sleep(0)
    return task


@pytest.mark.fault(75)
def test_a_blocked_event_loop_is_seen_in_a_metric() -> None:
    async def act() -> float:
        metrics = Metrics()
        task = await beat(metrics, MemoryGuard(0), 0)
        time.sleep(0.6)  # noqa: ASYNC251  as code would that blocks the loop
        await asyncio.sleep(BEAT_SECONDS)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return float(metrics.registry.get_sample_value("lathe_event_loop_lag_seconds_sum") or 0.0)

    assert asyncio.run(act()) > 0.3


@pytest.mark.parametrize(("resident", "is_short"), [(94, False), (96, True)])
def test_heartbeat_looks_at_the_memory(resident: int, is_short: bool) -> None:
    async def act() -> float | None:
        metrics, guard = Metrics(), MemoryGuard(100)
        (await beat(metrics, guard, resident)).cancel()
        assert guard.is_short is is_short
        return metrics.registry.get_sample_value("lathe_memory_short")

    assert asyncio.run(act()) == is_short


def test_memory_that_is_high_but_not_short_any_more_lets_frames_in_again() -> None:
    guard = MemoryGuard(100)
    guard.look(96)
    rests = [guard.is_short]
    for _ in range(REST_BEATS):
        guard.look(94)
        rests.append(guard.is_short)
    assert rests == [True] * REST_BEATS + [False]


def test_without_a_limit_memory_is_never_short() -> None:
    guard = MemoryGuard(0)
    guard.look(1 << 60)
    assert not guard.is_short


def test_resident_memory_is_that_of_this_process() -> None:
    resident = resident_memory()
    before = resident()
    held = bytearray(64 * 2**20)
    for place in range(0, len(held), 4096):
        held[place] = 1
    assert resident() - before > 48 * 2**20


@pytest.mark.fault(77)
def test_near_its_limit_a_server_refuses_frames_and_lives(
    repository: Repository, tmp_path: Path, spot_jpeg: bytes
) -> None:
    with (
        start_server(repository.root, tmp_path / "server.log", "--max-memory-bytes", "50000000") as server,
        server.client() as client,
    ):
        until(lambda: metric(server, "lathe_memory_short") == 1)
        with pytest.raises(ServerError, match="short of memory") as refused:
            client.detect("spots", spot_jpeg)
        assert refused.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        results = list(client.detect_stream("spots", ((spot_jpeg, 0.0) for _ in range(5))))
        assert [result.outcome for result in results] == ["rejected"] * 5
        assert metric(server, "lathe_frames_total", outcome="rejected") == 6
        assert server.process.poll() is None


def test_a_server_with_room_says_so(shared_server: RunningServer) -> None:
    assert metric(shared_server, "lathe_memory_short") == 0
    until(lambda: metric(shared_server, "lathe_event_loop_lag_seconds_count") > 2)
