"""Pictures made byte by byte, well-formed and not."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
from numpy.typing import NDArray

PNG = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {"grey": 0, "rgb": 2, "palette": 3, "grey+alpha": 4, "rgba": 6}


def spot_of(width: int, height: int) -> NDArray[np.uint8]:
    """Black with a white spot in the middle, a tenth of the sides across."""
    pixels = np.zeros((height, width, 3), np.uint8)
    half_w, half_h = max(1, width // 20), max(1, height // 20)
    pixels[height // 2 - half_h : height // 2 + half_h, width // 2 - half_w : width // 2 + half_w] = 255
    return pixels


def scene(width: int = 160, height: int = 120, seed: int = 1) -> NDArray[np.uint8]:
    """Smooth colours that differ in every corner, with some grain: as a photograph compresses."""
    dice = np.random.default_rng(seed)
    coarse = dice.integers(0, 256, (4, 5, 3), np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    return np.clip(smooth + dice.integers(-8, 9, smooth.shape), 0, 255).astype(np.uint8)


def jpeg(pixels: NDArray[np.uint8], *how: int) -> bytes:
    """RGB or grey pixels as a JPEG; `how` as in cv2.imencode."""
    bgr = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    ok, data = cv2.imencode(".jpg", bgr, how)
    assert ok
    return data.tobytes()


def with_segments(jpeg_file: bytes, segments: bytes) -> bytes:
    return jpeg_file[:2] + segments + jpeg_file[2:]


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def with_orientation(jpeg_file: bytes, orientation: int, order: str = "<") -> bytes:
    """With an EXIF segment of one entry."""
    tiff = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HIH", 42, 8, 1)
    tiff += struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0) + struct.pack(order + "I", 0)
    return with_segments(jpeg_file, segment(0xE1, b"Exif\0\0" + tiff))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_header(width: int, height: int, colour: str = "rgb", depth: int = 8) -> bytes:
    return PNG + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, COLOUR_TYPES[colour], 0, 0, 0))


def png(pixels: NDArray[np.uint8] | NDArray[np.uint16], colour: str = "rgb", extra: bytes = b"") -> bytes:
    """Height × width × channels as a PNG of this colour type; `extra` chunks go before the pixels."""
    height, width = pixels.shape[:2]
    big_endian = pixels.astype(pixels.dtype.newbyteorder(">"))
    rows = b"".join(b"\0" + row.tobytes() for row in big_endian)
    return (
        png_header(width, height, colour, pixels.dtype.itemsize * 8)
        + extra
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
