"""Training pictures: mosaics of crops of unlabelled frames, as cameras might have seen them.

The canvas is split at random until its cells reach a size that is itself drawn anew for each scene, so that
a frame's faces come out from canvas-high to a few pixels, and crowds arise from portraits. A scene depends
on its number and the seed alone: any part of a run can be made again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from lathe_compression.frames import FramePool
from lathe_compression.labels import Objects, together

Rectangle = tuple[int, int, int, int]
_GREY = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Augment:
    """How scenes differ from the frames that they are made of.

    Attributes:
        cells: smallest and largest side of a mosaic's cells, pixels; drawn evenly by logarithm. Of detection.
        zoom: largest factor by which a crop enlarges its frame. Of detection.
        colour: spread of brightness, contrast, saturation and of each channel's gain; 0 is none.
        grey: share of scenes without colour.
        blur: share of scenes that are blurred, or lose resolution as by an earlier scaling.
        jpeg: share of scenes that go through JPEG at a quality of 30 to 90.
        flip: mirror half of the crops.
        scale: largest share by which an aligned face is larger or smaller than it should be.
        turn: largest angle by which it is turned, degrees.
        shift: largest distance from its place, across and down, as a share of the network's input.
        mix: share of scenes in which an aligned face is two people's.
        bend: largest distance by which the parts of an aligned face are moved against each other (about the
            standard deviation over the face), as a share of the network's input.
    """

    cells: tuple[float, float] = (24.0, 320.0)
    zoom: float = 2.5
    colour: float = 0.25
    grey: float = 0.1
    blur: float = 0.3
    jpeg: float = 0.3
    flip: bool = True
    scale: float = 0.06
    turn: float = 5.0
    shift: float = 0.03
    mix: float = 0.0
    bend: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.scale < 0.5 and 0 <= self.turn <= 45 and 0 <= self.shift < 0.5):
            raise ValueError("scale and shift must be from 0 to below 0.5, and turn from 0 to 45")
        if not (0 <= self.mix <= 1 and 0 <= self.bend < 0.5):
            raise ValueError("mix must be from 0 to 1, and bend from 0 to below 0.5")
        if not 8 <= self.cells[0] <= self.cells[1]:
            raise ValueError("cells must be at least 8, the smaller side first")
        if self.zoom < 1:
            raise ValueError("zoom must be at least 1")
        if not 0 <= self.colour < 1 or not all(0 <= share <= 1 for share in (self.grey, self.blur, self.jpeg)):
            raise ValueError("colour, grey, blur and jpeg must be from 0 to 1")


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Attributes:
    pixels: height × width × RGB.
    objects: what is known of it, where its frames have labels.
    """

    pixels: NDArray[np.uint8]
    objects: Objects = field(default_factory=Objects.none)


def scene(pool: FramePool, augment: Augment, size_wh: tuple[int, int], seed: int, number: int) -> Scene:
    """Scene `number` of a run."""
    random = np.random.default_rng([seed, number])
    width, height = size_wh
    canvas = np.empty((height, width, 3), np.uint8)
    cell = float(np.exp(random.uniform(*np.log(augment.cells))))
    objects = []
    for tile in split((0, 0, width, height), cell, random):
        left, top, right, bottom = tile
        canvas[top:bottom, left:right], shown = _crop(pool, augment, tile, random)
        objects.append(shown)
    return Scene(as_a_camera_sees(canvas, augment, random), together(objects))


def as_a_camera_sees(canvas: NDArray[np.uint8], augment: Augment, random: np.random.Generator) -> NDArray[np.uint8]:
    """In another light, out of focus or once scaled, and through JPEG, as far as `augment` says."""
    canvas = _recolour(canvas, augment, random)
    if random.random() < augment.blur:
        canvas = _soften(canvas, random)
    if random.random() < augment.jpeg:
        canvas = _recompress(canvas, int(random.integers(30, 91)))
    return canvas


def split(rectangle: Rectangle, cell: float, random: np.random.Generator) -> Iterator[Rectangle]:
    """Cuts (left, top, right, bottom) across its longer side until no side exceeds one and a half cells."""
    left, top, right, bottom = rectangle
    width, height = right - left, bottom - top
    if max(width, height) <= 1.5 * cell:
        yield rectangle
        return
    share = random.uniform(0.4, 0.6)
    if width >= height:
        middle = left + round(width * share)
        halves = (left, top, middle, bottom), (middle, top, right, bottom)
    else:
        middle = top + round(height * share)
        halves = (left, top, right, middle), (left, middle, right, bottom)
    for half in halves:
        yield from split(half, cell, random)


def _crop(
    pool: FramePool, augment: Augment, tile: Rectangle, random: np.random.Generator
) -> tuple[NDArray[np.uint8], Objects]:
    """A random part of a random frame, of the tile's shape, scaled to fill it, and what is known of it."""
    cell_wh = (tile[2] - tile[0], tile[3] - tile[1])
    number = pool.draw(random)
    height, width = pool.size(number)
    largest = min(height / cell_wh[1], width / cell_wh[0]) / np.exp(random.uniform(0, np.log(augment.zoom)))
    size = (cell_wh[1] * largest, cell_wh[0] * largest)
    # A crop as large as its frame may be larger by a rounding.
    top_left = (random.uniform(0, max(0.0, height - size[0])), random.uniform(0, max(0.0, width - size[1])))
    pixels = pool.crop(number, top_left, size, cell_wh[1])
    shrinks = pixels.shape[0] > cell_wh[1]
    filled = cv2.resize(pixels, cell_wh, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    mirrored = augment.flip and random.random() < 0.5
    if mirrored:
        filled = filled[:, ::-1]
    top, left = top_left
    crop = (left, top, left + size[1], top + size[0])
    return filled.astype(np.uint8, copy=False), pool.objects(number).seen_through(crop, tile, mirrored=mirrored)


def _recolour(canvas: NDArray[np.uint8], augment: Augment, random: np.random.Generator) -> NDArray[np.uint8]:
    """One affine map of colour: contrast, saturation and channel gains in its matrix, brightness beside it."""
    spread = augment.colour
    gains = 1 + random.uniform(-spread / 2, spread / 2, 3)
    contrast, saturation = 1 + random.uniform(-spread, spread, 2)
    if random.random() < augment.grey:
        saturation = 0.0
    mix = saturation * np.eye(3) + (1 - saturation) * np.tile(_GREY, (3, 1))
    matrix = contrast * gains[:, None] * mix
    brightness = 128 * random.uniform(-spread, spread) + 128 * (1 - contrast)
    return cv2.transform(canvas, np.hstack([matrix, np.full((3, 1), brightness)])).astype(np.uint8, copy=False)


def _soften(canvas: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    height, width = canvas.shape[:2]
    if random.random() < 0.5:
        return cv2.GaussianBlur(canvas, (0, 0), random.uniform(0.4, 1.5)).astype(np.uint8, copy=False)
    shrink = random.uniform(0.4, 0.9)
    small = cv2.resize(canvas, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)


def _recompress(canvas: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    _, encoded = cv2.imencode(".jpg", canvas[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert decoded is not None  # OpenCV wrote it
    return np.ascontiguousarray(decoded[:, :, ::-1]).astype(np.uint8, copy=False)
