"""Training pictures for embedding networks: one aligned face each, as cameras and detectors might have given it.

Detectors place landmarks a little differently each time, so a face is a little larger, turned and shifted. As with
mosaics, a scene depends on its number and the seed alone.
"""

from __future__ import annotations

import cv2
import numpy as np

from lathe_compression.frames import FramePool
from lathe_compression.scenes import Augment, Scene, as_a_camera_sees

MARGIN = 1 / 6
"""Share of the network's input that is kept around it on every side, for faces that are shifted."""


def margin_of(size_wh: tuple[int, int]) -> int:
    """In pixels."""
    return round(max(size_wh) * MARGIN)


def face_scene(pool: FramePool, augment: Augment, size_wh: tuple[int, int], seed: int, number: int) -> Scene:
    """Scene `number` of a run.

    Args:
        pool: aligned faces with their margin.
        size_wh: of the network's input.
    """
    random = np.random.default_rng([seed, number])
    chosen = pool.draw(random)
    height, width = pool.size(chosen)
    face = pool.crop(chosen, (0, 0), (height, width), height)
    scale = np.exp(random.uniform(-1, 1) * np.log1p(augment.scale))
    angle = random.uniform(-augment.turn, augment.turn)
    shift = random.uniform(-augment.shift, augment.shift, 2) * size_wh
    # OpenCV's pixel centres have whole numbers.
    matrix = np.array(cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, float(scale)), np.float64)
    matrix[:, 2] += shift - (np.array((width, height)) - size_wh) / 2
    seen = cv2.warpAffine(np.ascontiguousarray(face), matrix, size_wh, flags=cv2.INTER_LINEAR)
    if augment.flip and random.random() < 0.5:
        seen = np.ascontiguousarray(seen[:, ::-1])
    return Scene(as_a_camera_sees(seen.astype(np.uint8, copy=False), augment, random))
