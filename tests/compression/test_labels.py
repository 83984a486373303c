"""Labels of training pictures: read from a COCO file, and carried through crops."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from lathe.errors import InvalidInput, NotFound
from lathe_compression.labels import Objects, read_labels, together
from lathe_compression.pictures import file_digest

WHOLE = (0.0, 0.0, 1e6, 1e6)


def objects(*xyxy: tuple[float, ...], unsure: tuple[tuple[float, ...], ...] = ()) -> Objects:
    return Objects(
        np.array(xyxy, np.float32).reshape(-1, 4),
        np.arange(len(xyxy)),
        np.array([WHOLE], np.float32),
        np.array(unsure, np.float32).reshape(-1, 4),
    )


@pytest.mark.parametrize(
    ("what", "mirrored", "box"),
    [
        ("the box as it is", False, (20, 10, 60, 40)),
        ("mirrored within the tile", True, (40, 10, 80, 40)),
    ],
)
def test_whole_picture_in_a_tile_of_its_size(what: str, mirrored: bool, box: tuple[float, ...]) -> None:
    shown = objects((20, 10, 60, 40)).seen_through((0, 0, 100, 80), (0, 0, 100, 80), mirrored=mirrored)
    np.testing.assert_allclose(shown.xyxy, [box], atol=1e-3, err_msg=what)
    np.testing.assert_allclose(shown.known, [(0, 0, 100, 80)], atol=1e-3)
    assert not len(shown.unsure)


def test_crop_is_scaled_and_moved_to_its_tile() -> None:
    shown = objects((20, 10, 60, 40)).seen_through((10, 0, 110, 80), (200, 100, 250, 140), mirrored=False)
    np.testing.assert_allclose(shown.xyxy, [(205, 105, 225, 120)], atol=1e-3)
    np.testing.assert_allclose(shown.known, [(200, 100, 250, 140)], atol=1e-3)


@pytest.mark.parametrize(
    ("what", "box", "examples", "unsure"),
    [
        ("three quarters are seen", (-10, 10, 30, 40), 1, 0),
        ("half is seen", (-20, 10, 20, 40), 0, 1),
        ("nothing is seen", (-40, 10, -5, 40), 0, 0),
        ("too small", (20, 10, 23, 40), 0, 1),
        ("without area", (20, 10, 20, 40), 0, 0),
    ],
)
def test_what_an_edge_cuts_is_no_example(what: str, box: tuple[float, ...], examples: int, unsure: int) -> None:
    shown = objects(box).seen_through((0, 0, 100, 80), (0, 0, 100, 80), mirrored=False)
    assert (len(shown.xyxy), len(shown.class_id), len(shown.unsure)) == (examples, examples, unsure), what
    for area in (*shown.xyxy, *shown.unsure):
        assert (area >= 0).all()
        assert (area <= (100, 80, 100, 80)).all()


def test_of_an_unlabelled_picture_nothing_is_known() -> None:
    shown = Objects.none().seen_through((0, 0, 10, 10), (0, 0, 20, 20), mirrored=True)
    assert not any(len(part) for part in (shown.xyxy, shown.class_id, shown.known, shown.unsure))


def test_tiles_together() -> None:
    both = together(
        [objects((0, 0, 9, 9)), Objects.none(), objects((1, 1, 5, 5), (2, 2, 8, 8), unsure=((0, 0, 3, 3),))]
    )
    assert [len(part) for part in (both.xyxy, both.class_id, both.known, both.unsure)] == [3, 3, 2, 1]


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), random.integers(0, 256, (40, 60, 3), np.uint8))
    content = {
        "images": [
            {"id": 7, "file_name": "a.png"},
            {"id": 8, "file_name": "b.png"},
            {"id": 9, "file_name": "gone.png"},
        ],
        "categories": [{"id": 5, "name": "face"}, {"id": 2, "name": "person"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 5, "bbox": [10, 5, 20, 30]},
            {"id": 2, "image_id": 7, "category_id": 2, "bbox": [0, 0, 9, 9], "iscrowd": 1},
            {"id": 3, "image_id": 9, "category_id": 2, "bbox": [0, 0, 9, 9]},
        ],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    return path


def test_coco_file_gives_the_objects_of_each_picture(labelled: Path) -> None:
    found = read_labels(labelled, ["person", "face"])
    assert set(found) == {file_digest(labelled.parent / name) for name in ("a.png", "b.png")}
    one = found[file_digest(labelled.parent / "a.png")]
    np.testing.assert_allclose(one.xyxy, [(10, 5, 30, 35)])
    assert one.class_id.tolist() == [1]  # 5 is the second of the ids
    np.testing.assert_allclose(one.unsure, [(0, 0, 9, 9)])
    bare = found[file_digest(labelled.parent / "b.png")]
    assert (len(bare.xyxy), len(bare.known)) == (0, 1)  # labelled, and nothing is there


def test_other_number_of_classes_is_told(labelled: Path) -> None:
    with pytest.raises(InvalidInput, match=r"instances\.json has 2 categories, and the model 1 classes"):
        read_labels(labelled, ["face"])
    with pytest.raises(NotFound, match="no label file"):
        read_labels(labelled.parent / "other.json", ["face"])
