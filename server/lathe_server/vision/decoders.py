"""From a network's outputs to candidate boxes on the canvas: a closed set of decoders.

A card names its decoder, so the server never runs a user's code. Each takes the outputs by name
(batch of one) and the least score, and returns candidates before suppression.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from lathe.detections import Detections
from lathe_server.vision.detections import best_candidates

Outputs = Mapping[str, NDArray[np.float32]]
Shape = tuple[int, ...]

HEATMAP_STRIDE = 4


def heatmap(outputs: Outputs, min_score: float) -> Detections:
    """Decodes a centre heat-map (CenterFace: Xu et al., arXiv 1911.03599).

    At cell (row, column) of the stride-4 grid the box has the size 4·exp(scale) and its centre at
    4·(cell + offset + 0.5); a landmark is the box's corner plus value times the box's size.

    Args:
        outputs: `heatmap` 1×1×H×W, `scale` 1×2×H×W (log height, log width), `offset` 1×2×H×W
            (y, x), `landmarks` 1×10×H×W (five y, x pairs).
    """
    heat = outputs["heatmap"][0, 0]
    cells = np.flatnonzero(heat.reshape(-1) > min_score)
    if not len(cells):
        return Detections.none(landmarks=5)
    score = heat.reshape(-1)[cells]
    chosen = best_candidates(score)
    cells, score = cells[chosen], score[chosen]
    rows, columns = np.divmod(cells, heat.shape[1])
    # Networks may be untrained or damaged: an exponent above 12 is past any picture.
    size_hw = HEATMAP_STRIDE * np.exp(np.minimum(outputs["scale"][0].reshape(2, -1)[:, cells], 12.0))
    offset_yx = outputs["offset"][0].reshape(2, -1)[:, cells]
    centre_y = HEATMAP_STRIDE * (rows + offset_yx[0] + 0.5)
    centre_x = HEATMAP_STRIDE * (columns + offset_yx[1] + 0.5)
    height, width = size_hw
    xyxy = np.stack(
        (centre_x - width / 2, centre_y - height / 2, centre_x + width / 2, centre_y + height / 2), axis=1
    ).astype(np.float32)
    landmarks_yx = outputs["landmarks"][0].reshape(-1, 2, heat.size)[:, :, cells]
    landmarks = np.stack(
        (
            xyxy[:, 0] + landmarks_yx[:, 1] * width,
            xyxy[:, 1] + landmarks_yx[:, 0] * height,
        ),
        axis=-1,
    )
    return Detections(xyxy, score, np.zeros(len(score), np.int64), landmarks.transpose(1, 0, 2).astype(np.float32))


def boxes(outputs: Outputs, min_score: float) -> Detections:
    """Takes boxes that the graph itself has decoded.

    Args:
        outputs: `boxes` 1×N×4 (left, top, right, bottom in canvas pixels), `scores` 1×N×C,
            and optionally `landmarks` 1×N×K×2.
    """
    scores = outputs["scores"][0]
    class_id = scores.argmax(axis=1)
    score = scores[np.arange(len(scores)), class_id]
    above = np.flatnonzero(score > min_score)
    above = above[best_candidates(score[above])]
    landmarks = outputs.get("landmarks")
    return Detections(
        outputs["boxes"][0][above],
        score[above],
        class_id[above],
        landmarks[0][above] if landmarks is not None else np.empty((len(above), 0, 2), np.float32),
    )


def needed_shapes(decoder: str, outputs: Outputs, canvas_wh: tuple[int, int], classes: int) -> dict[str, Shape]:
    """Shapes of the outputs that a decoder reads, for one canvas of this size and a card with so many classes."""
    if decoder == "heatmap":
        grid = (canvas_wh[1] // HEATMAP_STRIDE, canvas_wh[0] // HEATMAP_STRIDE)
        return {name: (1, planes, *grid) for name, planes in _HEATMAP_PLANES.items()}
    candidates = outputs["boxes"].shape[1:2]
    return {"boxes": (1, *candidates, 4), "scores": (1, *candidates, classes)}


_HEATMAP_PLANES = {"heatmap": 1, "scale": 2, "offset": 2, "landmarks": 10}

DECODERS: Mapping[str, Callable[[Outputs, float], Detections]] = {"heatmap": heatmap, "boxes": boxes}

OUTPUT_NAMES: Mapping[str, frozenset[str]] = {
    "heatmap": frozenset(_HEATMAP_PLANES),
    "boxes": frozenset({"boxes", "scores"}),
}
"""Outputs that a graph must have for each decoder."""
