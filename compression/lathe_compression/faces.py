"""The one face of a picture, aligned: what embedding networks are calibrated on, learn from, and are judged by."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lathe.detections import Detections
from lathe.errors import InvalidInput
from lathe.repository import Repository
from lathe.v1 import card_pb2
from lathe_compression.judge import build_detector
from lathe_compression.pictures import NamedPicture
from lathe_server.vision import Detector
from lathe_server.vision.align import LANDMARKS, align, are_usable


def middle_face(detections: Detections, frame_wh: tuple[int, int]) -> int | None:
    """Place of the face that a picture is of, by the convention of Labeled Faces in the Wild: the one in the middle.

    How far a box's centre is from the picture's counts in sides of the box (the root of its area), so that a
    small find beside the nose is not taken for the face.

    Returns:
        None where nothing was found that can be aligned.

    Raises:
        InvalidInput: what was found has no landmarks, or other ones than a face's.
    """
    if len(detections) and detections.landmarks.shape[1:] != (LANDMARKS, 2):
        found = detections.landmarks.shape[1]
        raise InvalidInput(f"the detector gives {found} landmarks a face; to align one takes {LANDMARKS}")
    usable = np.flatnonzero(are_usable(detections.landmarks)) if len(detections) else ()
    if not len(usable):
        return None
    corners = detections.xyxy[usable].astype(np.float64).reshape(-1, 2, 2)
    distance = np.linalg.norm(corners.mean(1) - np.array(frame_wh) / 2, axis=1)
    side = np.sqrt(np.maximum((corners[:, 1] - corners[:, 0]).prod(1), 1e-6))
    return int(usable[np.argmin(distance / side)])


def face_landmarks(detector: Detector, pixels: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """5 × 2 of the picture's face; None where the detector finds none.

    Args:
        pixels: height × width × 3, RGB.

    Raises:
        InvalidInput: the detector finds things without a face's landmarks.
    """
    height, width = pixels.shape[:2]
    detections = detector.detect(NamedPicture("", "", pixels).as_raw()).detections
    place = middle_face(detections, (width, height))
    return None if place is None else detections.landmarks[place]


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

    def read(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """The picture's face, (H + 2 margin) × (W + 2 margin) × 3; None where the detector finds none.

        Args:
            pixels: height × width × 3, RGB.
        """
        landmarks = face_landmarks(self.detector, pixels)
        return None if landmarks is None else self.align(pixels, landmarks)

    def align(self, pixels: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The face that these landmarks, 5 × 2, belong to."""
        return align(pixels, landmarks, self.alignment, self.size_wh, self.margin)

    def faces(self, pictures: Iterable[NamedPicture], missed: list[str]) -> Iterator[NamedPicture]:
        """Each picture's face under the picture's name and digest.

        Args:
            missed: takes the names of the pictures in which the detector finds no face.
        """
        for picture in pictures:
            face = self.read(picture.pixels)
            if face is None:
                missed.append(picture.name)
            else:
                yield replace(picture, pixels=face)


def face_detector(name: str, base: Path) -> tuple[Detector, str]:
    """The newest version of a detection variant, and its digest.

    Args:
        name: `repository/model/variant`; `$NAME` is taken from the environment.
        base: folder that the repository is relative to.

    Raises:
        NotFound: there is no such variant.
        InvalidInput: it is no detector.
    """
    root, model, variant = os.path.expandvars(name).rsplit("/", 2)
    repository = Repository(base / root)
    ref = repository.newest(model, variant)
    card = repository.card(ref)
    if card.task != card_pb2.TASK_DETECTION:
        raise InvalidInput(f"{model}/{variant} is no detector")
    return build_detector(card, repository.model_bytes(ref)), card.sha256
