"""Detections as parallel arrays, and the suppression of overlapping ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lathe_server.vision.letterbox import Placement


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Operating point of a detector.

    Attributes:
        min_score: candidates below it are not detections.
        nms: of two boxes of a class whose intersection over union is above it, the weaker goes.
        max_detections: at most so many are returned, the best ones.
    """

    min_score: float
    nms: float
    max_detections: int


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
        return Detections(
            np.empty((0, 4), np.float32),
            np.empty(0, np.float32),
            np.empty(0, np.int64),
            np.empty((0, landmarks, 2), np.float32),
        )

    def to_frame(self, placement: Placement) -> Detections:
        """From pixels of the canvas to pixels of the frame; boxes are clipped to it."""
        scale = np.array(placement.to_frame_scale(), np.float32)
        limit = np.array(placement.frame_wh, np.float32)
        corners = self.xyxy.reshape(-1, 2, 2) * scale
        return Detections(
            np.clip(corners, 0, limit).reshape(-1, 4).astype(np.float32, copy=False),
            self.score,
            self.class_id,
            self.landmarks * scale,
        )


MAX_CANDIDATES = 5000
"""Boxes that enter suppression at most, the best ones: it costs their square."""


def best_candidates(score: NDArray[np.float32], limit: int = MAX_CANDIDATES) -> NDArray[np.intp]:
    """Indices of the `limit` highest scores, in no order."""
    if len(score) <= limit:
        return np.arange(len(score))
    return np.argpartition(score, -limit)[-limit:]


def suppress(candidates: Detections, thresholds: Thresholds) -> Detections:
    """Greedy non-maximum suppression, class by class.

    Args:
        candidates: those above the score threshold, in any order; at most `MAX_CANDIDATES` of them.
    """
    if not len(candidates):
        return candidates
    xywh = candidates.xyxy.copy()
    xywh[:, 2:] -= xywh[:, :2]
    # OpenCV takes arrays here, though its stubs ask for sequences.
    nms: Any = cv2.dnn.NMSBoxesBatched
    class_id = candidates.class_id.astype(np.int32)
    kept = np.asarray(nms(xywh, candidates.score, class_id, 0.0, thresholds.nms), np.intp).reshape(-1)
    best_first = kept[np.argsort(-candidates.score[kept], kind="stable")]
    return candidates[best_first[: thresholds.max_detections]]
