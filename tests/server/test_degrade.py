"""Cheaper variants under too much load: the decision in simulated time, and a server that carries it out."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from lathe.repository import Repository
from lathe.v1 import control_pb2
from lathe_server.degrade import CALM_SECONDS, Degrader
from tests.calls import channel, control, metric, refusal, until
from tests.conftest import RunningServer, start_server
from tests.models import bright_spots, card_for

SECONDS = (0.006, 0.002, 0.001)
"""What a frame takes at each level."""


def simulate(
    cameras: Callable[[float], int], *, length: float, set_point: float = 0.05, stalls: Sequence[float] = ()
) -> list[tuple[float, int]]:
    """One worker, cameras at 30 frames a second, each with one slot: when the level became which.

    Args:
        cameras: how many there are at a time.
        stalls: moments at which the worker stands still for a fifth of a second.
    """
    degrader = Degrader(len(SECONDS) - 1, set_point, 1, 0.0)
    now, moves, left = 0.0, [(0.0, 0)], list(stalls)
    next_frame: dict[int, float] = {}
    line: dict[int, float] = {}  # since when, by camera
    while now < length:
        for camera in range(cameras(now)):
            arrival = next_frame.setdefault(camera, now + camera / 1000)
            if arrival <= now:
                line.setdefault(camera, arrival)
        if left and now >= left[0]:
            left.pop(0)
            now += 0.2
        if not line:
            now += 0.0005
            continue
        camera, level = next(iter(line)), degrader.level
        degrader.turn(now - line.pop(camera), now)
        next_frame[camera] += (math.floor((now - next_frame[camera]) * 30) + 1) / 30
        now += SECONDS[level]
        degrader.worked(SECONDS[level], SECONDS[level], level)
        if degrader.level != moves[-1][1]:
            moves.append((now, degrader.level))
    return moves


def levels(moves: Sequence[tuple[float, int]]) -> list[int]:
    return [level for _, level in moves]


def test_nothing_is_degraded_while_the_load_is_carried() -> None:
    assert levels(simulate(lambda now: 4, length=20)) == [0]  # 72 %


def test_streams_move_within_a_second_and_come_back_when_the_load_is_gone() -> None:
    moves = simulate(lambda now: 12 if 5 <= now < 15 else 4, length=25)
    assert levels(moves) == [0, 1, 0]
    assert 5 < moves[1][0] < 6.5
    assert 15 + CALM_SECONDS <= moves[2][0] < 15 + CALM_SECONDS + 1


def test_a_load_that_only_the_cheaper_variant_carries_does_not_swing() -> None:
    """It is 60 % there, and at the better one 180 %: there is no way back while it lasts."""
    assert levels(simulate(lambda now: 10, length=120, set_point=0.03)) == [0, 1]


def test_more_load_takes_the_next_variant_and_each_step_back_is_taken_alone() -> None:
    moves = simulate(lambda now: 24 if 5 <= now < 15 else 2, length=30, set_point=0.02)
    assert levels(moves) == [0, 1, 2, 1, 0]


def test_a_stall_degrades_nothing() -> None:
    assert levels(simulate(lambda now: 4, length=20, stalls=(3.0, 7.0, 11.0))) == [0]


def test_waits_that_do_not_come_of_load_degrade_nothing() -> None:
    degrader = Degrader(1, 0.05, 2, 0.0)
    for turn in range(200):
        degrader.turn(1.0, turn * 0.05)
        degrader.worked(0.006, 0.006, 0)
    assert degrader.level == 0


def test_load_of_other_models_leaves_no_room_to_come_back() -> None:
    degrader = Degrader(1, 0.05, 1, 0.0)

    def live(seconds: float, start: float, *, waited: float, frames: int, others: float) -> float:
        """In each tenth of a second a turn, so many frames, and so many seconds for others."""
        for step in range(round(seconds * 10)):
            degrader.turn(waited, start + step / 10)
            for _ in range(frames):
                degrader.worked(*[SECONDS[degrader.level]] * 2, degrader.level)
            degrader.worked(others, others, None)
        return start + seconds

    now = live(3, 0.0, waited=0.2, frames=14, others=0.01)
    assert degrader.level == 1
    now = live(20, now, waited=0.01, frames=10, others=0.05)
    assert degrader.level == 1, "70 % now, 110 % with the better variant"
    live(5, now, waited=0.01, frames=10, others=0.0)
    assert degrader.level == 0


def test_a_machine_that_others_use_does_not_keep_streams_degraded() -> None:
    """While it was crowded each frame of the better variant took ten times its CPU time."""
    degrader = Degrader(1, 0.05, 1, 0.0)
    for step in range(100):
        crowded = step < 30
        degrader.turn(0.2 if crowded else 0.01, step / 10)
        for _ in range(2 if crowded else 5):
            cost = SECONDS[degrader.level]
            degrader.worked(10 * cost if crowded else cost, cost, degrader.level)
        assert step != 29 or degrader.level == 1
    assert degrader.level == 0


# --- over a real port ---


@pytest.fixture
def degrading(tmp_path: Path) -> Iterator[RunningServer]:
    """`a` takes some milliseconds, `b` less than one; one worker."""
    root = tmp_path / "models"
    root.mkdir()
    repository = Repository(root)
    repository.publish(card_for("spots", "a", recommended=True), bright_spots(work=3))
    repository.publish(card_for("spots", "b"), bright_spots(box_pixels=16.0))
    with start_server(root, tmp_path / "server.log", "--workers", "1") as running:
        yield running


@contextmanager
def crowd(server: RunningServer, jpeg: bytes, *, cameras: int) -> Iterator[None]:
    """Cameras at 30 frames a second."""
    stop = threading.Event()

    def camera(number: int) -> None:
        def frames() -> Iterator[tuple[bytes, float]]:
            while not stop.wait(1 / 30):
                yield jpeg, time.time()

        with server.client() as client:
            for _ in client.detect_stream("spots", frames(), stream_id=str(number), live=True):
                pass

    with ThreadPoolExecutor(cameras) as threads:
        running = [threads.submit(camera, number) for number in range(cameras)]
        try:
            yield
        finally:
            stop.set()
        for one in running:
            one.result()


def test_streams_move_to_the_cheaper_variant_and_back(degrading: RunningServer, spot_jpeg: bytes) -> None:
    def is_degraded() -> bool:
        return metric(degrading, "lathe_degrade_level", model="spots") == 1

    with degrading.client() as client, crowd(degrading, spot_jpeg, cameras=1):
        client.set_route("spots", {"a": 1}, degrade=["b"], degrade_after_seconds=0.05)
        with crowd(degrading, spot_jpeg, cameras=20):
            until(is_degraded)
            result = client.detect("spots", spot_jpeg)
            assert (result.variant, result.degraded) == ("b", True)
            pinned = client.detect("spots", spot_jpeg, variant="a")
            assert (pinned.variant, pinned.degraded) == ("a", False)
        until(lambda: not is_degraded())
        assert client.detect("spots", spot_jpeg).variant == "a"
    assert metric(degrading, "lathe_degraded_frames_total", model="spots", variant="b", version="1") > 1
    assert metric(degrading, "lathe_degraded_frames_total", model="spots", variant="a", version="1") == 0


def test_what_a_route_degrades_to_is_in_memory_stays_with_the_route_and_goes_with_it(degrading: RunningServer) -> None:
    with degrading.client() as client:
        route = client.set_route("spots", {"a": 1}, degrade=["b"], degrade_after_seconds=0.2)
        assert [(one.variant, one.version) for one in route.degrade.variants] == [("b", 1)]
        assert client.route("spots").degrade == route.degrade
        ready = {one.card.variant: (one.state, one.weight) for one in client.variants()}
        assert ready["b"] == (control_pb2.SERVABLE_STATE_READY, 0)
        client.set_route("spots", {"a": 1})
        assert not client.route("spots").degrade.variants
        assert {one.card.variant: one.state for one in client.variants()}["b"] == control_pb2.SERVABLE_STATE_FOUND


@pytest.mark.parametrize(
    ("variants", "after_seconds", "code"),
    [
        (["b", "b"], 0.1, grpc.StatusCode.INVALID_ARGUMENT),
        (["b"], 0.0, grpc.StatusCode.INVALID_ARGUMENT),
        (["b"], float("nan"), grpc.StatusCode.INVALID_ARGUMENT),
        (["b"], float("inf"), grpc.StatusCode.INVALID_ARGUMENT),
        (["B\n"], 0.1, grpc.StatusCode.INVALID_ARGUMENT),
        (["c"], 0.1, grpc.StatusCode.NOT_FOUND),
    ],
)
def test_degrading_that_makes_no_sense_is_refused(
    degrading: RunningServer, variants: list[str], after_seconds: float, code: grpc.StatusCode
) -> None:
    request = control_pb2.SetRouteRequest(model="spots", weights=[control_pb2.RouteWeight(variant="a", weight=1)])
    request.degrade.after_seconds = after_seconds
    for variant in variants:
        request.degrade.variants.add(variant=variant)
    with channel(degrading.control) as opened:
        assert refusal(lambda: control(opened).SetRoute(request)).code() is code
