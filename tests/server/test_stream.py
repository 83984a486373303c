"""DetectStream over a real port: the protocol of a stream."""

from __future__ import annotations

import pytest

from tests.conftest import RunningServer


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
