"""Unlabelled frames in one flat file: decoded once, shared by every step that trains.

A frame is kept with a pyramid of its halves, so that a tile of twenty pixels is not computed from a whole
photograph. The file is mapped into memory: the system keeps of it what it has room for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lathe.errors import InvalidInput
from lathe_compression.labels import Boxes, Objects
from lathe_compression.pictures import NamedPicture

LONGEST_SIDE = 1024
SMALLEST_SIDE = 24
PIXELS_FILE = "frames.bin"
INDEX_FILE = "frames.json"


@dataclass(frozen=True, slots=True)
class _Entry:
    """Attributes:
    levels: (offset in the file, height, width), largest first.
    """

    name: str
    sha256: str
    group: int
    levels: tuple[tuple[int, int, int], ...]


class FramePool:
    """Frames by number, in groups of which each has its weight.

    Args:
        folder: where `write` put them.
    """

    def __init__(self, folder: Path) -> None:
        index = json.loads((folder / INDEX_FILE).read_text("utf-8"))
        self._entries = [
            _Entry(one["name"], one["sha256"], one["group"], tuple(tuple(level) for level in one["levels"]))
            for one in index["frames"]
        ]
        self.skipped: list[str] = index["skipped"]
        self._objects = {number: _objects(drawn) for number, drawn in index.get("objects", [])}
        self._nothing = Objects.none()
        self._pixels = np.memmap(folder / PIXELS_FILE, np.uint8, "r")
        weights = np.array(index["weights"], float)
        self._chances = np.cumsum(weights / weights.sum())
        self._members = [
            [number for number, one in enumerate(self._entries) if one.group == group] for group in range(len(weights))
        ]

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def digests(self) -> list[str]:
        """Of the pictures that the frames come from, in order."""
        return [entry.sha256 for entry in self._entries]

    @property
    def labelled(self) -> int:
        """How many frames have labels."""
        return len(self._objects)

    def draw(self, random: np.random.Generator) -> int:
        """A frame's number: first a group by its weight, then one of its frames."""
        members = self._members[int(np.searchsorted(self._chances, random.random(), side="right"))]
        return members[int(random.integers(len(members)))]

    def size(self, number: int) -> tuple[int, int]:
        """Height and width of the whole frame."""
        return self._entries[number].levels[0][1:]

    def objects(self, number: int) -> Objects:
        """What is known of a frame, in pixels of the whole frame."""
        return self._objects.get(number, self._nothing)

    def crop(
        self, number: int, top_left: tuple[float, float], size: tuple[float, float], wanted: int
    ) -> NDArray[np.uint8]:
        """A rectangle of a frame, from the smallest level of its pyramid that still has `wanted` rows of it.

        Args:
            top_left, size: rows and columns, in pixels of the whole frame.
        """
        levels = self._entries[number].levels
        whole = levels[0][1]
        level = max(
            (depth for depth, (_, height, _) in enumerate(levels) if size[0] * height / whole >= wanted), default=0
        )
        offset, height, width = levels[level]
        pixels = self._pixels[offset : offset + height * width * 3].reshape(height, width, 3)
        scale = height / whole
        rows, columns = (max(1, round(side * scale)) for side in size)
        top = min(round(top_left[0] * scale), height - 1)
        left = min(round(top_left[1] * scale), width - 1)
        return pixels[top : top + rows, left : left + columns]


@dataclass(frozen=True)
class Group:
    """Pictures that share a weight.

    Attributes:
        labels: what is known of a picture; None where nothing is.
    """

    pictures: Iterable[NamedPicture]
    weight: float
    labels: Callable[[NamedPicture], Objects | None] = lambda picture: None


def write(
    groups: Sequence[Group],
    folder: Path,
    skipped: Sequence[str] = (),
) -> None:
    """Writes frames and their index into an existing folder.

    Args:
        skipped: names of files that could not be read; it may grow while the pictures are taken.

    Raises:
        InvalidInput: there is no frame at all.
        OSError: the disk is full.
    """
    entries: list[_Entry] = []
    objects: list[tuple[int, dict[str, Any]]] = []
    offset = 0
    with (folder / PIXELS_FILE).open("wb") as file:
        for number, group in enumerate(groups):
            for picture in group.pictures:
                levels = []
                for level in _pyramid(picture.pixels):
                    file.write(level.tobytes())
                    levels.append((offset, *level.shape[:2]))
                    offset += level.size
                known = group.labels(picture)
                if known:
                    shrunk = levels[0][1] / picture.pixels.shape[0]
                    objects.append((len(entries), _as_lists(known.scaled(shrunk))))
                entries.append(_Entry(picture.name, picture.sha256, number, tuple(levels)))
    empty = [number for number in range(len(groups)) if all(entry.group != number for entry in entries)]
    if empty:
        raise InvalidInput(f"group {empty[0] + 1} of the training frames holds no picture that can be read")
    index = {
        "weights": [group.weight for group in groups],
        "frames": [asdict(entry) for entry in entries],
        "skipped": [*skipped],
        "objects": objects,
    }
    (folder / INDEX_FILE).write_text(json.dumps(index), "utf-8")


def _as_lists(objects: Objects) -> dict[str, Any]:
    return {name: value.tolist() for name, value in asdict(objects).items()}


def _objects(drawn: Mapping[str, Any]) -> Objects:
    def boxes(name: str) -> Boxes:
        return np.array(drawn[name], np.float32).reshape(-1, 4)

    return Objects(boxes("xyxy"), np.array(drawn["class_id"], np.int64), boxes("known"), boxes("unsure"))


def _pyramid(pixels: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    height, width = pixels.shape[:2]
    shrink = max(1.0, max(height, width) / LONGEST_SIDE)
    height, width = max(1, round(height / shrink)), max(1, round(width / shrink))
    while True:
        if pixels.shape[:2] != (height, width):
            pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        yield np.ascontiguousarray(pixels)
        height, width = height // 2, width // 2
        if min(height, width) < SMALLEST_SIDE:
            return
