"""The live page: who may see it, and what is kept for it and for how long."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lathe.detections import Detections
from lathe.errors import InternalError
from lathe.repository import VariantRef
from lathe.v1 import experiment_pb2
from lathe_server.access.gate import Gate
from lathe_server.access.tokens import Tokens
from lathe_server.frames import Frame, Outcome, Result
from lathe_server.http import Request
from lathe_server.live import cameras as module
from lathe_server.live.cameras import LOOKED_SECONDS, MOST_CAMERAS, Cameras, Shot
from lathe_server.live.door import turned_away
from lathe_server.live.experiment import shown
from lathe_server.live.page import page_and_policy
from lathe_server.live.state import told_of_frame
from lathe_server.live.wall import KEPT_LOOKS, Wall
from lathe_server.origin import Origin
from lathe_server.tensors import Tensors
from lathe_server.vision import Answer, EncodedPicture
from lathe_server.vision.detector import Stages
from tests.server.test_tokens import OLD, RULE, SEE, entry


def holders(given: Result) -> int:
    """Of its picture."""
    return sys.getrefcount(given.frame.asked)


# ---- who may see it


def basic(token: str, name: str = "me") -> bytes:
    return b"Basic " + base64.b64encode(f"{name}:{token}".encode())


OPS, CAMERAS = basic(RULE), basic(SEE)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    path = tmp_path / "tokens.toml"
    gone = entry("gone", OLD, "control", "expires = 2020-01-01T00:00:00Z")
    path.write_text(entry("cameras", SEE) + entry("ops", RULE, "control", "max_calls_per_second = 1000") + gone)
    return Gate(Tokens(path))


@pytest.mark.parametrize(
    ("headers", "is_from_here", "status"),
    [
        pytest.param({}, True, None, id="this machine"),
        pytest.param({}, False, 403, id="another machine"),
        pytest.param({b"host": b"127.0.0.1:8501"}, False, 403, id="another machine that calls us localhost"),
        pytest.param({b"host": b"127.0.0.1"}, True, None, id="without a port"),
        pytest.param({b"host": b"[::1]:8501"}, True, None, id="IPv6"),
        pytest.param({b"host": b"evil.example:8501"}, True, 403, id="a name that was made to lead here"),
        pytest.param({b"host": b"localhost.evil.example"}, True, 403, id="one that begins as ours does"),
        pytest.param({b"host": b""}, True, 403, id="no name"),
        pytest.param({b"x-forwarded-for": b"10.0.0.9"}, True, 403, id="a proxy on this machine that says so"),
        pytest.param({b"sec-fetch-site": b"same-origin"}, True, None, id="the page itself"),
        pytest.param({b"sec-fetch-site": b"none"}, True, None, id="typed in"),
        pytest.param(
            {b"sec-fetch-site": b"cross-site", b"sec-fetch-dest": b"image"}, True, 403, id="another's picture"
        ),
        pytest.param({b"sec-fetch-site": b"same-site", b"sec-fetch-dest": b"empty"}, True, 403, id="another port"),
        pytest.param({b"sec-fetch-site": b"cross-site", b"sec-fetch-dest": b"iframe"}, True, 403, id="a frame in it"),
        pytest.param({b"sec-fetch-site": b"cross-site", b"sec-fetch-dest": b"document"}, True, None, id="a link"),
    ],
)
def test_who_comes_in_where_no_tokens_are_asked_for(
    headers: dict[bytes, bytes], is_from_here: bool, status: int | None
) -> None:
    request = Request("GET", "/live", {b"host": b"localhost:8501"} | headers, is_from_here=is_from_here)
    refusal = turned_away(request, Gate(None), asks_for_certificate=False)
    assert (refusal and refusal.status) == status


@pytest.mark.fault(59)
@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        pytest.param(OPS, None, id="a token for control"),
        pytest.param(basic(RULE, "somebody else"), None, id="under any name"),
        pytest.param(f"Bearer {RULE}".encode(), None, id="as other clients send it"),
        pytest.param(b"", 401, id="nothing"),
        pytest.param(CAMERAS, 403, id="a camera's"),
        pytest.param(basic(OLD), 401, id="one that has expired"),
        pytest.param(basic("guess"), 401, id="a guess"),
        pytest.param(b"Basic " + base64.b64encode(RULE.encode()), 401, id="without a name"),
        pytest.param(b"Basic \xff\xfe", 401, id="no base64"),
        pytest.param(b"Basic " + base64.b64encode(b"\xff:\xff"), 401, id="no UTF-8"),
    ],
)
def test_who_comes_in_where_they_are(gate: Gate, authorization: bytes, status: int | None) -> None:
    headers = {b"host": b"localhost", b"authorization": authorization}
    request = Request("GET", "/live/state", headers, is_from_here=True)
    refusal = turned_away(request, gate, asks_for_certificate=False)
    assert (refusal and refusal.status) == status
    assert bool(refusal and dict(refusal.headers).get("www-authenticate", "").startswith("Basic ")) == (status == 401)


@pytest.mark.parametrize("has_certificate", [True, False])
def test_a_server_that_asks_callers_for_certificates_asks_for_one_here(has_certificate: bool) -> None:
    request = Request("GET", "/live", {b"host": b"localhost"}, is_from_here=True, has_certificate=has_certificate)
    assert (turned_away(request, Gate(None), asks_for_certificate=True) is None) == has_certificate


def test_the_page_fetches_nothing_and_its_policy_lets_nothing_else_run() -> None:
    html, policy = page_and_policy()
    assert b"//" not in b"".join(line for line in html.split(b"\n") if b"src=" in line or b"href=" in line).replace(
        b"http://www.w3.org/2000/svg", b""
    )
    assert html.count(b"<script") == html.count(b"<style") == 1
    assert not any(word in html for word in (b"innerHTML", b"insertAdjacentHTML", b"document.write", b"eval("))
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


# ---- what is kept, and for how long


def result(
    stream_id: str = "gate",
    outcome: Outcome = "answered",
    boxes: int = 1,
    *,
    data: bytes = b"\xff\xd8\xff picture",
    is_call: bool = False,
    origin: Origin | None = None,
) -> Result:
    asked = Frame("spots", stream_id, "", 7, EncodedPicture(data), 0.0, 0.0, is_call=is_call, origin=origin or Origin())
    found = Detections(
        np.tile(np.array((1, 2, 3, 4), np.float32), (boxes, 1)),
        np.full(boxes, 0.9, np.float32),
        np.zeros(boxes, np.int64),
        np.empty((boxes, 0, 2), np.float32),
    )
    answer = Answer(found, Stages(0, 0, 0, 0)) if outcome == "answered" else None
    error = InternalError("no") if outcome == "failed" else None
    return Result(asked, outcome, VariantRef("spots", "a", 1), answer, error=error)


class Watched:
    """Cameras with a clock that a test turns."""

    def __init__(self) -> None:
        self.now = 100.0
        self.cameras = Cameras(lambda: self.now)

    def looked(self) -> Watched:
        self.cameras.look()
        return self

    def names(self) -> list[str]:
        return [camera.stream for camera in self.cameras.look()]


def test_nothing_is_kept_while_nobody_looks() -> None:
    watched, given = Watched(), result()
    before = sys.getrefcount(given)
    watched.cameras.observe(given)
    assert sys.getrefcount(given) == before
    assert watched.names() == []


def test_the_newest_frame_is_kept_and_all_is_forgotten_when_nobody_looks_any_more() -> None:
    watched = Watched().looked()
    first, second = result(), result()
    before = holders(first)
    watched.cameras.observe(first)
    watched.cameras.observe(second)
    assert holders(first) == before
    (camera,) = watched.cameras.look()
    assert camera.shot
    assert camera.shot.picture is second.frame.asked
    assert watched.cameras.seconds_left == LOOKED_SECONDS
    watched.now += LOOKED_SECONDS + 0.1
    assert watched.cameras.seconds_left < 0
    watched.cameras.observe(result("late"))
    del camera
    watched.cameras.forget()
    assert holders(second) == before
    assert watched.names() == []


def test_a_frame_that_took_longer_than_the_one_after_it_is_not_shown() -> None:
    watched, given = Watched().looked(), result()
    for arrived in (1.0, 3.0, 2.0):
        watched.cameras.observe(replace(given, frame=replace(given.frame, arrived=arrived)))
    (camera,) = watched.cameras.look()
    assert camera.shot
    assert camera.shot.arrived == 3.0


def test_who_looks_again_after_a_while_sees_nothing_old() -> None:
    watched = Watched().looked()
    watched.cameras.observe(result())
    watched.now += LOOKED_SECONDS + 0.1  # and nothing has called forget
    assert watched.names() == []


def test_so_many_cameras_stay_where_they_are_and_others_find_room_when_one_is_gone() -> None:
    watched = Watched().looked()
    for number in range(MOST_CAMERAS + 20):
        watched.cameras.observe(result(f"gate-{number:03}"))
    assert watched.names() == [f"gate-{number:03}" for number in range(MOST_CAMERAS)]
    for _ in range(20):  # a minute in which one is silent
        watched.now += 4
        for number in range(1, MOST_CAMERAS):
            watched.cameras.observe(result(f"gate-{number:03}"))
        watched.cameras.look()
    watched.cameras.observe(result("a-new-one"))
    assert watched.names() == ["a-new-one", *(f"gate-{number:03}" for number in range(1, MOST_CAMERAS))]


def test_calls_are_one_camera_and_streams_without_a_name_are_told_apart_by_their_call() -> None:
    watched = Watched().looked()
    for name in "123":
        watched.cameras.observe(result(f"\n{name}", is_call=True))
    here, there = Origin(), Origin()
    for origin in (here, there, here):
        watched.cameras.observe(result("", origin=origin))
    assert [camera.kind for camera in watched.cameras.look()] == ["calls", "unnamed", "unnamed"]


def test_tensors_are_no_pictures() -> None:
    watched, given = Watched().looked(), result()
    watched.cameras.observe(replace(given, frame=replace(given.frame, asked=Tensors({}))))
    assert watched.names() == []


def test_what_is_private_is_not_kept() -> None:
    watched, given = Watched(), result()
    held = holders(given)
    watched.cameras.observe(replace(given, frame=replace(given.frame, is_private=True)))
    assert watched.cameras.look() == []
    assert holders(given) == held


def test_a_name_shows_no_password() -> None:
    watched = Watched().looked()
    watched.cameras.observe(result("rtsp://admin:hunter2@gate-3/live"))
    assert watched.names() == ["rtsp://gate-3/live"]


def test_frames_a_second_and_what_is_lost_are_over_the_last_seconds() -> None:
    watched = Watched().looked()
    watched.cameras.observe(result())
    (camera,) = watched.cameras.look()
    assert (camera.frames_per_second, camera.dropped_share) == (None, None)
    for _ in range(10):  # seconds, of which the first count no more
        for outcome in ("answered",) * 8 + ("dropped_superseded", "failed"):
            watched.cameras.observe(result(outcome=outcome))  # type: ignore[arg-type]
        watched.now += 1
        (camera,) = watched.cameras.look()
    assert camera.frames_per_second == pytest.approx(8)
    assert (camera.dropped_share, camera.failed_share) == (pytest.approx(0.1), pytest.approx(0.1))
    assert not camera.is_silent
    watched.now += 4.5
    watched.cameras.look()
    watched.now += 4.5
    (camera,) = watched.cameras.look()
    assert camera.is_silent
    assert camera.silent_seconds == pytest.approx(10)


def test_beyond_a_bound_pictures_are_left_out_and_boxes_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_HELD_BYTES", 2500)
    watched = Watched().looked()
    for _ in range(3):  # the newer picture of a camera takes the place of its older one
        given = [result(name, data=bytes(1000)) for name in "abc"]
        free = holders(given[2])
        for one in given:
            watched.cameras.observe(one)
    cameras = watched.cameras.look()
    assert [bool(one.shot and one.shot.picture) for one in cameras] == [True, True, False]
    assert holders(given[2]) == free, "what has no room is not held by another name"
    assert cameras[2].shot
    told = told_of_frame(cameras[2].shot, ["spot"], "x", 100)
    assert (told["picture"], told["boxes"]) == (None, [[1.0, 2.0, 3.0, 4.0, 0.9, "spot"]])


def test_a_picture_is_encoded_once_for_however_many_and_goes_with_its_look() -> None:
    made: list[int] = []
    lock = threading.Lock()

    def encode(shot: Shot) -> bytes:
        with lock:
            made.append(shot.number)
        return f"jpeg {shot.number}".encode()

    def shot(number: int) -> Shot:
        return Shot(number, None, 0, 0.0, 0.0, False, Detections.none(), EncodedPicture(b"x"))

    async def visit() -> None:
        wall = Wall(encode)
        wall.hang([shot(1), shot(2)])
        assert await asyncio.gather(*(wall.jpeg(1) for _ in range(50))) == [b"jpeg 1"] * 50
        assert await wall.jpeg(3) is None
        for number in range(10, 10 + KEPT_LOOKS - 1):
            wall.hang([shot(number)])
        assert await wall.jpeg(2) == b"jpeg 2"
        wall.hang([shot(99)])
        assert [await wall.jpeg(number) for number in (1, 2, 99)] == [None, None, b"jpeg 99"]
        wall.clear()
        assert await wall.jpeg(99) is None

    asyncio.run(visit())
    assert made == [1, 2, 99]


def test_an_experiment_says_what_holds_already() -> None:
    spec = experiment_pb2.ExperimentSpec(
        model="spots", objective="cpu_seconds", minimum_effect=0.02, minimum_agreement=0.9, alpha=0.05
    )
    spec.margins.add(metric="latency_p99_seconds", margin=0.5)
    spec.margins.add(metric="failed_share", margin=0.005)
    message = experiment_pb2.Experiment(id="one", spec=spec)
    bounds = {
        "cpu_seconds": (-0.4, -0.3),
        "latency_p99_seconds": (-0.5, 0.9),
        "failed_share": (0.01, 0.02),
        "agreement": (-np.inf, np.inf),
        "streams": (-0.1, 0.1),
    }
    for metric, (low, high) in bounds.items():
        message.estimates.add(metric=metric, value=(low + high) / 2, low=low, high=high)
    for baseline, candidate in ((0.9, 0.1), *((0.02, 0.5),) * 9, (0.01, 0.03)):  # the first is too long ago
        message.rounds.add().effects.add(metric="latency_p99_seconds", baseline=baseline, candidate=candidate)
    told = shown(message, 12.0)
    assert {one["metric"]: one["told"] for one in told["estimates"]} == {
        "cpu_seconds": "holds",
        "latency_p99_seconds": "open",
        "failed_share": "broken",
        "agreement": "open",
        "streams": None,
    }
    assert [one["value"] for one in told["guardrails"]] == [None, pytest.approx(1.5)]
    json.dumps(told, allow_nan=False)
