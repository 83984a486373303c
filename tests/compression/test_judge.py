"""Variants side by side: the same pictures, in turns, through the server's own eyes."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from lathe.errors import BadPicture
from lathe_compression.judge import STAGES, build_detector, judge, speedup
from lathe_server.vision import EncodedPicture, RawPicture
from lathe_server.vision.detections import Thresholds
from tests.models import bright_spots, card_for

CARD = card_for("spots", "a")


def spot(column: int) -> RawPicture:
    """160×128, black with one white cell."""
    pixels = np.zeros((128, 160, 3), np.uint8)
    pixels[64:68, column : column + 4] = 255
    return RawPicture(160, 128, 0, "rgb8", pixels.tobytes())


PICTURES = [(str(column), spot(column)) for column in (20, 40, 60, 80)]


def test_every_variant_sees_every_picture() -> None:
    detectors = {
        "small": build_detector(CARD, bright_spots()),
        "big": build_detector(CARD, bright_spots(box_pixels=16)),
    }
    advanced: list[None] = []
    judged = judge(detectors, PICTURES, lambda: advanced.append(None))
    assert len(advanced) == len(PICTURES)
    for name, side in {"small": 12, "big": 16}.items():
        found = judged[name].detections
        assert list(found) == [key for key, _ in PICTURES]
        assert [len(one) for one in found.values()] == [1] * 4
        assert found["40"].xyxy[0, 2] - found["40"].xyxy[0, 0] == pytest.approx(side, abs=0.1)


def test_more_work_is_slower() -> None:
    light, heavy = build_detector(CARD, bright_spots()), build_detector(CARD, bright_spots(work=8))
    judged = judge({"light": light, "heavy": heavy}, PICTURES * 3)
    assert speedup(judged["light"], judged["heavy"]) > 1.5
    assert speedup(judged["light"], judged["light"]) == 1.0


def test_stage_times_add_up_to_the_frame() -> None:
    judged = judge({"a": build_detector(CARD, bright_spots())}, PICTURES[:1])["a"]
    medians = judged.stage_medians()
    assert set(medians) == {*STAGES, "total"}
    assert math.isclose(medians["total"], sum(medians[stage] for stage in STAGES))
    assert all(seconds > 0 for seconds in medians.values())


def test_card_gives_size_and_thresholds_unless_told_otherwise() -> None:
    detector = build_detector(CARD, bright_spots())
    assert (detector.limit_wh, detector.multiple, detector.decoder) == ((160, 128), 32, "heatmap")
    assert detector.thresholds == Thresholds(0.5, 0.3, 100)
    wide = build_detector(CARD, bright_spots(), size_wh=(64, 64), thresholds=Thresholds(0.02, 0.3, 1000))
    assert (wide.limit_wh, wide.thresholds.max_detections) == ((64, 64), 1000)


@pytest.mark.parametrize("position", [0, 1])
def test_picture_that_cannot_be_decoded_is_named(position: int) -> None:
    ok, jpeg = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))
    pictures = [("folder/good.jpg", EncodedPicture(jpeg.tobytes())), ("folder/other.jpg", spot(20))]
    pictures[position] = ("folder/bad.jpg", EncodedPicture(jpeg.tobytes()[:300]))
    assert ok
    with pytest.raises(BadPicture, match=r"^bad\.jpg: "):
        judge({"a": build_detector(CARD, bright_spots())}, pictures)
