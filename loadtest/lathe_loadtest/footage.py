"""What cameras see: videos and pictures as JPEG files of the size and quality that a scenario asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from lathe.demo.footage import PACKAGED
from lathe.errors import InvalidInput, NotFound
from lathe.packaged import packaged_file
from lathe.video import is_video, read_frames

MAX_PICTURES = 60
"""Of one size: some 3 MB, more than a processor's caches hold, and nothing that a run has to wait for."""
EVERY = 3
"""Of a video's frames: neighbours differ little."""
PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png"}


def jpegs(sources: Sequence[str], size_wh: tuple[int, int], quality: int) -> tuple[bytes, ...]:
    """At most `MAX_PICTURES` JPEG files, as many of each source as of the others.

    Args:
        sources: videos, pictures, or folders of them; none takes the videos that come with packages, or, where those
            are not installed, noise that moves.

    Raises:
        NotFound: there is nothing of the name, or no picture in it.
        Unavailable: not a video.
        InvalidInput: not a picture.
    """
    paths = [path for source in sources for path in _files(Path(source))] or _packaged()
    each = -(-MAX_PICTURES // len(paths)) if paths else 0
    pictures = [pixels for path in paths[:MAX_PICTURES] for pixels in islice(_pixels(path), each)]
    if not pictures:
        if paths:
            raise NotFound(f"{paths[0].name} holds no frame")
        pictures = list(_noise())
    return tuple(_encoded(pixels, size_wh, quality) for pixels in pictures[:MAX_PICTURES])


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(one for one in path.iterdir() if is_video(one) or one.suffix.lower() in PICTURE_SUFFIXES)
    if not found:
        raise NotFound(f"there is no video or picture in {path}")
    return found


def _packaged() -> list[Path]:
    try:
        return [packaged_file(name) for name in PACKAGED]
    except NotFound:
        return []


def _pixels(path: Path) -> Iterator[NDArray[np.uint8]]:
    if is_video(path):
        yield from islice(read_frames(path), 0, None, EVERY)
        return
    if not path.is_file():
        raise NotFound(f"there is no file {path}")
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if pixels is None:
        raise InvalidInput(f"{path.name} is neither a picture nor a video")
    yield pixels.astype(np.uint8, copy=False)


def _noise() -> Iterator[NDArray[np.uint8]]:
    coarse = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    for shift in range(MAX_PICTURES):
        yield np.roll(coarse, shift, axis=1)


def _encoded(pixels: NDArray[np.uint8], size_wh: tuple[int, int], quality: int) -> bytes:
    is_smaller = pixels.shape[1] > size_wh[0]
    if (pixels.shape[1], pixels.shape[0]) != size_wh:
        how = cv2.INTER_AREA if is_smaller else cv2.INTER_CUBIC
        pixels = cv2.resize(pixels, size_wh, interpolation=how).astype(np.uint8, copy=False)
    encoded: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, "RGB", "420")
    return encoded
