"""The live page of a real server: it tells what clients were told, to whom it may, and nothing else."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lathe.repository import Repository
from lathe.v1 import experiment_pb2
from tests.calls import INTERNALS, channel, config, exposition, frame, stream, until
from tests.conftest import RunningServer, start_server
from tests.models import bright_spots, card_for
from tests.pictures import jpeg, png, scene, segment, with_segments
from tests.server.test_live import CAMERAS, OPS
from tests.server.test_privacy import MARKER
from tests.server.test_tokens import RULE, SEE, entry

PATHS = ("/live", "/live/state", "/live/frames/0-1")


def get(server: RunningServer, path: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    opened = http.client.HTTPConnection(server.http, timeout=10)
    opened.request("GET", path, headers=headers)
    answer = opened.getresponse()
    body = answer.read()
    opened.close()
    return answer.status, body, {name.lower(): value for name, value in answer.getheaders()}


def state(server: RunningServer) -> dict[str, Any]:
    status, body, _ = get(server, "/live/state")
    assert status == 200
    told: dict[str, Any] = json.loads(body, parse_constant=pytest.fail)
    return told


def camera(server: RunningServer, name: str, index: int) -> dict[str, Any]:
    """What the page is told of a stream once its frame of that index has been answered."""
    found: list[dict[str, Any]] = []

    def is_there() -> bool:
        all_of_them = state(server)["cameras"]
        found[:] = [one for one in all_of_them if one["stream"] == name and one["frame"]]
        return bool(found) and found[0]["frame"]["index"] == index

    until(is_there)
    return found[0]


@pytest.fixture(scope="module", params=["blurred", "plain"])
def live_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("live")
    (folder / "models").mkdir()
    repository = Repository(folder / "models")
    repository.publish(card_for("spots", "a", recommended=True), bright_spots())
    repository.publish(card_for("spots", "b"), bright_spots(box_pixels=16.0))
    with start_server(repository.root, folder / "server.log", "--live", request.param) as running:
        yield running


def test_it_is_off_by_default(shared_server: RunningServer) -> None:
    assert [get(shared_server, path)[0] for path in PATHS] == [404, 404, 404]


def test_boxes_and_picture_are_those_of_one_frame_and_equal_what_its_client_was_told(
    live_server: RunningServer, spot_jpeg: bytes
) -> None:
    state(live_server)
    with channel(live_server.grpc) as opened:
        messages = [config(stream_id="gate-3"), frame(0, spot_jpeg), frame(5, jpeg(scene(64, 48))), frame(9, spot_jpeg)]
        last = list(stream(opened, messages))[-1]
    told = camera(live_server, "gate-3", 9)
    shown_frame = told["frame"]
    boxes = np.array([box[:5] for box in shown_frame["boxes"]])
    assert np.allclose(boxes[:, :4], np.reshape(last.detections.xyxy, (-1, 4)), atol=0.051)
    assert np.allclose(boxes[:, 4], last.detections.score, atol=0.00051)
    assert [box[5] for box in shown_frame["boxes"]] == ["spot"]
    assert (shown_frame["width"], shown_frame["height"]) == (640, 480)
    assert (shown_frame["variant"], shown_frame["version"]) == (last.served_by.variant, last.served_by.version)
    assert shown_frame["age_ms"] == pytest.approx(last.age_seconds * 1e3, abs=0.01)
    status, body, headers = get(live_server, shown_frame["picture"])
    assert (status, headers["content-type"]) == (200, "image/jpeg")
    assert (body == spot_jpeg) == (state(live_server)["mode"] == "plain")
    picture = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    down, across = np.unravel_index(picture.argmax(), picture.shape)
    left, top, right, bottom = boxes[0, :4]
    assert left < across / picture.shape[1] * 640 < right
    assert top < down / picture.shape[0] * 480 < bottom


def test_variants_figures_experiment_and_events_are_told(live_server: RunningServer, spot_jpeg: bytes) -> None:
    state(live_server)
    with live_server.client() as client:
        client.set_route("spots", {"a": 1})
        spec = experiment_pb2.ExperimentSpec(model="spots")
        spec.baseline.variant, spec.candidate.variant = "a", "b"
        begun = client.start_experiment(spec)
        client.detect("spots", spot_jpeg, variant="a")
        until(lambda: state(live_server)["experiments"] and state(live_server)["figures"])
        told = state(live_server)
        (model,) = told["figures"]["models"]
        assert {one["variant"]: one["state"] for one in model["variants"]} == {"a": "ready", "b": "ready"}
        (experiment,) = told["experiments"]
        assert (experiment["id"], experiment["candidate"]) == (begun.id, "b/1")
        assert told["events"][0]["kind"] == "experiment begun"
        client.stop_experiment("spots")
        until(lambda: not state(live_server)["experiments"])
        assert "experiment ended" in [event["kind"] for event in state(live_server)["events"]]


def test_all_who_look_at_the_same_time_are_told_the_same(live_server: RunningServer) -> None:
    told = {get(live_server, "/live/state")[1] for _ in range(20)}
    assert len(told) <= 3, "the server looks about once a second, whoever asks"


def test_every_reply_is_for_this_page_alone(live_server: RunningServer) -> None:
    for path in PATHS:
        for headers in ({}, {"Host": "evil.example"}):
            status, body, said = get(live_server, path, **headers)
            assert status == (403 if headers else {PATHS[2]: 404}.get(path, 200))
            assert said["x-content-type-options"] == "nosniff"
            assert said["cache-control"] == "no-store"
            assert said["cross-origin-resource-policy"] == "same-origin"
            assert said["content-security-policy"].startswith("default-src 'none'; script-src 'sha256-")
            assert "access-control-allow-origin" not in said
            assert status == 200 or not any(word in body.decode() for word in INTERNALS)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/live/", 404),
        ("/live/else", 404),
        ("/live/frames", 404),
        ("/live/frames/", 404),
        ("/live/frames/x", 404),
        ("/live/frames/x-1", 404),
        ("/live/frames/-1", 404),
        ("/live/frames/../../etc/passwd", 404),
        ("/live/frames/0-" + "9" * 5000, 404),
        ("/live/frames/0-%00", 404),
        ("/live?x=1", 200),
    ],
)
def test_paths_that_there_are_not(live_server: RunningServer, path: str, status: int) -> None:
    assert get(live_server, path)[0] == status


@pytest.mark.fault(87)
def test_a_marker_in_a_frame_is_nowhere_but_in_a_picture_that_is_shown_as_it_is(live_server: RunningServer) -> None:
    state(live_server)
    planted = with_segments(jpeg(scene()), segment(0xFE, MARKER.encode()))
    broken = png(scene())[:-40] + MARKER.encode()
    with channel(live_server.grpc) as opened:
        list(stream(opened, [config(stream_id="marked"), frame(0, planted), frame(1, broken)]))
    told = camera(live_server, "marked", 0)
    picture = get(live_server, told["frame"]["picture"])[1]
    said = [json.dumps(state(live_server)), exposition(live_server), live_server.log.read_text()]
    assert not any(MARKER in words for words in said)
    assert (MARKER.encode() in picture) == (state(live_server)["mode"] == "plain")


def test_tokens_are_asked_for_by_what_browsers_have(repository: Repository, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(entry("cameras", SEE) + entry("ops", RULE, "control"))
    with start_server(repository.root, tmp_path / "log", "--live", "blurred", "--tokens", str(tokens)) as server:
        for path, found in zip(PATHS, (200, 200, 404), strict=True):
            status, _, headers = get(server, path)
            assert (status, headers["www-authenticate"][:5]) == (401, "Basic")
            assert get(server, path, Authorization=CAMERAS.decode())[0] == 403
            assert get(server, path, Authorization=OPS.decode())[0] == found
        assert get(server, "/metrics")[0] == 200
        log = server.log.read_text()
    assert not any(secret in log for secret in (RULE, SEE, OPS.decode()[6:]))
