"""Faces into the position that an embedding network knows: the same code for training, evaluation and serving.

| alignment | where the landmarks come to lie | margin around the face |
|---|---|---|
| `dlib` | as in dlib's face chips | a quarter of the face on each side |
| `arcface` | as drawn for ArcFace (Deng et al., arXiv 1801.07698) at 112 × 112 | hardly any |

Coordinates are those of detections: a pixel's centre lies at one half. What lies outside the picture is black.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, floor

import cv2
import numpy as np
from numpy.typing import NDArray

from lathe.errors import InvalidInput

LANDMARKS = 5
"""Eyes, nose, corners of the mouth; of each pair the left one of the picture first."""

_DLIB = (
    (0.22549, 0.21599),
    (0.75476, 0.21599),
    (0.490127, 0.515625),
    (0.254149, 0.780233),
    (0.726104, 0.780233),
)
_ARCFACE = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)

TEMPLATES: Mapping[str, NDArray[np.float64]] = {
    "dlib": (np.array(_DLIB) + 0.25) / 1.5,
    "arcface": np.array(_ARCFACE) / 112,
}
"""5 × 2: x, y of each landmark in the unit square, by the word of the card's alignment."""

_LEAST_SPREAD, _FARTHEST = 1e-3, 1e6
"""Pixels: landmarks nearer together than the first are one spot; farther out than the second no picture reaches."""
_ROUNDING = 1e-9
_SEEN_BESIDE = 2
"""Pixels beyond the face's outline that interpolation may touch."""


def are_usable(landmarks: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which faces can be aligned: finite landmarks that do not all lie on one spot.

    Args:
        landmarks: N × 5 × 2.
    """
    given = landmarks.astype(np.float64)
    near = np.isfinite(given).all((1, 2)) & (np.abs(np.nan_to_num(given)).max((1, 2), initial=0) < _FARTHEST)
    spread = np.zeros(len(given))
    spread[near] = given[near].std(1).max(1, initial=0)
    usable: NDArray[np.bool_] = near & (spread > _LEAST_SPREAD)
    return usable


def similarity(points: NDArray[np.floating], targets: NDArray[np.floating]) -> NDArray[np.float64]:
    """The turn, scale and shift that bring points nearest to their targets, by least squares (Umeyama, 1991).

    In the plane this is a line through complex numbers: with both sets around their means, target = a · point,
    a = Σ conj(point) · target / Σ |point|².

    Args:
        points, targets: K × 2.

    Returns:
        2 × 3: what a point is multiplied by once a 1 stands behind its x and y.
    """
    source, target = (one.astype(np.float64) @ (1, 1j) for one in (points, targets))
    centre, aim = source.mean(), target.mean()
    around = source - centre
    a = np.vdot(around, target - aim) / np.vdot(around, around).real
    b = aim - a * centre
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def align(
    pixels: NDArray[np.uint8],
    landmarks: NDArray[np.floating],
    alignment: str,
    size_wh: tuple[int, int],
    margin: int = 0,
) -> NDArray[np.uint8]:
    """One face, upright and in its place.

    A face that is more than twice as large as what the network sees is averaged down first, since taking single
    pixels out of it would alias.

    Args:
        pixels: height × width × 3, of the whole picture.
        landmarks: 5 × 2, x and y in these pixels.
        alignment: one of the `TEMPLATES`.
        size_wh: of the network's input.
        margin: pixels that are kept beyond it on every side.

    Returns:
        (height + 2 margin) × (width + 2 margin) × 3, uint8.

    Raises:
        InvalidInput: landmarks of another number than five, not finite, or all on one spot.
    """
    if landmarks.shape != (LANDMARKS, 2) or not are_usable(landmarks[None])[0]:
        raise InvalidInput("a face is aligned by five landmarks, x and y, that do not all lie on one spot")
    out_wh = (size_wh[0] + 2 * margin, size_wh[1] + 2 * margin)
    matrix = similarity(landmarks, TEMPLATES[alignment] * size_wh + margin)
    nothing = np.zeros((out_wh[1], out_wh[0], 3), np.uint8)
    scale = float(np.hypot(*matrix[:, 0]))
    if scale * max(pixels.shape[:2]) < 1:  # all of the picture is not a pixel of the answer
        return nothing
    factor = max(1, floor(1 / scale + _ROUNDING))
    (left, top), region = _seen(pixels, matrix, out_wh, factor)
    small_wh = (region.shape[1] // factor, region.shape[0] // factor)
    if not all(small_wh):
        return nothing
    if factor > 1:
        whole = region[: small_wh[1] * factor, : small_wh[0] * factor]
        region = cv2.resize(whole, small_wh, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    from_region = np.array([[factor, 0, left], [0, factor, top], [0, 0, 1]])
    chip: NDArray[np.uint8] = cv2.warpAffine(
        np.ascontiguousarray(region), _of_pixel_numbers(matrix @ from_region), out_wh, flags=cv2.INTER_LINEAR
    ).astype(np.uint8, copy=False)
    return chip


def _seen(
    pixels: NDArray[np.uint8], matrix: NDArray[np.float64], out_wh: tuple[int, int], factor: int
) -> tuple[tuple[int, int], NDArray[np.uint8]]:
    """The part of a picture that the answer is made of, with its left and top, which are multiples of the factor, so
    that the same pixels are averaged whatever the part."""
    width, height = out_wh
    corners = np.array([(0, 0), (width, 0), (0, height), (width, height)])
    outline = np.linalg.solve(matrix[:, :2], (corners - matrix[:, 2]).T).T
    beside = _SEEN_BESIDE * factor
    left, top = (max(0, floor(low / factor) * factor) for low in outline.min(0) - beside)
    right, bottom = (max(0, ceil(high)) for high in outline.max(0) + beside)
    return (left, top), pixels[top:bottom, left:right]


def _of_pixel_numbers(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same for coordinates in which a pixel's centre is its number, as OpenCV has it."""
    shifted = matrix.copy()
    shifted[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5
    return shifted
