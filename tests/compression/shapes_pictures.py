"""Labelled pictures made on the spot: discs, squares and triangles among things that are none of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

CLASSES = ("disc", "square", "triangle")
WIDTH, HEIGHT = 160, 128
SMALLEST, LARGEST = 12, 90
MOST_SHAPES = 5


@dataclass(frozen=True)
class Shapes:
    """One picture and what is in it.

    Attributes:
        pixels: height × width × RGB.
        xyxy: tight boxes, left, top, right, bottom in pixels.
        class_id: place in `CLASSES`, for each box.
    """

    pixels: NDArray[np.uint8]
    xyxy: NDArray[np.float32]
    class_id: NDArray[np.int64]


def draw(number: int, seed: int = 0) -> Shapes:
    """The picture of that number, always the same. Pictures of different seeds have nothing in common."""
    random = np.random.default_rng((seed, number))
    pixels = _background(random)
    boxes: list[NDArray[np.float32]] = []
    kinds: list[int] = []
    for _ in range(random.integers(1, MOST_SHAPES + 1)):
        kind = int(random.integers(len(CLASSES)))
        for _ in range(8):  # shapes stand apart: half-hidden ones have no true box
            outline = _outline(kind, random)
            box = np.concatenate((outline.min(axis=0), outline.max(axis=0))).astype(np.float32)
            if all(_apart(box, other) for other in boxes):
                _fill(pixels, outline, _far_colour(pixels, box, random))
                boxes.append(box)
                kinds.append(kind)
                break
    noisy = pixels + random.standard_normal(pixels.shape, np.float32) * random.uniform(0, 10)
    return Shapes(
        noisy.clip(0, 255).astype(np.uint8),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(kinds, np.int64),
    )


def write_pictures(folder: Path, drawn: Sequence[Shapes]) -> None:
    """As `0.png`, `1.png` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(drawn):
        cv2.imwrite(str(folder / f"{number}.png"), cv2.cvtColor(one.pixels, cv2.COLOR_RGB2BGR))


def write_labels(path: Path, drawn: Sequence[Shapes]) -> None:
    """As a COCO instances file whose picture ids are places in `drawn` and category ids places in `CLASSES`."""
    rows = [
        (number, int(kind), box)
        for number, one in enumerate(drawn)
        for kind, box in zip(one.class_id, one.xyxy.tolist(), strict=True)
    ]
    content = {
        "images": [
            {"id": number, "file_name": f"{number}.png", "width": WIDTH, "height": HEIGHT}
            for number in range(len(drawn))
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES)],
        "annotations": [
            {"id": n, "image_id": number, "category_id": kind, "bbox": [x, y, right - x, bottom - y], "iscrowd": 0}
            for n, (number, kind, (x, y, right, bottom)) in enumerate(rows, 1)
        ],
    }
    path.write_text(json.dumps(content))


def _background(random: np.random.Generator) -> NDArray[np.float64]:
    """A gradient between four colours with blotches on it, and lines that are no shapes."""
    corners = random.uniform(0, 255, (2, 2, 3))
    gradient = cv2.resize(corners, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    grain = int(random.integers(3, 24))
    blotches = random.normal(0, random.uniform(2, 20), (HEIGHT // grain + 1, WIDTH // grain + 1, 3))
    pixels = gradient + cv2.resize(blotches, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    for _ in range(random.integers(0, 5)):
        ends = random.uniform((0, 0), (WIDTH, HEIGHT), (2, 2)).astype(int)
        colour = tuple(random.uniform(0, 255, 3).tolist())
        cv2.line(pixels, ends[0].tolist(), ends[1].tolist(), colour, int(random.integers(1, 4)), cv2.LINE_AA)
    return pixels


def _outline(kind: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Corners of a shape that lies whole in the picture; 48 of them for a disc."""
    corners = {"disc": 48, "square": 4, "triangle": 3}[CLASSES[kind]]
    angles = random.uniform(0, 2 * np.pi) + np.arange(corners) * 2 * np.pi / corners
    unit = np.stack((np.cos(angles), np.sin(angles)), axis=1)
    unit -= unit.min(axis=0)
    size = SMALLEST * (LARGEST / SMALLEST) ** random.uniform()  # small ones as often as large ones
    outline = unit * size / unit.max()
    return outline + random.uniform((0, 0), (WIDTH, HEIGHT) - outline.max(axis=0))


def _apart(box: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    return bool(max(*(box[:2] - other[2:]), *(other[:2] - box[2:])) > 1)


def _far_colour(
    pixels: NDArray[np.float64], box: NDArray[np.float32], random: np.random.Generator
) -> tuple[float, ...]:
    """Some colour that stands out from what is there."""
    left, top, right, bottom = box.astype(int)
    below = pixels[top : bottom + 1, left : right + 1].mean(axis=(0, 1))
    choices = random.uniform(0, 255, (16, 3))
    far = choices[np.abs(choices - below).max(axis=1) > 60]
    return tuple((far[0] if len(far) else 255.0 - below).tolist())


def _fill(pixels: NDArray[np.float64], outline: NDArray[np.float64], colour: tuple[float, ...]) -> None:
    # A pixel's number is its centre for OpenCV, and its left edge for boxes; the last 4 bits are a fraction.
    points = np.round((outline - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(pixels, [points], colour, cv2.LINE_AA, shift=4)
