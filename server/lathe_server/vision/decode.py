"""Pictures to pixels, by one rule a format.

| picture | rule |
|---|---|
| JPEG, grey or colour | libjpeg-turbo, at the largest reduced size that still covers what the network sees |
| JPEG, CMYK | OpenCV's conversion to RGB |
| PNG: palette, grey, 16 bits, alpha | expanded to 8-bit RGB as OpenCV does; alpha is dropped |
| PNG: texts, profiles, animation, orientation | left out: the first picture, as stored |
| JPEG of lossless, hierarchical or arithmetic coding, or of 12 bits | refused by its header |
| EXIF orientation (JPEG) | honoured: coordinates are those of the upright picture, as viewers show it |
| damaged or truncated | refused; a partly decoded picture is never judged |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from lathe.errors import BadPicture
from lathe_server.vision.picture import EncodedPicture, Header, Picture, RawPicture, pixels_only

Pixels = NDArray[np.uint8]

_FROM_STORED: dict[int, Callable[[Pixels], Any]] = {
    2: lambda p: cv2.flip(p, 1),
    3: lambda p: cv2.rotate(p, cv2.ROTATE_180),
    4: lambda p: cv2.flip(p, 0),
    5: cv2.transpose,
    6: lambda p: cv2.rotate(p, cv2.ROTATE_90_CLOCKWISE),
    7: lambda p: cv2.rotate(cv2.transpose(p), cv2.ROTATE_180),
    8: lambda p: cv2.rotate(p, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


def decode(picture: Picture, header: Header, cover_wh: tuple[int, int]) -> Pixels:
    """Decodes a checked picture to upright RGB.

    Args:
        picture: what arrived.
        header: what `read_header` said of it.
        cover_wh: upright size that the pixels must at least have; a JPEG may come back
            reduced (by eighths) as long as it covers this.

    Returns:
        Height × width × 3, uint8, RGB; width and height are at most those of the header.

    Raises:
        BadPicture: damaged, truncated, or not what its header says.
    """
    if isinstance(picture, RawPicture):
        return _raw(picture, header)
    by_libjpeg = header.kind == "jpeg" and header.channels != 4
    pixels = _jpeg(picture, header, cover_wh) if by_libjpeg else _opencv(picture, header)
    turn = _FROM_STORED.get(header.orientation)
    if turn is None:
        return pixels
    upright: Pixels = turn(pixels)
    return upright


def _jpeg(picture: EncodedPicture, header: Header, cover_wh: tuple[int, int]) -> Pixels:
    width, height = cover_wh if header.orientation < 5 else (cover_wh[1], cover_wh[0])
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(
            picture.data,
            "RGB",
            min_height=min(height, header.height),
            min_width=min(width, header.width),
            strict=True,
        )
    except ValueError as error:
        raise BadPicture("the JPEG is damaged or truncated") from error
    return pixels


def _opencv(picture: EncodedPicture, header: Header) -> Pixels:
    data = pixels_only(picture.data) if header.kind == "png" else picture.data
    try:
        pixels = cv2.imdecode(
            np.frombuffer(data, np.uint8),
            cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION,
        )
    except cv2.error as error:
        raise BadPicture("the picture is damaged") from error
    if pixels is None:
        raise BadPicture("the picture is damaged or truncated")
    return pixels.astype(np.uint8, copy=False)


def _raw(raw: RawPicture, header: Header) -> Pixels:
    stride = raw.stride or raw.width * header.channels
    view: Pixels = np.ndarray(
        (raw.height, raw.width, header.channels),
        np.uint8,
        raw.pixels,
        strides=(stride, header.channels, 1),
    )
    if raw.format == "gray8":
        return np.repeat(view, 3, axis=2)
    if raw.format == "bgr8":
        return cv2.cvtColor(np.ascontiguousarray(view), cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
    return view
