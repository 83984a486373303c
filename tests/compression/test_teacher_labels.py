"""What the teacher finds in whole frames: real faces, in pixels of the frame, some only at twice its size."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from lathe.errors import NotFound
from lathe.packaged import packaged_file
from lathe_compression.centerface import centerface
from lathe_compression.export import Normalisation, export
from lathe_compression.hygiene import clean
from lathe_compression.labels import Objects
from lathe_compression.pictures import NamedPicture
from lathe_compression.teacher_labels import TeacherLabels
from tests.compression.networks import OUTPUTS

FACE = np.array([176, 60, 270, 180])
"""Of the astronaut, in pixels of the whole picture, by eye."""


@pytest.fixture(scope="module")
def centerface_model() -> bytes:
    try:
        graph = clean(export(centerface(), Normalisation(), OUTPUTS, 32))[0]
    except NotFound as error:
        pytest.skip(error.message)
    return graph.SerializeToString()


def astronaut(shrink: float, canvas: int = 0) -> NamedPicture:
    """Shrunk, in the middle of a grey canvas where one is asked for."""
    pixels = cv2.imread(str(packaged_file("scikit-image:skimage/data/astronaut.png")))
    assert pixels is not None
    small = cv2.resize(pixels[:, :, ::-1], None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
    if canvas:
        border = (canvas - small.shape[0]) // 2
        small = cv2.copyMakeBorder(small, *[border] * 4, cv2.BORDER_CONSTANT, value=(128, 128, 128))
    return NamedPicture("astronaut.png", "digest", small.astype(np.uint8))


def found(model: bytes, picture: NamedPicture, min_score: float = 0.5) -> Objects:
    return TeacherLabels(model, "heatmap", 32, min_score, 0.3).find(picture)


def test_face_is_found_once_where_it_is(centerface_model: bytes) -> None:
    objects = found(centerface_model, astronaut(1))
    np.testing.assert_allclose(objects.xyxy, [FACE], atol=12)
    assert objects.class_id.tolist() == [0]
    assert (objects.known[0, 2:] > 512).all()  # all of the picture is known


def test_small_face_is_found_at_twice_the_size(centerface_model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = astronaut(16, canvas=96)  # a face of 5 × 7 pixels
    both = found(centerface_model, picture)
    np.testing.assert_allclose(both.xyxy, [FACE / 16 + 32], atol=2)
    monkeypatch.setattr("lathe_compression.teacher_labels.SCALES", (1.0,))
    assert len(found(centerface_model, picture).xyxy) == 0


def test_face_of_a_middling_score_is_unsure(centerface_model: bytes) -> None:
    picture = astronaut(16, canvas=96)
    strict = found(centerface_model, picture, min_score=0.99)
    assert len(strict.xyxy) == 0
    np.testing.assert_allclose(strict.unsure[:1], [FACE / 16 + 32], atol=2)


def test_picture_without_a_face_is_known_to_have_none(centerface_model: bytes) -> None:
    empty = found(centerface_model, NamedPicture("grey", "digest", np.full((64, 96, 3), 128, np.uint8)))
    assert (len(empty.xyxy), len(empty.unsure), len(empty.known)) == (0, 0, 1)
