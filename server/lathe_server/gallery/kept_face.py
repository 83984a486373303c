"""What is kept of an enrolled face where re-enrolment is allowed: it and little around it, and its landmarks."""

from __future__ import annotations

import struct

import cv2
import numpy as np
from numpy.typing import NDArray

from lathe.errors import Refused
from lathe_server.limits import MAX_PIXELS
from lathe_server.vision import EncodedPicture, Picture, Portrait, decode
from lathe_server.vision.align import LANDMARKS
from lathe_server.vision.picture import read_header

MARGIN = 0.5
"""Of the face's box on each side: more than any alignment looks at."""
LONGEST_SIDE = 512
JPEG_QUALITY = 95
_HEAD = struct.Struct(f"<4s{2 * LANDMARKS}f")
_MAGIC = b"FACE"


def cut(picture: Picture, xyxy: NDArray[np.floating], landmarks: NDArray[np.floating], most: int = MAX_PIXELS) -> bytes:
    """The face as bytes: a JPEG behind its landmarks.

    Args:
        xyxy: 4, the face's box in pixels of the upright picture.
        landmarks: 5 × 2, in the same.
        most: pixels; larger pictures are refused by their header.

    Raises:
        BadPicture: it cannot be decoded.
    """
    header = read_header(picture, most)
    pixels = decode(picture, header, header.upright_wh)
    height, width = pixels.shape[:2]
    margin = MARGIN * (xyxy[2:] - xyxy[:2])
    left, top = np.floor(np.clip(xyxy[:2] - margin, 0, None)).astype(int)
    right, bottom = np.ceil(np.clip(xyxy[2:] + margin, (left + 1, top + 1), (width, height))).astype(int)
    face = pixels[top:bottom, left:right]
    scale = min(1.0, LONGEST_SIDE / max(face.shape[:2]))
    if scale < 1:
        size_wh = tuple(max(1, round(scale * side)) for side in (face.shape[1], face.shape[0]))
        face = cv2.resize(face, size_wh, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    across, down = face.shape[1] / (right - left), face.shape[0] / (bottom - top)
    moved = ((landmarks - (left, top)) * (across, down)).ravel().tolist()
    bgr = cv2.cvtColor(np.ascontiguousarray(face), cv2.COLOR_RGB2BGR)
    _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return _HEAD.pack(_MAGIC, *moved) + jpeg.tobytes()


def portrait(kept: bytes) -> Portrait:
    """The face, as an embedding network takes it.

    Raises:
        Refused: something else was kept.
    """
    if kept[: len(_MAGIC)] != _MAGIC or len(kept) <= _HEAD.size:
        raise Refused("what was kept of a face was not kept by this gallery")
    _, *numbers = _HEAD.unpack_from(kept)
    landmarks = np.array(numbers, np.float32).reshape(1, LANDMARKS, 2)
    return Portrait(EncodedPicture(kept[_HEAD.size :]), landmarks)
