"""One rule for each kind of picture, whichever decoder reads it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray

from lathe.errors import BadPicture
from lathe_server.vision import EncodedPicture, decode
from lathe_server.vision.picture import read_header
from tests.pictures import chunk, jpeg, png, scene, segment, with_orientation, with_segments

RGB = scene(64, 48)


def decoded(data: bytes, cover_wh: tuple[int, int] = (10_000, 10_000)) -> NDArray[np.uint8]:
    picture = EncodedPicture(data)
    return decode(picture, read_header(picture), cover_wh)


def viewed(data: bytes) -> NDArray[np.uint8]:
    """As OpenCV shows it, upright."""
    shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert shown is not None
    return shown.astype(np.uint8)


def cmyk_jpeg() -> bytes:
    """As Photoshop writes it: inverted, with Adobe's marker."""
    key = np.full((*RGB.shape[:2], 1), 255, np.uint8)
    return bytes(simplejpeg.encode_jpeg(np.concatenate((RGB, key), axis=2), 95, "CMYK", "444"))


@pytest.mark.fault(23)
def test_a_16_bit_png_keeps_its_high_bytes() -> None:
    deep = RGB.astype(np.uint16) << 8 | 0x7F
    assert np.abs(decoded(png(deep)).astype(int) - RGB).max() <= 1


@pytest.mark.fault(23)
def test_a_grey_picture_becomes_three_equal_planes() -> None:
    grey = RGB[..., :1]
    assert np.array_equal(decoded(png(grey, "grey")), np.repeat(grey, 3, axis=2))
    from_jpeg = decoded(jpeg(RGB[..., 0]))
    assert from_jpeg.shape == RGB.shape
    assert np.array_equal(from_jpeg[..., 0], from_jpeg[..., 2])


@pytest.mark.fault(23)
def test_alpha_is_dropped() -> None:
    alpha = np.arange(64 * 48, dtype=np.uint8).reshape(48, 64, 1)
    assert np.array_equal(decoded(png(np.concatenate((RGB, alpha), axis=2), "rgba")), RGB)
    grey_alpha = np.concatenate((RGB[..., :1], alpha), axis=2)
    assert np.array_equal(decoded(png(grey_alpha, "grey+alpha")), np.repeat(RGB[..., :1], 3, axis=2))


@pytest.mark.fault(23)
@pytest.mark.parametrize("transparent", [False, True])
def test_a_palette_is_looked_up(transparent: bool) -> None:
    palette = np.random.default_rng(3).integers(0, 256, (256, 3), np.uint8)
    index = np.arange(64 * 48, dtype=np.uint8).reshape(48, 64, 1)
    extra = chunk(b"PLTE", palette.tobytes()) + (chunk(b"tRNS", bytes(100)) if transparent else b"")
    assert np.array_equal(decoded(png(index, "palette", extra)), palette[index[..., 0]])


@pytest.mark.fault(23)
def test_a_progressive_jpeg_equals_its_baseline_twin() -> None:
    assert np.array_equal(decoded(jpeg(RGB, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)), decoded(jpeg(RGB)))


@pytest.mark.fault(23)
def test_a_cmyk_jpeg_becomes_rgb() -> None:
    pixels = decoded(cmyk_jpeg())
    assert pixels.shape == RGB.shape
    assert np.abs(pixels.astype(int) - RGB).mean() < 4


@pytest.mark.fault(23)
@pytest.mark.parametrize(
    ("marker", "depth", "components"),
    [(0xC9, 8, 3), (0xCA, 8, 3), (0xC3, 8, 3), (0xC5, 8, 3), (0xC1, 12, 3), (0xC0, 8, 2), (0xC0, 8, 5)],
    ids=["arithmetic", "arithmetic progressive", "lossless", "hierarchical", "12 bits", "2 planes", "5 planes"],
)
def test_a_jpeg_of_another_coding_is_refused_by_its_header(marker: int, depth: int, components: int) -> None:
    baseline = jpeg(RGB)
    at = baseline.index(b"\xff\xc0")
    frame = bytearray(baseline)
    frame[at + 1], frame[at + 4], frame[at + 9] = marker, depth, components
    with pytest.raises(BadPicture):
        read_header(EncodedPicture(bytes(frame)))


@pytest.mark.fault(24)
@pytest.mark.parametrize("order", ["<", ">"], ids=["little-endian", "big-endian"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured_as_viewers_do(orientation: int, order: str) -> None:
    turned = with_orientation(jpeg(RGB), orientation, order)
    assert np.array_equal(decoded(turned), viewed(turned))
    assert read_header(EncodedPicture(turned)).upright_wh == viewed(turned).shape[1::-1]


@pytest.mark.fault(24)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_decoder_turns_a_picture_the_same_way(orientation: int) -> None:
    """CMYK takes another decoder, a large picture a reduced size; both must end upright."""
    plain, cmyk = (with_orientation(data, orientation) for data in (jpeg(RGB), cmyk_jpeg()))
    assert np.abs(decoded(cmyk).astype(int) - decoded(plain)).mean() < 6
    large = with_orientation(jpeg(scene(640, 480)), orientation)
    reduced, whole = decoded(large, (80, 80)), decoded(large)
    assert reduced.size < whole.size
    assert min(reduced.shape[:2]) >= 80
    shrunk = cv2.resize(whole, reduced.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(reduced.astype(int) - shrunk).mean() < 4


@pytest.mark.fault(24, 26)
@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0II*\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
        b"Exif\0\0XX*\0\x08\0\0\0\x01\0",
    ],
    ids=["empty", "cut", "offset beyond", "65535 entries", "no byte order"],
)
def test_exif_that_makes_no_sense_means_upright(exif: bytes) -> None:
    data = with_segments(jpeg(RGB), segment(0xE1, exif))
    assert np.array_equal(decoded(data), decoded(jpeg(RGB)))


@pytest.mark.fault(24)
@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_an_orientation_that_does_not_exist_means_upright(orientation: int) -> None:
    assert np.array_equal(decoded(with_orientation(jpeg(RGB), orientation)), decoded(jpeg(RGB)))
