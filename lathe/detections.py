"""Detections as parallel arrays: the same value in the server, the client and evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Detections:
    """N detections, best score first.

    Attributes:
        xyxy: N × 4, float32: left, top, right, bottom in pixels.
        score: N, float32, 0 to 1.
        class_id: N, int64.
        landmarks: N × K × 2, float32: x, y in pixels; K is 0 where the model gives none.
    """

    xyxy: NDArray[np.float32]
    score: NDArray[np.float32]
    class_id: NDArray[np.int64]
    landmarks: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.score)

    def __getitem__(self, chosen: NDArray[np.intp] | NDArray[np.bool_] | slice) -> Detections:
        return Detections(self.xyxy[chosen], self.score[chosen], self.class_id[chosen], self.landmarks[chosen])

    @staticmethod
    def none(landmarks: int = 0) -> Detections:
        """No detection, of a model with so many landmarks."""
        return Detections(
            np.empty((0, 4), np.float32),
            np.empty(0, np.float32),
            np.empty(0, np.int64),
            np.empty((0, landmarks, 2), np.float32),
        )

    def scaled(self, across: float, down: float) -> Detections:
        """The same on a picture that is `across` times as wide and `down` times as high."""
        scale = np.array((across, down), np.float32)
        xyxy = (self.xyxy.reshape(-1, 2, 2) * scale).reshape(-1, 4)
        return Detections(xyxy, self.score, self.class_id, self.landmarks * scale)

    def clipped(self, size_wh: tuple[int, int]) -> Detections:
        """Boxes cut to a picture of this width and height; landmarks may lie outside."""
        limit = np.array(size_wh, np.float32)
        xyxy = np.clip(self.xyxy.reshape(-1, 2, 2), 0, limit).reshape(-1, 4)
        return Detections(xyxy, self.score, self.class_id, self.landmarks)
