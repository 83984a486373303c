"""Pictures that are none, or lie: each refused with one line, most of them unread."""

from __future__ import annotations

import struct
import time
import zlib

import cv2
import numpy as np
import pytest

from lathe.errors import BadPicture
from lathe.v1 import inference_pb2
from lathe_server.vision import Detector, EncodedPicture
from lathe_server.vision.picture import MAX_CHUNKS, MAX_SCANS, pixels_only, read_header
from tests.calls import channel, inference, refusal
from tests.conftest import RunningServer
from tests.pictures import chunk, jpeg, png, png_header, scene, segment, with_segments

JPEG = jpeg(scene())
PNG = png(scene(40, 30))
NOT_PICTURES = {
    "empty": b"",
    "text": b"hello, this is no picture",
    "HTML": b"<!doctype html><html><body>404</body></html>",
    "ZIP": b"PK\x03\x04" + bytes(60),
    "WebP": b"RIFF\x24\0\0\0WEBPVP8 " + bytes(32),
    "TIFF": b"II*\0\x08\0\0\0" + bytes(32),
    "big-endian TIFF": b"MM\0*\0\0\0\x08" + bytes(32),
    "GIF": b"GIF89a\x01\0\x01\0\x80\0\0" + bytes(32),
    "HEIF": b"\0\0\0\x18ftypheic" + bytes(32),
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "PDF": b"%PDF-1.7\n" + bytes(32),
    "BMP": b"BM" + bytes(60),
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(32),
    "OpenEXR": b"\x76\x2f\x31\x01" + bytes(32),
}


@pytest.mark.fault(17, 25)
@pytest.mark.parametrize("kind", NOT_PICTURES)
def test_what_is_neither_jpeg_nor_png_is_refused(detector: Detector, kind: str) -> None:
    with pytest.raises(BadPicture):
        detector.detect(EncodedPicture(NOT_PICTURES[kind]))


@pytest.mark.fault(25)
@pytest.mark.parametrize("extension", [".webp", ".tiff", ".bmp", ".ppm", ".gif"])
def test_a_picture_that_the_decoder_could_read_is_refused_where_it_is_not_on_the_list(
    detector: Detector, extension: str
) -> None:
    ok, whole = cv2.imencode(extension, scene())
    assert ok
    with pytest.raises(BadPicture, match="neither JPEG nor PNG"):
        detector.detect(EncodedPicture(whole.tobytes()))


@pytest.mark.fault(17, 25)
def test_what_is_no_picture_is_an_invalid_argument_over_the_wire(shared_server: RunningServer) -> None:
    with channel(shared_server.grpc) as opened:
        for content in NOT_PICTURES.values():
            request = inference_pb2.DetectRequest(model="spots", frame=inference_pb2.Frame(encoded=content))
            assert refusal(lambda r=request: inference(opened).Detect(r)).code().name == "INVALID_ARGUMENT"


@pytest.mark.fault(18)
@pytest.mark.parametrize("percent", range(0, 100, 5))
@pytest.mark.parametrize(
    "whole",
    [JPEG, jpeg(scene(), cv2.IMWRITE_JPEG_PROGRESSIVE, 1), jpeg(scene()[..., 0]), PNG],
    ids=["JPEG", "progressive JPEG", "grey JPEG", "PNG"],
)
def test_a_picture_cut_at_any_point_is_refused(detector: Detector, whole: bytes, percent: int) -> None:
    with pytest.raises(BadPicture):
        detector.detect(EncodedPicture(whole[: len(whole) * percent // 100]))


@pytest.mark.fault(18)
def test_a_png_whose_pixels_end_early_is_refused_though_its_end_is_there(detector: Detector) -> None:
    rows = zlib.compress((b"\0" + bytes(3 * 40)) * 15)  # half of what the header says
    with pytest.raises(BadPicture):
        detector.detect(EncodedPicture(png_header(40, 30) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")))


BOMBS = {
    "PNG of 144 megapixels": png_header(12_000, 12_000) + chunk(b"IDAT", bytes(17_000)) + chunk(b"IEND", b""),
    "PNG of 2^31 × 2^31": png_header(2**31 - 1, 2**31 - 1) + chunk(b"IEND", b""),
    "JPEG of 30000²": b"\xff\xd8" + segment(0xC0, struct.pack(">BHHB", 8, 30_000, 30_000, 3) + bytes(9)) + bytes(43),
    "PNG of no width": png_header(0, 100) + chunk(b"IEND", b""),
    "JPEG of no height": b"\xff\xd8" + segment(0xC0, struct.pack(">BHHB", 8, 0, 100, 3) + bytes(9)),
}


@pytest.mark.fault(20, 21, 22)
@pytest.mark.parametrize("kind", BOMBS)
def test_a_size_that_cannot_be_is_refused_by_the_header_within_a_millisecond(kind: str) -> None:
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        with pytest.raises(BadPicture):
            read_header(EncodedPicture(BOMBS[kind]))
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.001


@pytest.mark.fault(21)
def test_a_header_that_lies_below_the_limit_is_refused_when_the_pixels_are_missing(detector: Detector) -> None:
    taller = JPEG.replace(struct.pack(">BHH", 8, 120, 160), struct.pack(">BHH", 8, 2000, 160))
    assert taller != JPEG
    with pytest.raises(BadPicture):
        detector.detect(EncodedPicture(taller))


@pytest.mark.fault(26)
@pytest.mark.parametrize("marker", [0xE1, 0xE2, 0xEF, 0xFE], ids=["EXIF", "ICC", "APP15", "comment"])
def test_ten_megabytes_of_metadata_are_skipped_in_no_time(detector: Detector, marker: int) -> None:
    large = with_segments(JPEG, segment(marker, b"Exif\0\0" + bytes(60_000)) * 170)
    assert len(large) > 10_000_000
    began = time.perf_counter()
    answer = detector.detect(EncodedPicture(large))
    assert time.perf_counter() - began < 1
    plain = detector.detect(EncodedPicture(JPEG))
    assert np.array_equal(answer.detections.xyxy, plain.detections.xyxy)


@pytest.mark.fault(26)
@pytest.mark.parametrize(
    "filling",
    [b"\xff" * 10, b"\xff\x01" * 5, segment(0xE0, b""), b"\xff\xd0" * 5],
    ids=["fill bytes", "standalone markers", "empty segments", "restarts"],
)
def test_a_jpeg_of_nothing_but_markers_is_refused_without_being_walked_to_its_end(filling: bytes) -> None:
    began = time.perf_counter()
    with pytest.raises(BadPicture):
        read_header(EncodedPicture(b"\xff\xd8" + filling * (10_000_000 // len(filling))))
    assert time.perf_counter() - began < 0.1


@pytest.mark.fault(20)
def test_a_jpeg_of_endless_scans_is_refused_by_its_header() -> None:
    progressive = jpeg(scene(), cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    last_scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    with pytest.raises(BadPicture, match="scans"):
        read_header(EncodedPicture(progressive[:-2] + last_scan * MAX_SCANS + b"\xff\xd9"))
    before_the_end = progressive[:-2] + segment(0xFE, b"\xff\xd9") + last_scan * MAX_SCANS + b"\xff\xd9"
    with pytest.raises(BadPicture, match="scans"):
        read_header(EncodedPicture(before_the_end))


def test_what_follows_the_end_of_a_jpeg_is_not_looked_into(detector: Detector) -> None:
    detector.detect(EncodedPicture(JPEG + b"\xff\xda\0\x08" * 1000))


@pytest.mark.fault(20, 26)
def test_compressed_texts_in_a_png_are_not_inflated(detector: Detector) -> None:
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(7_900_000), 9)) * 100  # 1.4 s where they are
    began = time.perf_counter()
    detector.detect(EncodedPicture(png(scene(), extra=text)))
    assert time.perf_counter() - began < 0.5


@pytest.mark.fault(26)
def test_a_png_of_countless_chunks_is_refused() -> None:
    with pytest.raises(BadPicture, match="chunks"):
        pixels_only(png(scene(), extra=chunk(b"tEXt", b"") * MAX_CHUNKS))


@pytest.mark.fault(22)
@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 65_500), (65_500, 1), (2, 3)])
def test_a_sliver_is_answered(detector: Detector, width: int, height: int) -> None:
    black = np.zeros((height, width, 3), np.uint8)
    for data in (jpeg(black), png(black)):
        assert len(detector.detect(EncodedPicture(data)).detections) == 0
