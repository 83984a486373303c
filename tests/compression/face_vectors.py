"""Vectors of made-up people, for tests of error rates."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

SIZE = 16
"""Numbers of ± 1/4: such a vector has length 1, and every product of two is exact, so that ties are ties."""


@st.composite
def exact_vectors(draw: Any, most: int = 12) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Subjects, and vectors of two networks; now and then a picture has none."""
    count = draw(st.integers(2, most))
    subjects = np.array(draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)))
    return subjects, _vectors(draw, count), _vectors(draw, count)


def _vectors(draw: Any, count: int) -> NDArray[np.float32]:
    # Few different bits, so that similarities are often equal.
    words = draw(st.lists(st.integers(0, 31), min_size=count, max_size=count))
    bits = (np.array(words)[:, None] * 2049 >> np.arange(SIZE)) & 1
    vectors = (bits / 2 - 0.25).astype(np.float32)
    vectors[draw(st.lists(st.sampled_from([False] * 7 + [True]), min_size=count, max_size=count))] = np.nan
    return vectors


def people(
    count: int, pictures: int, spread: float, random: np.random.Generator, dimensions: int = 8
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Pictures of each of so many people, around a vector of their own; some people vary more than others."""
    subjects = np.repeat(np.arange(count), pictures)
    own = random.normal(size=(count, dimensions))
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    varies = spread * np.exp(random.normal(scale=0.4, size=count))
    noise = random.normal(size=(len(subjects), dimensions)) / np.sqrt(dimensions)
    return subjects, (own[subjects] + varies[subjects, None] * noise).astype(np.float32)
