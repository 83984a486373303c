"""Pictures named by a recipe or a command: files, folders, packages' files, and frames of videos."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lathe.errors import BadPicture, InvalidInput, NotFound, Unavailable
from lathe.packaged import packaged_files
from lathe.video import is_video, read_frames
from lathe_server.vision import RawPicture, fit, letterbox

PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png"}


@dataclass(frozen=True)
class PictureSet:
    """Pictures of a recipe.

    Attributes:
        pictures: each a path relative to the recipe (`*` allowed, `$NAME` taken from the
            environment), or `package:path/in/it`. A video stands for its frames.
        every: of a video, one frame in so many.
        grid: so many pictures across and down share a canvas, so that faces become small.
    """

    pictures: tuple[str, ...]
    every: int = 10
    grid: int = 1

    def __post_init__(self) -> None:
        if not self.pictures or not all(self.pictures):
            raise ValueError("pictures must name at least one, and none may be empty")
        if self.every < 1 or self.grid < 1:
            raise ValueError("every and grid must be at least 1")


@dataclass(frozen=True)
class NamedPicture:
    """Pixels (height × width × RGB) with where they come from.

    Attributes:
        sha256: digest of the file, with the frame's number where it is a video.
    """

    name: str
    sha256: str
    pixels: NDArray[np.uint8]

    def as_raw(self) -> RawPicture:
        """As a client would send it."""
        height, width = self.pixels.shape[:2]
        return RawPicture(width, height, 0, "rgb8", self.pixels.tobytes())


def load_pictures(chosen: PictureSet, base: Path, skipped: list[str] | None = None) -> Iterator[NamedPicture]:
    """Reads a set's pictures in order.

    Args:
        skipped: takes the names of the files that cannot be decoded; without it the first one is an error.

    Raises:
        NotFound: a name that matches nothing.
        BadPicture: a file that cannot be decoded.
    """
    for path in picture_files(chosen, base):
        try:
            yield from _frames(path, chosen.every) if is_video(path) else [_still(path)]
        except (BadPicture, Unavailable):
            if skipped is None:
                raise
            skipped.append(path.name)


def picture_files(chosen: PictureSet, base: Path) -> list[Path]:
    """The set's files in order.

    Raises:
        NotFound: a name that matches nothing.
    """
    return [path for name in chosen.pictures for path in _resolve(name, base)]


def _still(path: Path) -> NamedPicture:
    pixels_bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if pixels_bgr is None:
        raise BadPicture(f"{path.name} is not a picture that can be decoded")
    rgb = cv2.cvtColor(pixels_bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
    return NamedPicture(path.name, file_digest(path), rgb)


def _frames(path: Path, every: int) -> Iterator[NamedPicture]:
    digest = file_digest(path)
    for index, pixels in enumerate(read_frames(path)):
        if index % every == 0:
            yield NamedPicture(f"{path.name}#{index}", frame_digest(digest, index), pixels)


def canvases(pictures: Sequence[NamedPicture], grid: int, size_wh: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    """Network inputs of the full size, 1 × height × width × 3, with grid² pictures on each."""
    width, height = size_wh
    cell_wh = (width // grid, height // grid)
    for start in range(0, len(pictures), grid * grid):
        canvas = np.zeros((1, height, width, 3), np.uint8)
        for position, picture in enumerate(pictures[start : start + grid * grid]):
            top, left = (position // grid) * cell_wh[1], (position % grid) * cell_wh[0]
            frame_wh = (picture.pixels.shape[1], picture.pixels.shape[0])
            tile = letterbox(picture.pixels, fit(frame_wh, cell_wh, 1))[0]
            canvas[0, top : top + tile.shape[0], left : left + tile.shape[1]] = tile
        yield canvas


def folder_pictures(folder: Path) -> list[Path]:
    """Pictures in a folder and below it, by name.

    Raises:
        NotFound: no such folder, or no JPEG or PNG in it.
    """
    if not folder.is_dir():
        raise NotFound(f"there is no folder {folder}")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    if not found:
        raise NotFound(f"{folder} holds no JPEG or PNG")
    return found


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def frame_digest(video_sha256: str, index: int) -> str:
    return hashlib.sha256(f"{video_sha256}#{index}".encode()).hexdigest()


def _resolve(name: str, base: Path) -> list[Path]:
    if ":" in name:
        return packaged_files(name)
    expanded = os.path.expandvars(name)
    if "$" in expanded:
        raise InvalidInput(f"{name} names an environment variable that is not set")
    found = (
        sorted(base.glob(expanded))
        if not Path(expanded).is_absolute()
        else sorted(Path("/").glob(expanded.lstrip("/")))
    )
    files = [path for path in found if path.is_file()]
    if not files:
        raise NotFound(f"no file matches {name}")
    return files
