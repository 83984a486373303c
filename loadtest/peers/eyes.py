"""What every peer judges with: Lathe's own decode → network → detections, so that the servers alone differ.

It needs no protobuf, whose versions the peers fix each in their own way.
"""

from __future__ import annotations

import json
from pathlib import Path

from lathe_server.engines.onnx_runtime import OnnxRuntimeEngine
from lathe_server.vision import Detector, EncodedPicture
from lathe_server.vision.detections import Thresholds


def detector(folder: Path) -> Detector:
    """Of a published version: `model.onnx` and `card.json`."""
    card = json.loads((folder / "card.json").read_text("utf-8"))
    size, limits = card["serving_size"], card["thresholds"]
    return Detector(
        OnnxRuntimeEngine((folder / "model.onnx").read_bytes()),
        card["decoder"].removeprefix("DECODER_").lower(),
        Thresholds(limits["min_score"], limits["nms"], limits["max_detections"]),
        (size["width"], size["height"]),
        card["size_multiple"],
    )


def faces(detector: Detector, jpeg: bytes) -> dict[str, list[object]]:
    """Detections as plain lists, for JSON."""
    found = detector.detect(EncodedPicture(jpeg)).detections
    return {"xyxy": found.xyxy.tolist(), "score": found.score.tolist(), "landmarks": found.landmarks.tolist()}
