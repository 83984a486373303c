"""Faces to embeddings: which face gives which vector, and pictures that are aligned already."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lathe.errors import BadPicture, InvalidInput
from lathe_server.vision import EncodedPicture, RawPicture
from lathe_server.vision.align import TEMPLATES
from lathe_server.vision.embedder import EMBEDDING, Embedder


class MeanColour:
    """In the place of a network: a face's mean colour, as a unit vector."""

    def run(self, tensor: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        assert tensor.shape[1:] == (32, 32, 3)
        assert tensor.flags.c_contiguous
        mean = tensor.astype(np.float32).mean((1, 2))
        return {EMBEDDING: mean / np.linalg.norm(mean, axis=1, keepdims=True)}


EMBEDDER = Embedder(MeanColour(), "dlib", (32, 32))


def landmarks_at(left: float, top: float) -> NDArray[np.float64]:
    return TEMPLATES["dlib"] * 32 + (left, top)


@pytest.fixture
def red_and_blue() -> NDArray[np.uint8]:
    pixels = np.zeros((32, 80, 3), np.uint8)
    pixels[:, :40, 0] = pixels[:, 40:, 2] = 200
    return pixels


def test_each_face_has_its_embedding_in_order(red_and_blue: NDArray[np.uint8]) -> None:
    found = EMBEDDER.embed(red_and_blue, np.stack([landmarks_at(44, 0), landmarks_at(4, 0)]))
    assert found == pytest.approx(np.array([[0, 0, 1], [1, 0, 0]]))
    assert found.dtype == np.float32


def test_no_face_is_no_embedding(red_and_blue: NDArray[np.uint8]) -> None:
    assert len(EMBEDDER.embed(red_and_blue, np.empty((0, 5, 2)))) == 0
    assert EMBEDDER.align(red_and_blue, np.empty((0, 5, 2))).shape == (0, 32, 32, 3)


def test_aligned_picture_is_taken_as_it_is(red_and_blue: NDArray[np.uint8]) -> None:
    face = np.ascontiguousarray(red_and_blue[:, :32])
    taken = EMBEDDER.decode_aligned(RawPicture(32, 32, 0, "rgb8", face.tobytes()))
    assert (taken == face[None]).all()
    assert EMBEDDER.embed_aligned(taken) == pytest.approx(np.array([[1, 0, 0]]))


def test_picture_of_another_size_needs_landmarks() -> None:
    _, encoded = cv2.imencode(".png", np.zeros((32, 40, 3), np.uint8))
    with pytest.raises(InvalidInput, match="must be 32 x 32 pixels, and this picture is 40 x 32; with its landmarks"):
        EMBEDDER.decode_aligned(EncodedPicture(encoded.tobytes()))


def test_damaged_picture_is_told() -> None:
    with pytest.raises(BadPicture):
        EMBEDDER.decode_aligned(EncodedPicture(b"no picture"))
