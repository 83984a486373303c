"""Alignment: where the landmarks come to lie, and that nothing is lost or invented on the way."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lathe.errors import InvalidInput
from lathe_server.vision.align import TEMPLATES, align, are_usable, similarity

SIZE_WH = (150, 150)
NAMES = tuple(TEMPLATES)


def turned(
    points: NDArray[np.float64], degrees: float, scale: float, shift: tuple[float, float]
) -> NDArray[np.float64]:
    angle = np.deg2rad(degrees)
    matrix = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return points @ matrix.T + shift


def waves(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """A picture that is known between its pixels, too."""
    return np.stack(
        [127 + 100 * np.sin(x / 60 + y / 90), 127 + 100 * np.cos(y / 70), 127 + 100 * np.sin((x - y) / 80)], -1
    )


def picture(width: int = 1600, height: int = 1200) -> NDArray[np.uint8]:
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return waves(x, y).round().astype(np.uint8)


def face_at(
    name: str, scale: float = 1.0, degrees: float = 0.0, shift: tuple[float, float] = (300.3, 200.7)
) -> NDArray[np.float64]:
    return turned(TEMPLATES[name] * SIZE_WH, degrees, scale, shift)


@pytest.mark.parametrize(("degrees", "scale"), [(0, 1.0), (30, 0.4), (-120, 3.0), (180, 1e-2)])
def test_similarity_finds_the_turn_scale_and_shift(degrees: float, scale: float) -> None:
    points = np.random.default_rng(0).normal(size=(5, 2)) * 40
    matrix = similarity(points, turned(points, degrees, scale, (7, -3)))
    assert points @ matrix[:, :2].T + matrix[:, 2] == pytest.approx(turned(points, degrees, scale, (7, -3)))


def test_similarity_is_the_least_of_squares() -> None:
    """No small change of turn, scale or shift brings the points nearer to targets that they cannot all meet."""
    random = np.random.default_rng(1)
    points, targets = random.normal(size=(2, 5, 2))
    matrix = similarity(points, targets)

    def distance(a: float, b: float, x: float, y: float) -> float:
        moved = points @ np.array([[a, -b], [b, a]]).T + (x, y)
        return float(np.square(moved - targets).sum())

    best = (matrix[0, 0], matrix[1, 0], matrix[0, 2], matrix[1, 2])
    for place in range(4):
        for step in (-1e-3, 1e-3):
            other = tuple(value + step * (number == place) for number, value in enumerate(best))
            assert distance(*other) > distance(*best)


@pytest.mark.parametrize("name", NAMES)
def test_templates_lie_in_the_middle_of_the_input(name: str) -> None:
    left_eye, right_eye, nose, left_mouth, right_mouth = TEMPLATES[name]
    assert TEMPLATES[name].min() > 0.2
    assert TEMPLATES[name].max() < 0.9
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_eye[1] < nose[1] < left_mouth[1]
    assert left_mouth[0] < right_mouth[0]


def test_templates_are_those_of_their_sources() -> None:
    assert (TEMPLATES["dlib"] * 150)[0] == pytest.approx(((0.22549 + 0.25) * 100, (0.21599 + 0.25) * 100))
    assert (TEMPLATES["arcface"] * 112)[4] == pytest.approx((70.7299, 92.2041))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("scale", "degrees"), [(0.5, 0), (1, 25), (1.9, -40), (2, 0), (3, 170), (5.3, 12)])
def test_every_pixel_shows_what_lies_at_its_place(name: str, scale: float, degrees: float) -> None:
    """Whether it was enlarged, taken as it is, or averaged down first."""
    shift = (600.3, 500.7)
    face = align(picture(), face_at(name, scale, degrees, shift), name, SIZE_WH)
    x, y = np.meshgrid(np.arange(150) + 0.5, np.arange(150) + 0.5)
    places = turned(np.stack([x, y], -1).reshape(-1, 2), degrees, scale, shift).reshape(150, 150, 2)
    seen = ((places >= 0) & (places <= (1600, 1200))).all(-1)
    assert seen.mean() > 0.5
    wanted = waves(places[..., 0], places[..., 1])
    assert np.abs(face - wanted)[cv2.erode(seen.astype(np.uint8), np.ones((5, 5))) > 0].max() < 2.5


def test_large_faces_are_averaged_and_not_sampled() -> None:
    """Stripes of one pixel are grey from afar; single pixels of them would be black or white."""
    stripes = np.zeros((1200, 1600, 3), np.uint8)
    stripes[:, ::2] = 255
    face = align(stripes, face_at("dlib", 4), "dlib", SIZE_WH)
    assert np.abs(face.astype(int) - 127).max() <= 2


def test_margin_is_more_of_the_same() -> None:
    landmarks = face_at("dlib", 3.3, 10)
    inner, outer = (align(picture(), landmarks, "dlib", SIZE_WH, margin) for margin in (0, 20))
    assert outer.shape == (190, 190, 3)
    assert np.abs(outer[20:-20, 20:-20].astype(int) - inner).max() <= 1


def test_what_lies_outside_the_picture_is_black() -> None:
    white = np.full((150, 150, 3), 255, np.uint8)
    face = align(white, face_at("dlib", shift=(-75, 0)), "dlib", SIZE_WH)
    assert (face[:, :74] == 0).all()
    assert (face[:, 76:] == 255).all()


FAR = {
    "beside the picture": face_at("dlib", shift=(5000, 5000)),
    "left of it": face_at("dlib", shift=(-5000, 0)),
    "larger than any picture": face_at("dlib", 4e3, shift=(-3e5, -3e5)),
    "so large that the picture is no pixel of it": face_at("dlib", 1e5 / 150, shift=(-5e5, -5e5)),
    "the smallest": face_at("dlib", 1e-4),
    "upside down": face_at("dlib", degrees=180, shift=(300, 300)),
    "mirrored": face_at("dlib")[:, ::-1].copy(),
    "on a line": np.linspace((10, 10), (60, 60), 5),
}


@pytest.mark.parametrize("landmarks", FAR.values(), ids=FAR)
def test_any_finite_landmarks_give_a_face(landmarks: NDArray[np.float64]) -> None:
    assert align(picture(320, 240), landmarks, "dlib", SIZE_WH).shape == (150, 150, 3)


UNUSABLE = {
    "all on one spot": np.full((5, 2), 40.0),
    "not a number": np.full((5, 2), np.nan),
    "one is infinite": np.vstack([np.ones((4, 2)), [[np.inf, 0]]]),
    "beyond any picture": face_at("dlib", 1e6),
}


@pytest.mark.parametrize("landmarks", UNUSABLE.values(), ids=UNUSABLE)
def test_landmarks_that_say_nothing_are_refused(landmarks: NDArray[np.float64]) -> None:
    assert are_usable(np.stack([landmarks, face_at("dlib")])).tolist() == [False, True]
    with pytest.raises(InvalidInput, match="five landmarks"):
        align(picture(320, 240), landmarks, "dlib", SIZE_WH)


def test_four_landmarks_are_refused() -> None:
    with pytest.raises(InvalidInput, match="five landmarks"):
        align(picture(320, 240), face_at("dlib")[:4], "dlib", SIZE_WH)


def test_no_face_is_none_usable() -> None:
    assert are_usable(np.empty((0, 5, 2))).shape == (0,)
