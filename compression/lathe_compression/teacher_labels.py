"""Boxes that the teacher finds in whole frames, as labels for training scenes.

A scene shows a frame's objects smaller than the frame does, down to where the teacher itself misses them. What
it found at its best size is carried there, so that a student may learn to see more than its teacher would. Labels
from several sizes of one picture: data distillation (Radosavovic et al., arXiv 1712.04440).
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from lathe.detections import Detections
from lathe_compression.labels import EVERYWHERE, Objects
from lathe_compression.pictures import NamedPicture
from lathe_server.engines import OnnxRuntimeEngine
from lathe_server.vision import Detector, suppress
from lathe_server.vision.detections import Thresholds

SCALES = (1.0, 2.0)
"""Sizes at which a frame is looked at, of its own."""
LARGEST_SIDE = 2048
UNSURE = 0.2
"""Of the score from which on a box is an object: between the two it is neither object nor background."""
MOST = 1000
TEACHER_LABELS_REVISION = 1
"""One goes up when the same network comes to find something else."""


class TeacherLabels:
    """Finds the objects of a picture with a detection network, at several sizes.

    Args:
        model: the network as ONNX, with uint8 pixels as input.
        decoder: of its outputs.
        size_multiple: it takes heights and widths in multiples of this.
        min_score: a box from this score on is an object.
        nms: overlap from which on two boxes are one object.
    """

    def __init__(self, model: bytes, decoder: str, size_multiple: int, min_score: float, nms: float) -> None:
        self._engine = OnnxRuntimeEngine(model)
        self._decoder, self._multiple = decoder, size_multiple
        self._min_score = min_score
        self._thresholds = Thresholds(UNSURE * min_score, nms, MOST)

    def find(self, picture: NamedPicture) -> Objects:
        """In pixels of the picture."""
        longest = max(picture.pixels.shape[:2])
        sides = {self._side(scale * longest) for scale in SCALES}
        looks = [self._detections(picture, side) for side in sorted(sides)]
        parts = [[getattr(one, field.name) for one in looks] for field in fields(Detections)]
        found = suppress(Detections(*map(np.concatenate, parts)), self._thresholds)
        sure = found.score >= self._min_score
        everywhere = np.array([EVERYWHERE], np.float32)
        return Objects(found.xyxy[sure], found.class_id[sure], everywhere, found.xyxy[~sure])

    def _side(self, wanted: float) -> int:
        """The nearest that the network takes."""
        return max(1, round(min(wanted, LARGEST_SIDE) / self._multiple)) * self._multiple

    def _detections(self, picture: NamedPicture, side: int) -> Detections:
        detector = Detector(self._engine, self._decoder, self._thresholds, (side, side), self._multiple)
        return detector.detect(picture.as_raw()).detections
