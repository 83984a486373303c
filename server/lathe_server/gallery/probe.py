"""A face as the gallery takes it: a vector, and what is known of the network that made it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lathe.errors import InvalidInput
from lathe.v1 import card_pb2

LENGTH_TOLERANCE = 1e-2


@dataclass(frozen=True, slots=True)
class Probe:
    """A face that is asked about, or to be enrolled.

    Attributes:
        vector: D, float32, of length 1.
        made_by: of the card of the network that made it.
    """

    vector: NDArray[np.float32] = field(repr=False)  # so that it strays into no log
    made_by: card_pb2.Embedding


def unit_vector(face: Probe) -> NDArray[np.float32]:
    """Its vector, of length 1 to the last bit.

    Raises:
        InvalidInput: it is no unit vector of its space.
    """
    vector = np.asarray(face.vector, np.float32).ravel()
    if len(vector) != face.made_by.dimensions:
        raise InvalidInput(f"the vector has {len(vector)} numbers; those of its space have {face.made_by.dimensions}")
    length = float(np.linalg.norm(vector))
    if not abs(length - 1) <= LENGTH_TOLERANCE:  # nor is what is no number
        raise InvalidInput("an embedding is a vector of length 1")
    return vector / np.float32(length)
