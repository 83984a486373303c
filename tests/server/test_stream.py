"""DetectStream over a real port: the protocol of a stream."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from lathe.v1 import inference_pb2
from tests.calls import channel, config, frame, metric, outcomes, refusal, stream, until
from tests.conftest import RunningServer
from tests.pictures import jpeg, spot_of

BAD = grpc.StatusCode.INVALID_ARGUMENT


def test_frames_are_answered_in_order(server: RunningServer, spot_jpeg: bytes) -> None:
    with server.client() as client:
        results = list(client.detect_stream("spots", ((spot_jpeg, 0.0) for _ in range(30)), stream_id="camera"))
    assert [result.index for result in results] == list(range(30))
    assert {result.outcome for result in results} == {"answered"}
    assert {len(result.detections) for result in results} == {1}


def test_boxes_are_in_pixels_of_the_frame(server: RunningServer, spot_jpeg: bytes) -> None:
    with server.client() as client:
        box = client.detect("spots", spot_jpeg).detections.xyxy[0]
    assert box == pytest.approx([304, 224, 352, 272], abs=1)


@pytest.mark.fault(11)
def test_a_stream_opens_with_its_configuration(shared_server: RunningServer, spot_jpeg: bytes) -> None:
    openings = [[], [frame(0, spot_jpeg)], [inference_pb2.DetectStreamRequest()]]
    with channel(shared_server.grpc) as opened:
        for opening in openings:
            assert refusal(lambda o=opening: list(stream(opened, o))).code() is BAD


@pytest.mark.fault(9, 11)
@pytest.mark.parametrize(
    ("opening", "code"),
    [
        (config("faces"), grpc.StatusCode.NOT_FOUND),
        (config("spots\n"), BAD),
        (config(variant="B"), BAD),
        (config(variant="b"), grpc.StatusCode.NOT_FOUND),
        (config(stream_id="a\nb"), BAD),
        (config(stream_id="x" * 257), BAD),
        (config(max_age_seconds=-1), BAD),
        (config(max_age_seconds=math.nan), BAD),
        (config(max_age_seconds=math.inf), BAD),
        (config(priority=7), BAD),
    ],
    ids=[
        "unknown model",
        "bad model",
        "bad variant",
        "unknown variant",
        "newline",
        "long id",
        "negative",
        "nan",
        "inf",
        "unknown priority",
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused_at_once(
    shared_server: RunningServer, opening: inference_pb2.DetectStreamRequest, code: grpc.StatusCode
) -> None:
    with channel(shared_server.grpc) as opened:
        assert refusal(lambda: list(stream(opened, [opening]))).code() is code


@pytest.mark.fault(12)
def test_a_second_configuration_ends_the_stream_after_its_answers(
    shared_server: RunningServer, spot_jpeg: bytes
) -> None:
    seen: list[inference_pb2.Result] = []
    with channel(shared_server.grpc) as opened:
        error = refusal(lambda: seen.extend(stream(opened, [config(), frame(0, spot_jpeg), config()])))
    assert error.code() is BAD
    assert outcomes(seen) == ["answered"]


@pytest.mark.fault(13)
def test_an_index_that_does_not_count_up_is_rejected_and_the_stream_goes_on(
    shared_server: RunningServer, spot_jpeg: bytes
) -> None:
    results = _paced(shared_server, spot_jpeg, [0, 1, 1, 0, 2, 9, 2**64 - 1, 5])
    good, bad = "answered", "rejected"
    assert outcomes(results) == [good, good, bad, bad, good, good, good, bad]
    assert [result.index for result in results] == [0, 1, 1, 0, 2, 9, 2**64 - 1, 5]
    assert {result.error.code for result in results if result.error.message} == {BAD.value[0]}


@pytest.mark.fault(17)
def test_a_bad_picture_is_rejected_and_the_stream_goes_on(shared_server: RunningServer, spot_jpeg: bytes) -> None:
    pictures = [spot_jpeg, b"", b"<html>", spot_jpeg[:1000], spot_jpeg]
    results = _paced(shared_server, pictures, range(5))
    assert outcomes(results) == ["answered", "rejected", "rejected", "rejected", "answered"]
    assert [result.error.code for result in results] == [0, 3, 3, 3, 0]


@pytest.mark.fault(14, 80)
def test_a_capture_time_that_cannot_be_true_is_clamped_and_counted(server: RunningServer, spot_jpeg: bytes) -> None:
    hour = 3600 * 10**9
    now = time.time_ns()
    untrue = [now + hour, now - hour, 1, -(2**63), 2**63 - 1]
    results = _paced(server, spot_jpeg, range(len(untrue) + 1), [0, *untrue], max_age_seconds=5)
    assert set(outcomes(results)) == {"answered"}
    assert all(0 <= result.age_seconds < 5 for result in results)
    assert metric(server, "lathe_clamped_capture_times_total") == len(untrue)


def test_a_frame_older_than_the_streams_limit_is_dropped(shared_server: RunningServer, spot_jpeg: bytes) -> None:
    captured = [0, time.time_ns() - 30 * 10**9]
    results = _paced(shared_server, spot_jpeg, range(2), captured, max_age_seconds=10)
    assert outcomes(results) == ["answered", "dropped_too_old"]


@pytest.mark.fault(30)
def test_the_resolution_may_change_in_mid_stream(shared_server: RunningServer) -> None:
    sizes = [(640, 480), (64, 48), (1920, 1080), (300, 777), (640, 480)]
    pictures = [jpeg(spot_of(width, height)) for width, height in sizes]
    results = _paced(shared_server, pictures, range(len(sizes)))
    assert set(outcomes(results)) == {"answered"}
    for result, (width, height) in zip(results, sizes, strict=True):
        boxes = np.array(result.detections.xyxy).reshape(-1, 2, 2)
        assert boxes.mean(axis=(0, 1)) == pytest.approx([width / 2, height / 2], rel=0.1)


def _paced(
    server: RunningServer,
    pictures: bytes | list[bytes],
    indices: object,
    captured: list[int] | None = None,
    **how: float,
) -> list[inference_pb2.Result]:
    """A stream that sends each frame once the one before has its result, so that none is superseded."""
    seen: list[inference_pb2.Result] = []
    numbers = list(indices)  # type: ignore[call-overload]

    def requests() -> Iterator[inference_pb2.DetectStreamRequest]:
        yield config(**how)
        for at, number in enumerate(numbers):
            until(lambda at=at: len(seen) >= at)
            picture = pictures if isinstance(pictures, bytes) else pictures[at]
            yield frame(number, picture, capture_time_unix_ns=captured[at] if captured else 0)

    with channel(server.grpc) as opened:
        for result in stream(opened, requests()):
            seen += [result]
    return seen
