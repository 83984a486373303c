"""Pictures on which a variant and its reference disagree most, with what each found drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from lathe.agreement import IOU, overlaps
from lathe.annotate import draw
from lathe.detections import Detections
from lathe_server.vision import EncodedPicture, decode, fit, letterbox
from lathe_server.vision.picture import read_header

LONG_SIDE = 640
BOTH_RGB, REFERENCE_RGB, VARIANT_RGB = (150, 150, 150), (70, 150, 255), (255, 140, 30)
LEGEND = "Grey: found by both. Blue: by the reference alone. Orange: by the variant alone."

Mask = NDArray[np.bool_]


def matched(one: Detections, other: Detections, iou: float = IOU) -> tuple[Mask, Mask]:
    """Which boxes of each have a partner of the same class in the other: greedy by overlap, as agreement counts."""
    overlap = np.where(one.class_id[:, None] == other.class_id[None], overlaps(one.xyxy, other.xyxy), 0.0)
    ours, theirs = np.zeros(len(one), bool), np.zeros(len(other), bool)
    while overlap.size and overlap.max() >= iou:
        row, column = np.unravel_index(overlap.argmax(), overlap.shape)
        overlap[row], overlap[:, column] = 0.0, 0.0
        ours[row] = theirs[column] = True
    return ours, theirs


def worst(reference: Mapping[str, Detections], variant: Mapping[str, Detections], count: int) -> list[tuple[str, int]]:
    """Pictures with the most boxes that only one of the two found, the worst first; those without any are not named."""
    alone = {key: sum(int((~mask).sum()) for mask in matched(found, variant[key])) for key, found in reference.items()}
    order = sorted((key for key, boxes in alone.items() if boxes), key=lambda key: (-alone[key], key))
    return [(key, alone[key]) for key in order[:count]]


def show(path: Path, reference: Detections, variant: Detections) -> bytes:
    """The upright picture as JPEG with the boxes of both.

    Args:
        reference, variant: in pixels of the upright picture.
    """
    picture = EncodedPicture(path.read_bytes())
    header = read_header(picture)
    placement = fit(header.upright_wh, (LONG_SIDE, LONG_SIDE), 1)
    pixels = letterbox(decode(picture, header, placement.scaled_wh), placement)[0]
    width, height = header.upright_wh
    scale = (placement.scaled_wh[0] / width, placement.scaled_wh[1] / height)
    theirs, ours = matched(reference, variant)
    for found, color_rgb in (
        (reference[theirs], BOTH_RGB),
        (reference[~theirs], REFERENCE_RGB),
        (variant[~ours], VARIANT_RGB),
    ):
        pixels = draw(pixels, _without_landmarks(found.scaled(*scale)), color_rgb)
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), 80, "RGB", "420"))


def _without_landmarks(found: Detections) -> Detections:
    return Detections(found.xyxy, found.score, found.class_id, found.landmarks[:, :0])
