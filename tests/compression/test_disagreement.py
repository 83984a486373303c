"""Which boxes have a partner, and on which pictures most have none."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from lathe.agreement import matched_pairs
from lathe.detections import Detections
from lathe_compression.disagreement import REFERENCE_RGB, VARIANT_RGB, matched, show, worst


def found(*boxes: tuple[float, float, float, float], class_id: int = 0) -> Detections:
    count = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(count, 4),
        np.full(count, 0.9, np.float32),
        np.full(count, class_id, np.int64),
        np.zeros((count, 5, 2), np.float32),
    )


A, B, NEAR_A = (0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 60.0, 60.0), (1.0, 0.0, 11.0, 10.0)


def test_a_box_has_one_partner_at_most() -> None:
    ours, theirs = matched(found(A, NEAR_A), found(A, B))
    assert (ours.tolist(), theirs.tolist()) == ([True, False], [True, False])
    assert not matched(found(A), found(A, class_id=1))[0].any()
    assert [len(mask) for mask in matched(found(), found(A))] == [0, 1]


def test_it_counts_as_agreement_does() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        corners = random.uniform(0, 40, (2, 12, 2))
        one, other = (found(*[(x, y, x + 15, y + 15) for x, y in half]) for half in corners)
        ours, theirs = matched(one, other)
        assert ours.sum() == theirs.sum() == matched_pairs(one, other)


def test_the_worst_pictures_first_and_none_that_agrees() -> None:
    reference = {"a": found(A), "b": found(A, B), "c": found(A), "d": found(A, B)}
    variant = {"a": found(A), "b": found(), "c": found(), "d": found()}
    assert worst(reference, variant, 2) == [("b", 2), ("d", 2)]
    assert worst(reference, variant, 9) == [("b", 2), ("d", 2), ("c", 1)]


def test_both_are_drawn_where_they_are(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    assert cv2.imwrite(str(path), np.zeros((240, 320, 3), np.uint8))
    reference, variant = found((20, 20, 60, 60)), found((200, 100, 280, 180))
    pixels = simplejpeg.decode_jpeg(show(path, reference, variant)).astype(int)
    assert pixels.shape == (480, 640, 3)
    for color_rgb, (x, y) in {REFERENCE_RGB: (40, 80), VARIANT_RGB: (400, 260)}.items():
        assert abs(pixels[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3) - color_rgb).sum(1).min() < 120
