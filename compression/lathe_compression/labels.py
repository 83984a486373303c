"""Boxes of objects in training pictures, carried along into the scenes that are made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lathe.errors import InvalidInput
from lathe_compression.average_precision import Labels
from lathe_compression.pictures import file_digest

LEAST_SEEN, SMALLEST_SIDE = 0.7, 4.0
"""A box of which a tile shows a smaller share, or which has a shorter side in pixels, is no example any more."""
EVERYWHERE = (0.0, 0.0, 1e6, 1e6)

Boxes = NDArray[np.float32]
Area = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True, slots=True, eq=False)
class Objects:
    """What is known of one picture or scene, in its pixels; boxes are (left, top, right, bottom).

    Attributes:
        xyxy: N × 4, the objects.
        class_id: N.
        known: K × 4, where every object has its box; none in a picture that nobody labelled.
        unsure: U × 4, neither object nor background: crowds, and objects that an edge cuts.
    """

    xyxy: Boxes
    class_id: NDArray[np.int64]
    known: Boxes
    unsure: Boxes

    @classmethod
    def none(cls) -> Objects:
        return cls(_boxes([]), np.empty(0, np.int64), _boxes([]), _boxes([]))

    def scaled(self, factor: float) -> Objects:
        return Objects(self.xyxy * factor, self.class_id, self.known * factor, self.unsure * factor)

    def seen_through(self, crop: Area, tile: Area, *, mirrored: bool) -> Objects:
        """What of it is in a tile of a scene that shows a crop of the picture, scaled to fill it."""
        if not len(self.known):
            return self

        def placed(boxes: Boxes) -> Boxes:
            corners = (boxes.reshape(-1, 2, 2) - crop[:2]) / (crop[2] - crop[0], crop[3] - crop[1])
            if mirrored:
                corners[:, :, 0] = 1 - corners[:, ::-1, 0]
            return _boxes((corners * (tile[2] - tile[0], tile[3] - tile[1]) + tile[:2]).reshape(-1, 4))

        def inside(boxes: Boxes) -> Boxes:
            return np.clip(boxes, (*tile[:2], *tile[:2]), (*tile[2:], *tile[2:])).astype(np.float32)

        whole = placed(self.xyxy)
        shown = inside(whole)
        seen = _areas(shown) > 0
        example = seen & (_areas(shown) >= LEAST_SEEN * _areas(whole)) & (_sides(shown).min(axis=1) >= SMALLEST_SIDE)
        unsure = inside(placed(self.unsure))
        known = inside(placed(self.known))
        return Objects(
            shown[example],
            self.class_id[example],
            known[_areas(known) > 0],
            np.concatenate([unsure[_areas(unsure) > 0], shown[seen & ~example]]),
        )


def together(parts: Sequence[Objects]) -> Objects:
    """Of a scene, from what is in its tiles."""
    return Objects(
        np.concatenate([part.xyxy for part in parts]),
        np.concatenate([part.class_id for part in parts]),
        np.concatenate([part.known for part in parts]),
        np.concatenate([part.unsure for part in parts]),
    )


def read_labels(path: Path, classes: Sequence[str]) -> dict[str, Objects]:
    """Objects of a COCO file's pictures, by the sha256 of the picture's file; pictures that are missing are
    left out.

    Args:
        classes: of the model, in the order of the file's category ids.

    Raises:
        NotFound: there is no such file.
        InvalidInput: not a COCO instances file, or one of another number of classes.
    """
    labels = Labels(path)
    if len(labels.categories) != len(classes):
        raise InvalidInput(f"{path.name} has {len(labels.categories)} categories, and the model {len(classes)} classes")
    found = {}
    for key, picture in labels.pictures.items():
        if not picture.is_file():
            continue
        drawn = labels.coco.loadAnns(labels.coco.getAnnIds(imgIds=[key]))
        sure = [one for one in drawn if not one["iscrowd"]]
        found[file_digest(picture)] = Objects(
            _corners([one["bbox"] for one in sure]),
            np.array([labels.categories.index(one["category_id"]) for one in sure], np.int64),
            _boxes([EVERYWHERE]),
            _corners([one["bbox"] for one in drawn if one["iscrowd"]]),
        )
    return found


def _corners(xywh: Sequence[Sequence[float]]) -> Boxes:
    boxes = _boxes(xywh)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def _boxes(rows: Sequence[Sequence[float]] | NDArray[np.floating]) -> Boxes:
    return np.asarray(rows, np.float32).reshape(-1, 4).copy()


def _sides(boxes: Boxes) -> NDArray[np.float32]:
    """Width and height."""
    return boxes[:, 2:] - boxes[:, :2]


def _areas(boxes: Boxes) -> NDArray[np.float32]:
    return np.asarray(_sides(boxes).clip(min=0).prod(axis=1), np.float32)
