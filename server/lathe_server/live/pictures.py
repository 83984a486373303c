"""Frames as JPEG files for a browser: as they are, or so coarse that nobody is recognised.

What is blurred is blurred here, before it leaves: the whole picture is brought down to some 7000 pixels, and what lies
within a box or around it to a handful of cells. Both are averages, so no more than that can be had back. The picture
beside the boxes is coarse because networks miss faces.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from lathe_server.limits import MAX_PIXELS
from lathe_server.vision.decode import Pixels, decode
from lathe_server.vision.picture import EncodedPicture, Picture, read_header

COARSE_SIDE = 96
"""Pixels of a blurred picture's longer side."""
COARSE_SHARE = 4
"""Small pictures lose detail too: a side has at most one pixel for so many."""
CELLS = 6
"""Of a box's longer side, its margin included."""
MARGIN = 0.2
"""Around a box, as a share of its longer side: networks cut off hair and chins."""
ENLARGED = 5
"""Blurred pictures are sent so many times as large, so that browsers show smooth colours and sharp cells."""
MAX_SIDE = 1920
"""Of what has to be encoded anew to be shown as it is."""
QUALITY = 85


def plain_jpeg(picture: Picture, max_pixels: int = MAX_PIXELS) -> bytes:
    """A picture as every browser shows it, upright: the file that came where it is one, else encoded anew.

    Raises:
        BadPicture: it cannot be decoded.
    """
    header = read_header(picture, max_pixels)
    is_as_browsers_take_it = header.kind == "jpeg" and header.channels != 4 and header.orientation == 1
    if is_as_browsers_take_it and isinstance(picture, EncodedPicture):
        return picture.data
    size_wh = _within(header.upright_wh, MAX_SIDE)
    pixels = decode(picture, header, size_wh)
    if pixels.shape[1] > size_wh[0]:
        pixels = _resized(pixels, size_wh, cv2.INTER_AREA)
    return _encoded(pixels)


def blurred_jpeg(picture: Picture, xyxy: NDArray[np.float32], max_pixels: int = MAX_PIXELS) -> bytes:
    """A picture without detail, and least of it within boxes.

    Args:
        xyxy: N × 4, in pixels of the upright picture.

    Raises:
        BadPicture: it cannot be decoded.
    """
    header = read_header(picture, max_pixels)
    frame_wh = header.upright_wh
    coarse_wh = _within(frame_wh, min(COARSE_SIDE, max(1, max(frame_wh) // COARSE_SHARE)))
    coarse = _resized(decode(picture, header, coarse_wh), coarse_wh, cv2.INTER_AREA)
    scale = np.array((coarse_wh[0] / frame_wh[0], coarse_wh[1] / frame_wh[1]) * 2)
    mosaics = []
    for box in xyxy:
        left, top, right, bottom = _around(box * scale, coarse_wh)
        # Where boxes overlap, the second sees the cells of the first: two grids would tell more than one.
        cells = _averaged(coarse[top:bottom, left:right])
        coarse[top:bottom, left:right] = _resized(cells, (right - left, bottom - top), cv2.INTER_NEAREST)
        mosaics.append((left, top, right, bottom))
    shown = _resized(coarse, (coarse_wh[0] * ENLARGED, coarse_wh[1] * ENLARGED), cv2.INTER_CUBIC)
    for left, top, right, bottom in mosaics:
        size_wh = (right - left) * ENLARGED, (bottom - top) * ENLARGED
        sharp = _resized(coarse[top:bottom, left:right], size_wh, cv2.INTER_NEAREST)
        shown[top * ENLARGED : bottom * ENLARGED, left * ENLARGED : right * ENLARGED] = sharp
    return _encoded(shown)


def _within(size_wh: tuple[int, int], longer_side: int) -> tuple[int, int]:
    """A size of the same shape whose longer side is no longer than that."""
    scale = min(1.0, longer_side / max(size_wh))
    return max(1, round(size_wh[0] * scale)), max(1, round(size_wh[1] * scale))


def _around(box: NDArray[np.float64], size_wh: tuple[int, int]) -> tuple[int, int, int, int]:
    """Whole pixels that cover a box and its margin, at least one.

    >>> _around(np.array((10.0, 10.0, 20.0, 15.5)), (96, 72))
    (8, 8, 22, 18)
    >>> _around(np.array((95.9, 71.9, 99.0, 99.0)), (96, 72))
    (90, 66, 96, 72)
    """
    left, top, right, bottom = (float(side) for side in box)
    margin = MARGIN * max(right - left, bottom - top)
    low = [min(max(0, math.floor(side - margin)), most - 1) for side, most in zip((left, top), size_wh, strict=True)]
    ends = zip((right, bottom), size_wh, low, strict=True)
    high = [max(min(most, math.ceil(side + margin)), least + 1) for side, most, least in ends]
    return low[0], low[1], high[0], high[1]


def _averaged(region: Pixels) -> Pixels:
    height, width = region.shape[:2]
    scale = min(1.0, CELLS / max(width, height))
    return _resized(region, (max(1, round(width * scale)), max(1, round(height * scale))), cv2.INTER_AREA)


def _resized(pixels: Pixels, size_wh: tuple[int, int], how: int) -> Pixels:
    return cv2.resize(pixels, size_wh, interpolation=how).astype(np.uint8, copy=False)


def _encoded(pixels: Pixels) -> bytes:
    encoded: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), QUALITY, "RGB", "420")
    return encoded
