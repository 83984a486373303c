"""Where a frame lies on the network's canvas, and how it gets there."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Placement:
    """A frame scaled to `scaled_wh` in the top left corner of a black canvas of `canvas_wh`."""

    frame_wh: tuple[int, int]
    scaled_wh: tuple[int, int]
    canvas_wh: tuple[int, int]

    def to_frame_scale(self) -> tuple[float, float]:
        """Pixels of the frame for one pixel of the canvas, across and down."""
        return self.frame_wh[0] / self.scaled_wh[0], self.frame_wh[1] / self.scaled_wh[1]


def fit(frame_wh: tuple[int, int], limit_wh: tuple[int, int], multiple: int) -> Placement:
    """Scales a frame, up or down, to the largest size within `limit_wh` that keeps its shape.

    The canvas is no larger than it must be: each side is the next multiple of `multiple`, so that a
    wide picture costs less than a square one at the same scale. 1920×1080 within 320×256, in
    multiples of 32, becomes 320×180 on a canvas of 320×192.

    Args:
        limit_wh: multiples of `multiple` themselves.
    """
    width, height = frame_wh
    scale = min(limit_wh[0] / width, limit_wh[1] / height)
    scaled = (
        max(1, min(limit_wh[0], round(width * scale))),
        max(1, min(limit_wh[1], round(height * scale))),
    )
    canvas = (-(-scaled[0] // multiple) * multiple, -(-scaled[1] // multiple) * multiple)
    return Placement(frame_wh, scaled, canvas)


def letterbox(pixels: NDArray[np.uint8], placement: Placement) -> NDArray[np.uint8]:
    """Puts pixels onto the canvas.

    Args:
        pixels: height × width × 3; the whole frame, possibly already reduced by its decoder.

    Returns:
        1 × canvas height × canvas width × 3, uint8: the network's input as it is.
    """
    (width, height), (canvas_width, canvas_height) = placement.scaled_wh, placement.canvas_wh
    tensor = np.empty((1, canvas_height, canvas_width, 3), np.uint8)
    canvas = tensor[0]
    canvas[height:] = 0
    canvas[:height, width:] = 0
    target = canvas[:height, :width]
    if pixels.shape[:2] == (height, width):
        target[:] = pixels
    else:
        shrinks_by_half = pixels.shape[1] >= 2 * width
        # Averaging avoids aliasing but costs more; below a factor of two bilinear needs no averaging.
        how = cv2.INTER_AREA if shrinks_by_half else cv2.INTER_LINEAR
        if width == canvas_width:
            cv2.resize(pixels, (width, height), dst=target, interpolation=how)
        else:
            target[:] = cv2.resize(pixels, (width, height), interpolation=how)
    return tensor
