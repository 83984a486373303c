"""COCO's average precision at IoU 0.5, with pictures that may count any number of times.

Matching is pycocotools' own; accumulation follows its definition (101 recall points, precision made
monotone) but takes a multiplicity for each picture, which is what a bootstrap over pictures needs.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lathe.detections import Detections
from lathe.errors import InvalidInput, NotFound

IOU = 0.5
_RECALLS = np.linspace(0.0, 1.0, 101)


class Labels:
    """Boxes of a COCO file; those marked `iscrowd` are ignored: neither found nor missed.

    Raises:
        NotFound: there is no such file.
        InvalidInput: not a COCO instances file.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise NotFound(f"there is no label file {path}")
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                self.coco = COCO(str(path))
            missing = {"images", "annotations", "categories"} - self.coco.dataset.keys()
            if missing:
                raise KeyError(*missing)
            self.pictures: dict[int, Path] = {
                key: path.parent / picture["file_name"] for key, picture in self.coco.imgs.items()
            }
            self.categories: list[int] = sorted(self.coco.cats)
            for box in self.coco.anns.values():  # fields that COCO has and many others leave out
                box.setdefault("iscrowd", 0)
                box.setdefault("area", float(box["bbox"][2] * box["bbox"][3]))
        except (ValueError, KeyError, TypeError, AssertionError) as error:
            raise InvalidInput(f"{path.name} is not a COCO instances file") from error


@dataclass(frozen=True)
class _Matches:
    """Detections of one category, best score first, and how many boxes each picture has of it."""

    picture: NDArray[np.int64]
    found: NDArray[np.bool_]
    wanted: NDArray[np.int64]


class PrecisionSamples:
    """Matched detections of one variant on labelled pictures.

    Args:
        found: detections by picture id, in pixels of the picture.
        max_detections: per picture and category.
    """

    def __init__(self, labels: Labels, found: Mapping[int, Detections], max_detections: int) -> None:
        self.picture_ids: Sequence[int] = sorted(found)
        self._matches = _match(labels, found, self.picture_ids, max_detections)

    def ap50(self, multiplicity: NDArray[np.int64] | None = None) -> float:
        """Mean over the categories that have boxes; 0 to 1, NaN where none has.

        Args:
            multiplicity: how often each picture counts, in the order of `picture_ids`.
        """
        if multiplicity is None:
            multiplicity = np.ones(len(self.picture_ids), np.int64)
        values = [_average_precision(matches, multiplicity) for matches in self._matches]
        return float(np.mean([value for value in values if not np.isnan(value)] or [np.nan]))


def _match(
    labels: Labels, found: Mapping[int, Detections], picture_ids: Sequence[int], max_detections: int
) -> list[_Matches]:
    results: list[dict[str, Any]] = []
    for key in picture_ids:
        detections = found[key]
        xywh = detections.xyxy.copy()
        xywh[:, 2:] -= xywh[:, :2]
        results += [
            {
                "image_id": key,
                "category_id": labels.categories[class_id],
                "bbox": box.tolist(),
                "score": float(score),
            }
            for box, score, class_id in zip(xywh, detections.score, detections.class_id, strict=True)
            if class_id < len(labels.categories)
        ]
    with contextlib.redirect_stdout(io.StringIO()):
        predictions = labels.coco.loadRes(results) if results else COCO()
        evaluation = COCOeval(labels.coco, predictions, "bbox")
        evaluation.params.imgIds = list(picture_ids)
        evaluation.params.iouThrs = np.array([IOU])
        evaluation.params.maxDets = [max_detections]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
    per_category = len(picture_ids)
    return [
        _collect(evaluation.evalImgs[start : start + per_category])
        for start in range(0, len(evaluation.evalImgs), per_category)
    ]


def _collect(pictures: Sequence[Mapping[str, Any] | None]) -> _Matches:
    picture: list[int] = []
    score: list[float] = []
    found: list[bool] = []
    wanted = np.zeros(len(pictures), np.int64)
    for position, matched in enumerate(pictures):
        if matched is None:
            continue
        wanted[position] = int(np.sum(np.asarray(matched["gtIgnore"]) == 0))
        counted = ~np.asarray(matched["dtIgnore"][0], bool)
        score += np.asarray(matched["dtScores"])[counted].tolist()
        found += (np.asarray(matched["dtMatches"][0])[counted] > 0).tolist()
        picture += [position] * int(counted.sum())
    order = np.argsort(-np.asarray(score), kind="mergesort") if score else np.empty(0, np.int64)
    return _Matches(np.asarray(picture, np.int64)[order], np.asarray(found, bool)[order], wanted)


def _average_precision(matches: _Matches, multiplicity: NDArray[np.int64]) -> float:
    wanted = int(matches.wanted @ multiplicity)
    if not wanted:
        return float("nan")
    if not len(matches.picture):
        return 0.0
    weight = multiplicity[matches.picture]
    true = np.cumsum(weight * matches.found)
    all_found = np.cumsum(weight)
    precision = true / np.maximum(all_found, 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(true / wanted, _RECALLS, side="left")
    return float(np.append(precision, 0.0)[np.minimum(at, len(precision))].mean())
