"""From pictures to embeddings, with the time of each stage: of one face that is shown, or of those that were found.

A frame whose faces are to be embedded is decoded twice: reduced for the detector, as for any frame, and whole once
there is a face. Milliseconds of CPU time for JPEGs of 640×480, 1280×720 and 1920×1080, with what the detector's
letterbox takes: twice 1.1, 3.0 and 6.6 with a face and 0.5, 1.2 and 2.7 without; once, whole, then shrunk 0.6, 2.8 and
5.6 for every frame. So most cameras, which see nobody most of the time, pay half; and a pipeline detects to the bit
what its detector alone does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from lathe.detections import Detections
from lathe_server.vision.align import are_usable
from lathe_server.vision.decode import decode
from lathe_server.vision.detector import Stages
from lathe_server.vision.embedder import Embedder
from lathe_server.vision.picture import Picture, read_header


@dataclass(frozen=True, slots=True)
class Portrait:
    """A picture of which one face is to be embedded.

    Attributes:
        landmarks: 1 × 5 × 2, x and y in pixels of the upright picture; None where the picture is that face, aligned.
    """

    picture: Picture
    landmarks: NDArray[np.float32] | None = None


def largest(found: Detections, most: int, min_side: float) -> NDArray[np.int64]:
    """Places of the faces that are embedded: those of the largest boxes whose landmarks can be aligned by.

    Args:
        found: with five landmarks each.
        most: so many of them.
        min_side: pixels that both sides of a box must have.
    """
    sides = found.xyxy[:, 2:] - found.xyxy[:, :2]
    fit = np.flatnonzero((sides.min(1, initial=np.inf) >= min_side) & are_usable(found.landmarks))
    area = sides.prod(1)[fit]
    chosen: NDArray[np.int64] = fit[np.argsort(-area, kind="stable")[:most]].astype(np.int64)
    return chosen


def embed_faces(
    embedder: Embedder,
    picture: Picture,
    landmarks: NDArray[np.float32] | None,
    before_infer: Callable[[], None] = lambda: None,
) -> tuple[NDArray[np.float32], Stages]:
    """The vectors of some faces of a picture, N × D.

    Args:
        landmarks: N × 5 × 2, N at least 1; None where the picture is one face, aligned.
        before_infer: called when the network could run; what it raises ends the work there.

    Raises:
        BadPicture: it cannot be decoded.
        InvalidInput: it is no aligned face, or the landmarks cannot be aligned by.
    """
    began = perf_counter()
    if landmarks is None:
        faces = embedder.decode_aligned(picture)
        decoded = perf_counter()
    else:
        header = read_header(picture, embedder.max_pixels)
        pixels = decode(picture, header, header.upright_wh)
        decoded = perf_counter()
        faces = embedder.align(pixels, landmarks)
    before_infer()
    aligned = perf_counter()
    vectors = embedder.embed_aligned(faces)
    done = perf_counter()
    return vectors, Stages(decoded - began, aligned - decoded, done - aligned, 0.0)
