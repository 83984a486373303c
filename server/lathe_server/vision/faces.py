"""From pictures to embeddings, with the time of each stage: of one face that is shown, or of those that were found.

A frame whose faces are to be embedded is decoded twice: reduced for the detector, as for any frame, and whole once
there is a face. Milliseconds of CPU time for JPEGs of 640×480, 1280×720 and 1920×1080, with what the detector's
letterbox takes: twice 1.1, 3.0 and 6.6 with a face and 0.5, 1.2 and 2.7 without; once, whole, then shrunk 0.6, 2.8 and
5.6 for every frame. So most cameras, which see nobody most of the time, pay half; and a pipeline detects to the bit
what its detector alone does. Where the detector has had it whole, as it has PNGs and small pictures, that serves both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from lathe.detections import Detections
from lathe.errors import InvalidInput
from lathe_server.vision.align import are_usable
from lathe_server.vision.decode import decode
from lathe_server.vision.detector import Stages
from lathe_server.vision.embedder import Embedder
from lathe_server.vision.picture import Picture, read_header

LEAST_SPREAD = 2.0
"""Pixels: standard deviation of a portrait's landmarks, along the side where it is larger. So it is in a face eight
pixels wide."""


@dataclass(frozen=True, slots=True)
class Portrait:
    """A picture of which one face is to be embedded.

    Attributes:
        landmarks: 1 × 5 × 2, x and y in pixels of the upright picture; None where the picture is that face, aligned.
    """

    picture: Picture
    landmarks: NDArray[np.float32] | None = None


def largest(found: Detections, most: int, min_side: float) -> NDArray[np.int64]:
    """Places of the faces that are embedded: those of the largest boxes around landmarks that can be aligned by.

    Args:
        found: with five landmarks each.
        most: so many of them.
        min_side: pixels that both sides of a box must have.
    """
    left_top, right_bottom = found.xyxy[:, :2], found.xyxy[:, 2:]
    sides, centre = right_bottom - left_top, found.landmarks.mean(1)
    is_around = ((left_top <= centre) & (centre <= right_bottom)).all(1)
    fit = np.flatnonzero((sides.min(1, initial=np.inf) >= min_side) & is_around & are_usable(found.landmarks))
    area = sides.prod(1)[fit]
    chosen: NDArray[np.int64] = fit[np.argsort(-area, kind="stable")[:most]].astype(np.int64)
    return chosen


def check_portrait(portrait: Portrait, max_pixels: int) -> None:
    """Sees whether its picture could show the face that its landmarks tell of: elsewhere all is black, and the vectors
    of nothing are all the same person's.

    Raises:
        BadPicture: it has no header.
        InvalidInput: the landmarks are not finite, or lie outside the picture or on a spot.
    """
    if portrait.landmarks is None:
        return
    size_wh = read_header(portrait.picture, max_pixels).upright_wh
    points = portrait.landmarks[0].astype(np.float64)
    if not np.isfinite(points).all():
        raise InvalidInput("a face's landmarks must be finite numbers")
    centre = points.mean(0)
    if (centre < 0).any() or (centre > size_wh).any():
        raise InvalidInput(f"the landmarks lie outside the picture, which is {size_wh[0]} x {size_wh[1]}")
    if points.std(0).max() < LEAST_SPREAD:
        raise InvalidInput(f"a face whose landmarks spread over less than {LEAST_SPREAD:g} pixels cannot be seen")


def embed_faces(
    embedder: Embedder,
    picture: Picture,
    landmarks: NDArray[np.float32] | None,
    before_infer: Callable[[], None] = lambda: None,
    decoded: NDArray[np.uint8] | None = None,
) -> tuple[NDArray[np.float32], Stages]:
    """The vectors of some faces of a picture, N × D.

    Args:
        landmarks: N × 5 × 2, N at least 1; None where the picture is one face, aligned.
        before_infer: called before the picture is decoded and before each face; what it raises ends the work there.
        decoded: the upright picture's pixels where somebody has them, maybe reduced, and then of no use here.

    Raises:
        BadPicture: it cannot be decoded.
        InvalidInput: it is no aligned face, or the landmarks cannot be aligned by.
    """
    before_infer()
    began = perf_counter()
    if landmarks is None:
        faces = embedder.decode_aligned(picture)
        read = perf_counter()
    else:
        header = read_header(picture, embedder.max_pixels)
        is_whole = decoded is not None and decoded.shape[1::-1] == header.upright_wh
        pixels = decoded if decoded is not None and is_whole else decode(picture, header, header.upright_wh)
        read = perf_counter()
        faces = embedder.align(pixels, landmarks)
    aligned = perf_counter()
    vectors = []
    for face in faces:
        before_infer()
        vectors.append(embedder.embed_aligned(face[None]))
    done = perf_counter()
    return np.concatenate(vectors), Stages(read - began, aligned - read, done - aligned, 0.0)
