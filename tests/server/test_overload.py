"""More than a server can do, or has room for: every frame is accounted for, and it comes back."""

from __future__ import annotations

import resource
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from lathe.exchange import Result
from lathe.repository import Repository
from tests.calls import metric, until
from tests.conftest import RunningServer, start_server
from tests.models import bright_spots, card_for

CAMERAS, FRAMES, FPS, MAX_AGE = 12, 60, 30, 0.25


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[RunningServer]:
    """One worker, some milliseconds a frame."""
    root = tmp_path / "models"
    root.mkdir()
    Repository(root).publish(card_for("spots", "a", recommended=True), bright_spots(work=8))
    with start_server(root, tmp_path / "server.log", "--workers", "1") as running:
        yield running


def descriptors(server: RunningServer) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def resident_mb(server: RunningServer) -> float:
    return metric(server, "process_resident_memory_bytes") / 1e6


@pytest.mark.fault(72)
def test_several_times_the_capacity_leaves_no_frame_unaccounted_and_none_old(
    slow: RunningServer, spot_jpeg: bytes
) -> None:
    def camera(number: int) -> list[Result]:
        def frames() -> Iterator[tuple[bytes, float]]:
            for _ in range(FRAMES):
                yield spot_jpeg, time.time()
                time.sleep(1 / FPS)

        with slow.client() as client:
            stream = client.detect_stream("spots", frames(), stream_id=str(number), live=True, max_age_seconds=MAX_AGE)
            return list(stream)

    with ThreadPoolExecutor(CAMERAS) as threads:
        results = [result for found in threads.map(camera, range(CAMERAS)) for result in found]
    outcomes = Counter(result.outcome for result in results)
    assert outcomes.total() == CAMERAS * FRAMES
    assert outcomes["answered"]
    assert outcomes["answered"] < outcomes.total(), "it was no overload"
    assert set(outcomes) <= {"answered", "dropped_superseded", "dropped_too_old"}
    for outcome, count in outcomes.items():
        assert metric(slow, "lathe_frames_total", outcome=outcome) == count
    answered = [result for result in results if result.answered]
    stages = ("decode", "preprocess", "infer", "postprocess")
    judged = max(sum(result.stage_seconds[stage] for stage in stages) for result in answered)
    assert max(result.age_seconds for result in answered) < MAX_AGE + judged + 1.0, "ages would grow without a bound"


@pytest.mark.fault(76)
def test_a_server_out_of_descriptors_serves_on_and_takes_callers_again(server: RunningServer, spot_jpeg: bytes) -> None:
    with server.client() as client:
        assert client.detect("spots", spot_jpeg).answered
        room = descriptors(server) + 4
        soft, hard = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (room, hard))
        host, port = server.grpc.rsplit(":", 1)
        with ExitStack() as opened:
            for _ in range(40):
                opened.enter_context(socket.create_connection((host, int(port))))
            until(lambda: descriptors(server) >= room - 1)
            for _ in range(10):
                assert client.detect("spots", spot_jpeg).answered, "who has a connection is served"
        until(lambda: descriptors(server) < room - 1)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (soft, hard))
    with server.client() as another:
        assert another.detect("spots", spot_jpeg).answered


@pytest.mark.fault(81)
def test_streams_that_come_and_go_leave_nothing_behind(server: RunningServer, spot_jpeg: bytes) -> None:
    def come_and_go(times: int) -> None:
        for number in range(times):
            with server.client() as client:
                list(client.detect_stream("spots", ((spot_jpeg, 0.0) for _ in range(20)), stream_id=str(number)))

    come_and_go(20)
    before, open_before = resident_mb(server), descriptors(server)
    come_and_go(100)
    until(lambda: descriptors(server) <= open_before)
    assert resident_mb(server) - before < 10
