"""Embeddings of the faces of one picture: the same value in the server and the client."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Embeddings:
    """N unit vectors of one embedding space, those of the largest boxes first; the similarity of two is their dot
    product. As a text it does not show them, so that they stray into no log.

    Attributes:
        vectors: N × D, float32.
        space: vectors of two spaces say nothing about each other.
        detection: N, int64: the place of each among the picture's detections; empty where nothing was detected, because
            the face's landmarks came with the picture, or it was aligned already.
    """

    vectors: NDArray[np.float32] = field(repr=False)
    space: str
    detection: NDArray[np.int64] = field(repr=False)

    def __len__(self) -> int:
        return len(self.vectors)

    @staticmethod
    def none(space: str = "", dimensions: int = 0) -> Embeddings:
        return Embeddings(np.empty((0, dimensions), np.float32), space, np.empty(0, np.int64))
