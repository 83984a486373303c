"""Boxes drawn on frames, for people to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lathe.detections import Detections
from lathe.errors import InvalidInput, NotFound
from lathe.exchange import Result
from lathe.video import VideoFrame

OUTPUT_SUFFIXES = (".mp4", ".mkv", ".mov")
BOX_RGB = (64, 220, 120)


def draw(pixels: NDArray[np.uint8], found: Detections, color_rgb: tuple[int, int, int] = BOX_RGB) -> NDArray[np.uint8]:
    """A copy of an RGB picture with boxes, scores and landmarks."""
    drawn = pixels.copy()
    width = max(1, round(max(pixels.shape[:2]) / 320))
    for box, score, points in zip(found.xyxy, found.score, found.landmarks, strict=True):
        left, top, right, bottom = (round(float(side)) for side in box)
        cv2.rectangle(drawn, (left, top), (right, bottom), color_rgb, width)
        cv2.putText(
            drawn,
            f"{score:.2f}",
            (left, max(12 * width, top - 3)),
            cv2.FONT_HERSHEY_SIMPLEX,
            0.4 * width,
            color_rgb,
            width,
        )
        for x, y in points:
            cv2.circle(drawn, (round(float(x)), round(float(y))), width, color_rgb, -1)
    return drawn


class AnnotatedVideo:
    """Writes annotated frames to an H.264 file; a context that finishes the file. Without a path it does nothing.

    Raises:
        InvalidInput: the path is not one of a file that holds H.264.
        NotFound: its folder is not there.
    """

    def __init__(self, path: Path | None) -> None:
        if path and path.suffix.lower() not in OUTPUT_SUFFIXES:
            raise InvalidInput(f"{path.name} must end in one of {', '.join(OUTPUT_SUFFIXES)}")
        if path and not path.parent.is_dir():
            raise NotFound(f"there is no folder {path.parent}")
        self._path = path
        self._container: Any = None
        self._stream: Any = None
        self._last_pts = -1

    def add(self, frame: VideoFrame, result: Result) -> None:
        import av
        import simplejpeg

        pixels = draw(simplejpeg.decode_jpeg(frame.jpeg), result.detections)
        # Video encoders want even sides.
        pixels = pixels[: pixels.shape[0] // 2 * 2, : pixels.shape[1] // 2 * 2]
        if self._container is None:
            self._container = av.open(str(self._path), "w")
            self._stream = self._container.add_stream("libx264", rate=1000)
            self._stream.width, self._stream.height = pixels.shape[1], pixels.shape[0]
            self._stream.pix_fmt = "yuv420p"
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        picture.pts = max(self._last_pts + 1, round(frame.seconds * 1000))
        self._last_pts = picture.pts
        self._container.mux(self._stream.encode(picture))

    def __enter__(self) -> AnnotatedVideo:
        return self

    def __exit__(self, *_: object) -> None:
        if self._container:
            self._container.mux(self._stream.encode())
            self._container.close()
