"""How far a variant finds what its teacher finds: the quality figure where there are no labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lathe.detections import Detections

IOU = 0.5


def matched_pairs(one: Detections, other: Detections, iou: float = IOU) -> int:
    """Pairs of same-class boxes that overlap by at least `iou`, each box in one pair at most.

    Greedy by overlap, best first; symmetric.
    """
    overlap = np.where(one.class_id[:, None] == other.class_id[None], overlaps(one.xyxy, other.xyxy), 0.0)
    pairs = 0
    while overlap.size and overlap.max() >= iou:
        row, column = np.unravel_index(overlap.argmax(), overlap.shape)
        overlap[row], overlap[:, column] = 0.0, 0.0
        pairs += 1
    return pairs


def overlaps(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of every box of N×4 with every box of M×4: N × M."""
    corner = np.maximum(one[:, None, :2], other[None, :, :2])
    opposite = np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = np.prod(np.maximum(opposite - corner, 0.0), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (one, other)]
    union = areas[0][:, None] + areas[1][None] - shared
    iou: NDArray[np.float32] = (shared / np.maximum(union, 1e-9)).astype(np.float32)
    return iou


class AgreementSamples:
    """Agreement of two variants, picture by picture.

    The figure is 2 · matched / (found by one + found by the other): the F1 score of either against the
    other, over all pictures in which either found something.
    """

    def __init__(self, pairs: list[tuple[Detections, Detections]]) -> None:
        judged = [(one, other) for one, other in pairs if len(one) or len(other)]
        self.pictures = len(judged)
        self._matched = np.array([matched_pairs(one, other) for one, other in judged], np.int64)
        self._found = np.array([len(one) + len(other) for one, other in judged], np.int64)

    def agreement(self, multiplicity: NDArray[np.int64] | None = None) -> float:
        """0 to 1; NaN where neither found anything."""
        if multiplicity is None:
            multiplicity = np.ones(self.pictures, np.int64)
        found = int(self._found @ multiplicity)
        return 2 * int(self._matched @ multiplicity) / found if found else float("nan")
