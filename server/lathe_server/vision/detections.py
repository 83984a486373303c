"""An operating point, and the suppression of overlapping boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lathe.detections import Detections


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


MAX_CANDIDATES = 5000
"""Boxes that enter suppression at most, the best ones: it costs their square."""


def best_candidates(score: NDArray[np.float32], limit: int = MAX_CANDIDATES) -> NDArray[np.intp]:
    """Indices of the `limit` highest scores, in no order."""
    if len(score) <= limit:
        return np.arange(len(score))
    return np.argpartition(score, -limit)[-limit:]


def suppress(candidates: Detections, thresholds: Thresholds) -> Detections:
    """Greedy non-maximum suppression, class by class.

    Boxes with a side that is no number, as damaged networks give them, are none.

    Args:
        candidates: those above the score threshold, in any order; at most `MAX_CANDIDATES` of them.
    """
    is_box = np.isfinite(candidates.xyxy).all(axis=1)
    if not is_box.all():
        candidates = candidates[np.flatnonzero(is_box)]
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
