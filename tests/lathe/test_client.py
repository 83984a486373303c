"""The client's own part: messages from pictures, results from messages, and errors one can act on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from lathe import Client
from lathe.client import AsyncClient, ServerError
from lathe.errors import InvalidInput, LatheError, Unavailable
from lathe.exchange import Result, frame_message
from lathe.v1 import inference_pb2
from tests.conftest import RunningServer

NOBODY = "127.0.0.1:1"


def test_file_goes_as_it_is() -> None:
    frame = frame_message(3, b"jpeg", 1.5)
    assert (frame.index, frame.encoded, frame.capture_time_unix_ns) == (3, b"jpeg", 1_500_000_000)


def test_array_goes_raw() -> None:
    rgb = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    raw = frame_message(0, rgb).raw
    assert (raw.width, raw.height, raw.format) == (3, 2, inference_pb2.PIXEL_FORMAT_RGB8)
    assert raw.pixels == rgb.tobytes()
    grey = frame_message(0, rgb[..., 0]).raw  # not contiguous
    assert (grey.format, grey.pixels) == (inference_pb2.PIXEL_FORMAT_GRAY8, rgb[..., 0].tobytes())


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((2, 2, 3), np.float32),
        np.zeros((2, 2, 4), np.uint8),
        np.zeros((2, 2, 1), np.uint8),
        np.zeros((1, 2, 2, 3), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((), np.uint8),
    ],
    ids=lambda picture: f"{picture.dtype}{picture.shape}",
)
def test_array_of_another_kind_is_refused(picture: np.ndarray) -> None:
    with pytest.raises(InvalidInput, match="a raw picture is uint8"):
        frame_message(0, picture)


def test_path_is_no_picture() -> None:
    with pytest.raises(InvalidInput, match="bytes or an array, not str"):
        frame_message(0, "picture.jpg")  # type: ignore[arg-type]


def test_result_of_a_message() -> None:
    message = inference_pb2.Result(index=4, outcome=inference_pb2.OUTCOME_ANSWERED, age_seconds=0.25)
    message.detections.xyxy.extend([1, 2, 3, 4, 5, 6, 7, 8])
    message.detections.score.extend([0.9, 0.8])
    message.detections.class_id.extend([0, 1])
    message.detections.landmarks.extend(range(8))
    message.detections.landmarks_per_detection = 2
    result = Result.from_message(message)
    assert (result.index, result.outcome, result.answered, result.age_seconds) == (4, "answered", True, 0.25)
    assert (result.detections.xyxy.shape, result.detections.landmarks.shape) == ((2, 4), (2, 2, 2))
    assert result.detections.landmarks[1, 0].tolist() == [4, 5]


def test_result_without_detections() -> None:
    found = Result.from_message(inference_pb2.Result()).detections
    assert (len(found), found.xyxy.shape, found.landmarks.shape) == (0, (0, 4), (0, 0, 2))


def test_nobody_answers() -> None:
    with Client(NOBODY, NOBODY) as client:
        for ask in (lambda: client.detect("face", b"x"), client.variants, lambda: client.set_route("face", {"a": 1})):
            with pytest.raises(Unavailable, match=r"^no server answers at that address$"):
                ask()
        with pytest.raises(Unavailable):
            list(client.detect_stream("face", iter([(b"x", 0.0)])))


def test_server_that_dies_ends_a_stream_that_is_not_to_go_on(server: RunningServer, spot_jpeg: bytes) -> None:
    def endless() -> Iterator[tuple[bytes, float]]:
        while True:
            yield spot_jpeg, 0.0

    with server.client() as client:
        results = client.detect_stream("spots", endless(), reconnect_seconds=0)
        assert next(results).answered
        server.process.kill()
        with pytest.raises(Unavailable, match=r"^the connection to the server was lost$"):
            list(results)


def test_server_error_carries_its_status(shared_server: RunningServer) -> None:
    with shared_server.client() as client:
        with pytest.raises(ServerError, match="no such model") as raised:
            client.detect("none", b"x")
        assert raised.value.code is grpc.StatusCode.NOT_FOUND
        with pytest.raises(ServerError) as raised:
            client.detect("spots", b"not a picture")
        assert raised.value.code is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(ServerError, match="no such model"):
            list(client.detect_stream("none", iter([(b"x", 0.0)])))


def test_refused_stream_always_says_why(shared_server: RunningServer) -> None:
    """However far the frames have been sent when the refusal arrives."""
    with shared_server.client() as client:
        for count in range(20):
            with pytest.raises(ServerError, match="no such model") as raised:
                list(client.detect_stream("none", iter([(b"x", 0.0)] * count), live=True))
            assert raised.value.code is grpc.StatusCode.NOT_FOUND


def test_error_of_the_source_reaches_the_caller(shared_server: RunningServer, spot_jpeg: bytes) -> None:
    def frames() -> Iterator[tuple[bytes, float]]:
        yield spot_jpeg, 0.0
        raise Unavailable("the camera is gone")

    with shared_server.client() as client:
        results = client.detect_stream("spots", frames())
        assert next(results).answered  # what was sent before
        with pytest.raises(LatheError, match="the camera is gone"):
            next(results)


def test_stream_may_be_left_early(shared_server: RunningServer, spot_jpeg: bytes) -> None:
    def endless() -> Iterator[tuple[bytes, float]]:
        while True:
            yield spot_jpeg, 0.0

    with shared_server.client() as client:
        for result in client.detect_stream("spots", endless()):
            if result.index == 3:
                break
        assert client.detect("spots", spot_jpeg).answered


def test_raw_frames_and_files_are_found_alike(shared_server: RunningServer) -> None:
    pixels = np.zeros((128, 160, 3), np.uint8)
    pixels[64:68, 80:84] = 255
    with shared_server.client() as client:
        colour, grey = client.detect("spots", pixels), client.detect("spots", pixels[..., 0])
    np.testing.assert_array_equal(colour.detections.xyxy, grey.detections.xyxy)
    assert len(colour.detections) == 1


def test_asyncio_client(shared_server: RunningServer, spot_jpeg: bytes) -> None:
    async def ask() -> list[int]:
        async def frames():  # type: ignore[no-untyped-def]
            for _ in range(3):
                yield spot_jpeg, 0.0

        async with AsyncClient(shared_server.grpc, shared_server.control) as client:
            return [result.index async for result in client.detect_stream("spots", frames())]

    assert asyncio.run(ask()) == [0, 1, 2]
