"""Agreement of two variants, counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lathe.agreement import AgreementSamples, matched_pairs, overlaps
from lathe.detections import Detections

Box = tuple[float, float, float, float]
A, B, FAR = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0), (80.0, 80.0, 90.0, 90.0)


def detections(*boxes: Box, classes: tuple[int, ...] = ()) -> Detections:
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.linspace(0.9, 0.5, len(boxes), dtype=np.float32),
        np.array(classes or [0] * len(boxes), np.int64),
        np.empty((len(boxes), 0, 2), np.float32),
    )


def test_overlap_of_boxes() -> None:
    half = (0.0, 0.0, 10.0, 5.0)
    table = overlaps(detections(A, B).xyxy, detections(A, half, FAR).xyxy)
    np.testing.assert_allclose(table, [[1.0, 0.5, 0.0], [0.0, 0.0, 0.0]])


@pytest.mark.parametrize(
    ("one", "other", "pairs"),
    [
        (detections(), detections(), 0),
        (detections(A), detections(), 0),
        (detections(A, B), detections(B, A), 2),
        (detections(A, A), detections(A), 1),  # each box is in one pair at most
        (detections(A), detections(FAR), 0),
        (detections(A), detections((0, 0, 10, 5)), 1),  # just half
        (detections(A), detections((0, 0, 10, 4.9)), 0),
        (detections(A, classes=(0,)), detections(A, classes=(1,)), 0),
        # The best pairs go first: the exact twin, not the first in the list.
        (detections((0, 0, 10, 7), A), detections(A), 1),
        (detections((5, 5, 5, 5)), detections((5, 5, 5, 5)), 0),  # no area
    ],
)
def test_matched_pairs(one: Detections, other: Detections, pairs: int) -> None:
    assert matched_pairs(one, other) == matched_pairs(other, one) == pairs


PAIRS = [
    (detections(A, B), detections(A)),  # 1 of 3 found boxes unmatched
    (detections(), detections()),  # neither found anything: not judged
    (detections(FAR), detections(A)),
]


def test_agreement_is_f1_over_pictures_with_detections() -> None:
    samples = AgreementSamples(PAIRS)
    assert samples.pictures == 2
    assert samples.agreement() == 2 * 1 / (3 + 2)


def test_agreement_counts_pictures_as_often_as_told() -> None:
    assert AgreementSamples(PAIRS).agreement(np.array([3, 1])) == 2 * 3 / (9 + 2)


def test_no_detections_are_no_figure() -> None:
    assert math.isnan(AgreementSamples([]).agreement())
    assert math.isnan(AgreementSamples(PAIRS[1:2]).agreement())
