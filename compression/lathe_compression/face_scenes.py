"""Training pictures for embedding networks: one aligned face each, as cameras and detectors might have given it.

Detectors place landmarks a little differently each time, so a face is a little larger, turned and shifted. Who has few
people to learn from can make more of them: faces that are two in one, or whose parts are moved. Nobody need know who
they are of: the teacher says where each lies. As with mosaics, a scene depends on its number and the seed alone.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lathe_compression.frames import FramePool
from lathe_compression.scenes import Augment, Scene, as_a_camera_sees

MARGIN = 1 / 6
"""Share of the network's input that is kept around it on every side, for faces that are shifted."""
STEEPNESS = 3.0
"""Of the change from one face to the other, where parts of one are in the other."""
CELLS_THAT_MOVE = 5

Pixels = NDArray[np.uint8]


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
    face = _draw(pool, random)
    height, width = face.shape[:2]
    if augment.mix and random.random() < augment.mix:
        face = _mixed(face, _draw(pool, random), random)
    scale = np.exp(random.uniform(-1, 1) * np.log1p(augment.scale))
    angle = random.uniform(-augment.turn, augment.turn)
    shift = random.uniform(-augment.shift, augment.shift, 2) * size_wh
    # OpenCV's pixel centres have whole numbers.
    matrix = np.array(cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, float(scale)), np.float64)
    matrix[:, 2] += shift - (np.array((width, height)) - size_wh) / 2
    face = np.ascontiguousarray(face)
    if augment.bend:
        seen = _bent(face, matrix, size_wh, random.uniform(0, augment.bend) * min(size_wh), random)
    else:
        seen = cv2.warpAffine(face, matrix, size_wh, flags=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
    if augment.flip and random.random() < 0.5:
        seen = np.ascontiguousarray(seen[:, ::-1])
    return Scene(as_a_camera_sees(seen, augment, random))


def _draw(pool: FramePool, random: np.random.Generator) -> Pixels:
    chosen = pool.draw(random)
    height, width = pool.size(chosen)
    return pool.crop(chosen, (0, 0), (height, width), height)


def _mixed(one: Pixels, other: Pixels, random: np.random.Generator) -> Pixels:
    """Two aligned faces in one, of nobody: the one through the other, or parts of the one in the other."""
    if random.random() < 0.5:
        other = other[:, ::-1]
    if random.random() < 0.5:
        share: Any = np.float32(random.uniform(0.25, 0.75))
    else:
        height, width = one.shape[:2]
        field = _smooth((width, height), int(random.integers(3, 7)), random)
        share = 1 / (1 + np.exp(STEEPNESS * field + random.normal(0, 0.5)))[:, :, None]
    mixed: Pixels = (share * one + (1 - share) * other).astype(np.uint8)
    return mixed


def _bent(
    face: Pixels, matrix: NDArray[np.float64], size_wh: tuple[int, int], distance: float, random: np.random.Generator
) -> Pixels:
    """The face in its place, with its parts moved against each other: longer, broader, on one side.

    Args:
        distance: that parts are moved by, pixels: about the standard deviation.
    """
    columns, rows = np.meshgrid(*(np.arange(side, dtype=np.float64) for side in size_wh))
    (a, b, c), (d, e, f) = cv2.invertAffineTransform(matrix)
    across, down = (distance * _smooth(size_wh, CELLS_THAT_MOVE, random) for _ in range(2))
    from_columns = (a * columns + b * rows + c + across).astype(np.float32)
    from_rows = (d * columns + e * rows + f + down).astype(np.float32)
    bent = cv2.remap(face, from_columns, from_rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return bent.astype(np.uint8, copy=False)


def _smooth(size_wh: tuple[int, int], cells: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Height × width, drawn on a coarse grid from a normal distribution."""
    drawn = random.normal(size=(cells, cells)).astype(np.float32)
    return cv2.resize(drawn, size_wh, interpolation=cv2.INTER_CUBIC).astype(np.float32, copy=False)
