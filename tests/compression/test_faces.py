"""The one face of a picture: which it is, and that pictures without one are named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lathe.detections import Detections
from lathe.errors import InvalidInput, NotFound
from lathe.repository import Repository
from lathe.v1 import card_pb2
from lathe_compression.faces import FaceReader, face_detector, middle_face
from lathe_compression.pictures import NamedPicture
from lathe_server.vision import Detector
from lathe_server.vision.align import TEMPLATES, align
from lathe_server.vision.detections import Thresholds


def found(*xyxy: tuple[float, float, float, float], landmarks: NDArray[np.float32] | None = None) -> Detections:
    corners = np.array(xyxy, np.float32).reshape(-1, 4)
    if landmarks is None:
        sides = corners[:, None, 2:] - corners[:, None, :2]
        landmarks = (corners[:, None, :2] + TEMPLATES["dlib"] * sides).astype(np.float32)
    count = len(corners)
    return Detections(corners, np.linspace(1, 0.5, count, dtype=np.float32), np.zeros(count, np.int64), landmarks)


MIDDLE = {
    "the only one": ([(0, 0, 20, 20)], 0),
    "the nearer of two": ([(0, 0, 60, 60), (90, 90, 150, 150)], 1),
    "a large one before a spot in the middle": ([(115, 115, 125, 125), (60, 70, 160, 170)], 1),
    "of two at the same distance the larger": ([(40, 115, 50, 125), (180, 95, 230, 145)], 1),
}


@pytest.mark.parametrize(("boxes", "place"), MIDDLE.values(), ids=MIDDLE)
def test_the_face_is_the_one_in_the_middle(boxes: list[tuple[float, float, float, float]], place: int) -> None:
    """Of a picture of 250 × 250."""
    assert middle_face(found(*boxes), (250, 250)) == place


def test_faces_that_cannot_be_aligned_are_none() -> None:
    spot = np.full((1, 5, 2), 30, np.float32)
    assert middle_face(found((0, 0, 60, 60), landmarks=spot), (60, 60)) is None
    assert middle_face(Detections.none(landmarks=5), (60, 60)) is None
    assert middle_face(Detections.none(), (60, 60)) is None


@pytest.mark.parametrize("landmarks", [0, 4])
def test_a_detector_without_a_face_s_landmarks_is_told(landmarks: int) -> None:
    """It would find nobody in any picture."""
    with pytest.raises(InvalidInput, match=f"gives {landmarks} landmarks a face; to align one takes 5"):
        middle_face(found((0, 0, 60, 60), landmarks=np.empty((1, landmarks, 2), np.float32)), (60, 60))


class OneBox:
    """In the place of a network: a box with landmarks where the picture is bright."""

    def run(self, tensor: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        bright = tensor.mean() > 100
        box = np.array([[[10, 10, 50, 50]]], np.float32)
        landmarks = (10 + TEMPLATES["dlib"] * 40).astype(np.float32)[None, None]
        return {"boxes": box, "scores": np.full((1, 1, 1), float(bright), np.float32), "landmarks": landmarks}


def test_pictures_give_their_aligned_faces_and_those_without_are_named() -> None:
    reader = FaceReader(Detector(OneBox(), "boxes", Thresholds(0.5, 0.3, 10), (64, 64), 32), "dlib", (32, 32), 4)
    random = np.random.default_rng(0)
    bright, dark = (random.integers(low, low + 60, (64, 64, 3), np.uint8) for low in (150, 0))
    missed: list[str] = []
    (face,) = reader.faces([NamedPicture("dark", "00", dark), NamedPicture("bright", "11", bright)], missed)
    assert (face.name, face.sha256, missed) == ("bright", "11", ["dark"])
    landmarks = 10 + TEMPLATES["dlib"] * 40
    assert np.abs(face.pixels.astype(int) - align(bright, landmarks, "dlib", (32, 32), 4)).max() <= 1
    assert face.pixels.shape == (40, 40, 3)


def test_detector_of_a_recipe_must_be_one(tmp_path: Path) -> None:
    size = card_pb2.PictureSize(width=32, height=32)
    card = card_pb2.Card(model="m", variant="v", task=card_pb2.TASK_EMBEDDING, serving_size=size, size_multiple=32)
    (tmp_path / "models").mkdir()
    Repository(tmp_path / "models").publish(card, b"network")
    with pytest.raises(InvalidInput, match="m/v is no detector"):
        face_detector("models/m/v", tmp_path)
    with pytest.raises(NotFound, match="there is no model face"):
        face_detector("models/face/int8", tmp_path)
