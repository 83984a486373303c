"""Raw pixels: what width, height, stride, format and bytes must have to do with each other."""

from __future__ import annotations

import numpy as np
import pytest

from lathe.errors import BadPicture
from lathe.v1 import inference_pb2
from lathe_server.limits import MAX_PIXELS
from lathe_server.vision import Detector, RawPicture, decode
from lathe_server.vision.picture import read_header
from tests.calls import channel, inference, refusal
from tests.conftest import RunningServer
from tests.pictures import scene, spot_of

RGB = scene(7, 5)
MISMATCHES = {
    "one byte short": RawPicture(7, 5, 0, "rgb8", RGB.tobytes()[:-1]),
    "one byte long": RawPicture(7, 5, 0, "rgb8", RGB.tobytes() + b"\0"),
    "empty": RawPicture(7, 5, 0, "rgb8", b""),
    "stride below a row": RawPicture(7, 5, 20, "rgb8", RGB.tobytes()),
    "stride without its bytes": RawPicture(7, 5, 24, "rgb8", RGB.tobytes()),
    "grey that is colour": RawPicture(7, 5, 0, "gray8", RGB.tobytes()),
    "no width": RawPicture(0, 5, 0, "rgb8", b""),
    "no height": RawPicture(7, 0, 0, "rgb8", b""),
    "the largest width and height": RawPicture(2**32 - 1, 2**32 - 1, 0, "rgb8", bytes(100)),
    "2^31 × 2^31": RawPicture(2**31, 2**31, 0, "gray8", bytes(100)),
    "the largest stride": RawPicture(1, 3, 2**32 - 1, "gray8", bytes(100)),
    "over the limit with its bytes": RawPicture(MAX_PIXELS + 1, 1, 0, "gray8", bytes(MAX_PIXELS + 1)),
}


@pytest.mark.fault(6, 7, 27)
@pytest.mark.parametrize("kind", MISMATCHES)
def test_a_raw_picture_that_does_not_add_up_is_refused(detector: Detector, kind: str) -> None:
    with pytest.raises(BadPicture):
        detector.detect(MISMATCHES[kind])


@pytest.mark.fault(27)
@pytest.mark.parametrize("padding", [0, 1, 43])
@pytest.mark.parametrize("last_row_padded", [False, True])
def test_rows_may_be_padded_and_the_last_row_need_not_be(padding: int, last_row_padded: bool) -> None:
    stride = 21 + padding
    rows = np.full((5, stride), 99, np.uint8)
    rows[:, :21] = RGB.reshape(5, 21)
    pixels = rows.tobytes() if last_row_padded else rows.tobytes()[: stride * 4 + 21]
    picture = RawPicture(7, 5, stride, "rgb8", pixels)
    assert np.array_equal(decode(picture, read_header(picture), (7, 5)), RGB)


def test_each_format_becomes_rgb() -> None:
    bgr = RawPicture(7, 5, 0, "bgr8", RGB[..., ::-1].tobytes())
    assert np.array_equal(decode(bgr, read_header(bgr), (7, 5)), RGB)
    grey = RawPicture(7, 5, 0, "gray8", RGB[..., 0].tobytes())
    assert np.array_equal(decode(grey, read_header(grey), (7, 5)), np.repeat(RGB[..., :1], 3, axis=2))


@pytest.mark.parametrize("stride", [0, 640 * 3 + 64])
def test_a_raw_picture_is_judged_whatever_its_stride(detector: Detector, stride: int) -> None:
    rows = np.zeros((480, stride or 1920), np.uint8)
    rows[:, :1920] = spot_of(640, 480).reshape(480, 1920)
    found = detector.detect(RawPicture(640, 480, stride, "rgb8", rows.tobytes())).detections
    assert found.xyxy.mean(axis=0) == pytest.approx([296, 216, 344, 264], abs=32)


@pytest.mark.fault(22)
@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 65_535), (65_535, 1), (MAX_PIXELS, 1), (1, MAX_PIXELS)])
def test_a_sliver_is_answered(detector: Detector, width: int, height: int) -> None:
    assert not len(detector.detect(RawPicture(width, height, 0, "gray8", bytes(width * height))).detections)


@pytest.mark.fault(6, 7, 27)
@pytest.mark.parametrize("kind", [kind for kind in MISMATCHES if "with its bytes" not in kind])
def test_it_is_an_invalid_argument_over_the_wire(shared_server: RunningServer, kind: str) -> None:
    raw = MISMATCHES[kind]
    message = inference_pb2.RawPicture(
        width=raw.width,
        height=raw.height,
        stride=raw.stride,
        format=inference_pb2.PixelFormat.Value(f"PIXEL_FORMAT_{raw.format.upper()}"),
        pixels=raw.pixels,
    )
    request = inference_pb2.DetectRequest(model="spots", frame=inference_pb2.Frame(raw=message))
    with channel(shared_server.grpc) as opened:
        assert refusal(lambda: inference(opened).Detect(request)).code().name == "INVALID_ARGUMENT"
