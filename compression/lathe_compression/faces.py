"""The one face of a picture, aligned: what embedding networks are calibrated on, learn from, and are judged by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lathe.detections import Detections
from lathe_server.vision import Detector, RawPicture
from lathe_server.vision.align import align, are_usable


def middle_face(detections: Detections, frame_wh: tuple[int, int]) -> int | None:
    """Place of the face that a picture is of, by the convention of Labeled Faces in the Wild: the one in the middle.

    How far a box's centre is from the picture's counts in sides of the box (the root of its area), so that a
    small find beside the nose is not taken for the face.

    Returns:
        None where nothing was found that can be aligned.
    """
    usable = np.flatnonzero(are_usable(detections.landmarks)) if detections.landmarks.shape[1:] == (5, 2) else []
    if not len(usable):
        return None
    corners = detections.xyxy[usable].astype(np.float64).reshape(-1, 2, 2)
    distance = np.linalg.norm(corners.mean(1) - np.array(frame_wh) / 2, axis=1)
    side = np.sqrt(np.maximum((corners[:, 1] - corners[:, 0]).prod(1), 1e-6))
    return int(usable[np.argmin(distance / side)])


@dataclass(frozen=True)
class FaceReader:
    """Pixels of a picture to its aligned face.

    Attributes:
        margin: pixels kept beyond the network's input on every side.
    """

    detector: Detector
    alignment: str
    size_wh: tuple[int, int]
    margin: int = 0

    def landmarks(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        """5 × 2 of the picture's face; None where the detector finds none.

        Args:
            pixels: height × width × 3, RGB.
        """
        height, width = pixels.shape[:2]
        picture = RawPicture(width, height, 0, "rgb8", pixels.tobytes())
        detections = self.detector.detect(picture).detections
        place = middle_face(detections, (width, height))
        return None if place is None else detections.landmarks[place]

    def read(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """The picture's face, (H + 2 margin) × (W + 2 margin) × 3; None where the detector finds none."""
        landmarks = self.landmarks(pixels)
        return None if landmarks is None else align(pixels, landmarks, self.alignment, self.size_wh, self.margin)
