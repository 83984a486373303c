"""How single streams fare: those that the settings name, and no others."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from lathe.repository import Repository
from lathe_server.frames import Frame, Result
from lathe_server.stream_metrics import MOST_STREAMS, OTHER, StreamLabels, StreamMetrics
from lathe_server.vision import EncodedPicture
from tests.calls import channel, config, exposition, frame, metric, stream
from tests.conftest import start_server


def test_named_streams_have_their_own_figures_and_all_others_share_one(
    repository: Repository, tmp_path: Path, spot_jpeg: bytes
) -> None:
    began = time.time()
    with (
        start_server(repository.root, tmp_path / "log", "--stream-labels", "gate-*,lobby") as server,
        channel(server.grpc) as opened,
    ):
        for name, pictures in {"gate-1": 3, "lobby": 2, "street": 1, "nowhere": 1}.items():
            messages = [frame(index, spot_jpeg) for index in range(pictures)]
            list(stream(opened, [config(stream_id=name, keep_all=True), *messages]))
        answered = {
            name: metric(server, "lathe_stream_frames_total", stream=name, outcome="answered")
            for name in ("gate-1", "lobby", OTHER)
        }
        assert answered == {"gate-1": 3, "lobby": 2, OTHER: 2}
        assert metric(server, "lathe_stream_age_seconds_count", stream="gate-1") == 3
        last = metric(server, "lathe_stream_last_frame_timestamp_seconds", stream="lobby")
        assert began - 1 <= last <= time.time() + 1
        assert "street" not in exposition(server)


def test_single_calls_belong_to_no_stream(repository: Repository, tmp_path: Path, spot_jpeg: bytes) -> None:
    with start_server(repository.root, tmp_path / "log", "--stream-labels", "*") as server, server.client() as client:
        client.detect("spots", spot_jpeg)
        assert metric(server, "lathe_frames_total", outcome="answered") == 1
        assert metric(server, "lathe_stream_frames_total") == 0


@pytest.mark.fault(82)
def test_however_many_names_a_pattern_takes_in_the_labels_stay_few() -> None:
    labels = StreamLabels("*")
    assert len({labels.of(f"camera-{number}") for number in range(20_000)}) == MOST_STREAMS + 1
    assert labels.of("camera-0") == "camera-0"
    assert labels.of("camera-19999") == OTHER


@pytest.mark.fault(87)
def test_passwords_in_names_are_in_no_label() -> None:
    label = StreamLabels("*").of("rtsp://admin:hunter2@gate-3/live")
    assert "gate-3" in label
    assert "hunter2" not in label


def test_the_newest_frame_stays_the_newest_when_an_older_one_is_judged_after_it() -> None:
    registry = CollectorRegistry()
    metrics = StreamMetrics(StreamLabels("*"), registry)
    told = []
    for arrived in (5.0, 3.0):
        frame_ = Frame("spots", "gate", "", 0, EncodedPicture(b""), captured=arrived, arrived=arrived)
        metrics.observe(Result(frame_, "dropped_too_old"))
        told.append(registry.get_sample_value("lathe_stream_last_frame_timestamp_seconds", {"stream": "gate"}))
    assert told[0]
    assert told[1] == pytest.approx(told[0], abs=1.0)


@pytest.mark.fault(88)
def test_a_name_with_a_line_break_stays_one_sample() -> None:
    registry = CollectorRegistry()
    metrics = StreamMetrics(StreamLabels("*"), registry)
    picture = EncodedPicture(b"")
    metrics.observe(Result(Frame("spots", 'a"\nlathe_forged 1', "", 0, picture, 0.0, 0.0), "dropped_too_old"))
    assert not any(line.startswith("lathe_forged") for line in generate_latest(registry).decode().splitlines())


@pytest.mark.parametrize("outcome", ["answered", "dropped_superseded"])
def test_all_outcomes_of_a_stream_are_there_from_its_first_frame(outcome: str) -> None:
    registry = CollectorRegistry()
    StreamMetrics(StreamLabels(), registry)
    assert registry.get_sample_value("lathe_stream_frames_total", {"stream": OTHER, "outcome": outcome}) == 0
