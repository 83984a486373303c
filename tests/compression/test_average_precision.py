"""Average precision is pycocotools' own, and counts pictures as often as it is told."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.cocoeval import COCOeval

from lathe.detections import Detections
from lathe.errors import InvalidInput, NotFound
from lathe_compression.average_precision import Labels, PrecisionSamples

CATEGORIES = (3, 7, 8)
"""Ids as COCO has them, with gaps; class_id counts them in their order."""
PICTURES = 12
MAX_DETECTIONS = 20


def boxes(random: np.random.Generator, count: int) -> np.ndarray:
    """`count` × 4: left, top, width, height within 100 pixels."""
    return np.hstack([random.uniform(0, 60, (count, 2)), random.uniform(5, 40, (count, 2))])


def write(path: Path, annotations: list[dict[str, Any]], pictures: int = PICTURES) -> Labels:
    content = {
        "images": [{"id": n, "file_name": f"{n}.jpg", "width": 100, "height": 100} for n in range(1, pictures + 1)],
        "annotations": [{"id": n} | box for n, box in enumerate(annotations, 1)],
        "categories": [{"id": n, "name": str(n)} for n in CATEGORIES],
    }
    path.write_text(json.dumps(content))
    return Labels(path)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def labels(random: np.random.Generator, tmp_path: Path) -> Labels:
    """About four boxes a picture, a fifth of them crowds; the last picture has none."""
    annotations = [
        {
            "image_id": picture,
            "category_id": int(random.choice(CATEGORIES)),
            "bbox": box.tolist(),
            "area": float(box[2] * box[3]),
            "iscrowd": int(random.random() < 0.2),
        }
        for picture in range(1, PICTURES)
        for box in boxes(random, int(random.integers(1, 8)))
    ]
    return write(tmp_path / "instances_random.json", annotations)


@pytest.fixture
def found(random: np.random.Generator, labels: Labels) -> dict[int, Detections]:
    """The labels' boxes moved a little, some missing, among others made up; scores with ties."""
    detections = {}
    for picture in labels.pictures:
        near = [box for box in labels.coco.imgToAnns[picture] if random.random() < 0.8]
        moved = np.array([box["bbox"] for box in near]).reshape(-1, 4) + random.normal(0, 3, (len(near), 4))
        made_up = boxes(random, int(random.integers(0, 30)))
        classes = [CATEGORIES.index(box["category_id"]) for box in near]
        classes += random.integers(0, len(CATEGORIES), len(made_up)).tolist()
        xywh = np.vstack([moved, made_up])
        xyxy = np.hstack([xywh[:, :2], xywh[:, :2] + np.maximum(xywh[:, 2:], 1)]).astype(np.float32)
        score = random.integers(1, 20, len(xyxy)).astype(np.float32) / 20
        best = np.argsort(-score, kind="stable")
        detections[picture] = Detections(
            xyxy[best],
            score[best],
            np.array(classes, np.int64)[best],
            np.empty((len(xyxy), 0, 2), np.float32),
        )
    return detections


def by_pycocotools(labels: Labels, found: dict[int, Detections]) -> float:
    """AP@.5 by pycocotools' own accumulation."""
    results = [
        {
            "image_id": picture,
            "category_id": CATEGORIES[class_id],
            "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()],
            "score": float(score),
        }
        for picture, one in found.items()
        for box, score, class_id in zip(one.xyxy, one.score, one.class_id, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(labels.coco, labels.coco.loadRes(results), "bbox")
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.imgIds = sorted(found)
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][0, :, :, 0, 0]  # IoU .5: recalls × categories
    return float(precision[precision > -1].mean())


def test_it_is_pycocotools_own_figure(labels: Labels, found: dict[int, Detections]) -> None:
    ours = PrecisionSamples(labels, found, MAX_DETECTIONS).ap50()
    assert 0.1 < ours < 0.9
    assert ours == pytest.approx(by_pycocotools(labels, found), abs=1e-9)


def test_some_pictures_alone(labels: Labels, found: dict[int, Detections]) -> None:
    some = {picture: found[picture] for picture in (2, 5, 6, 11)}
    assert PrecisionSamples(labels, some, MAX_DETECTIONS).ap50() == pytest.approx(by_pycocotools(labels, some))


def test_multiplicity_is_a_picture_repeated(labels: Labels, found: dict[int, Detections], tmp_path: Path) -> None:
    """Picture 1 three times, 2 not at all, 3 twice, as a set that really holds copies."""
    for detections in found.values():  # without ties, whose order copies would change
        detections.score[:] = np.sort(np.random.default_rng(len(detections)).uniform(size=len(detections)))[::-1]
    times = {1: 3, 2: 0, 3: 2}
    copies = [picture for picture, count in times.items() for _ in range(count)]
    annotations = [
        {key: box[key] for key in ("category_id", "bbox", "area", "iscrowd")} | {"image_id": number}
        for number, picture in enumerate(copies, 1)
        for box in labels.coco.imgToAnns[picture]
    ]
    repeated = write(tmp_path / "copies.json", annotations, len(copies))
    expected = PrecisionSamples(repeated, {n: found[p] for n, p in enumerate(copies, 1)}, MAX_DETECTIONS).ap50()
    samples = PrecisionSamples(labels, {picture: found[picture] for picture in times}, MAX_DETECTIONS)
    assert samples.ap50(np.array([times[key] for key in samples.picture_ids])) == pytest.approx(expected)


def test_nothing_found_is_zero(labels: Labels) -> None:
    nothing = dict.fromkeys(labels.pictures, Detections.none())
    assert PrecisionSamples(labels, nothing, MAX_DETECTIONS).ap50() == 0.0


def test_nothing_to_find_is_no_figure(labels: Labels, found: dict[int, Detections]) -> None:
    assert np.isnan(PrecisionSamples(labels, {PICTURES: found[PICTURES]}, MAX_DETECTIONS).ap50())


def test_ignored_boxes_are_neither_found_nor_missed(tmp_path: Path) -> None:
    crowd = {"image_id": 1, "category_id": 3, "bbox": [0, 0, 50, 50], "iscrowd": 1}
    box = {"image_id": 1, "category_id": 3, "bbox": [60, 60, 20, 20], "iscrowd": 0}
    labels = write(tmp_path / "labels.json", [crowd, box], 1)
    inside_the_crowd = np.array([[5, 5, 20, 20], [60, 60, 80, 80]], np.float32)
    found = Detections(inside_the_crowd, np.array([0.9, 0.8], np.float32), np.zeros(2, np.int64), np.empty((2, 0, 2)))
    assert PrecisionSamples(labels, {1: found}, 10).ap50() == pytest.approx(1.0)


def test_labels_without_area_and_crowds_will_do(tmp_path: Path) -> None:
    labels = write(tmp_path / "labels.json", [{"image_id": 1, "category_id": 3, "bbox": [0, 0, 20, 20]}], 1)
    found = Detections(
        np.array([[0, 0, 20, 20]], np.float32),
        np.array([0.9], np.float32),
        np.zeros(1, np.int64),
        np.empty((1, 0, 2), np.float32),
    )
    assert PrecisionSamples(labels, {1: found}, 10).ap50() == pytest.approx(1.0)


def test_class_that_the_labels_do_not_have_is_left_out(labels: Labels, found: dict[int, Detections]) -> None:
    before = PrecisionSamples(labels, found, 1000).ap50()
    for detections in found.values():
        detections.class_id[detections.class_id == 2] = len(CATEGORIES)
    assert PrecisionSamples(labels, found, 1000).ap50() <= before


@pytest.mark.parametrize(
    "content",
    [
        "",
        "no JSON",
        "[]",
        "3",
        "{}",
        '{"images": 3, "annotations": [], "categories": []}',
        '{"images": [{"id": 1}], "annotations": [], "categories": []}',
        '{"images": ["1.jpg"], "annotations": [], "categories": []}',
        '{"images": [], "annotations": [{"id": 1, "image_id": 1, "category_id": 1}], "categories": []}',
    ],
)
def test_what_is_no_label_file_is_told(content: str, tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(content)
    with pytest.raises(InvalidInput, match=r"labels\.json is not a COCO instances file"):
        Labels(tmp_path / "labels.json")


def test_missing_label_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no label file"):
        Labels(tmp_path / "labels.json")
