"""What every peer judges with: Lathe's own decode → network → detections, so that the servers alone differ.

It needs no protobuf, whose versions the peers fix each in their own way.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lathe_server.engines.onnx_runtime import OnnxRuntimeEngine
from lathe_server.vision import Detector, EncodedPicture
from lathe_server.vision.detections import Thresholds


def answerer(folder: Path) -> Callable[[bytes], bytes]:
    """What becomes of a request: of a JPEG its faces as JSON, of a tensor, where the network takes one, another."""
    card = json.loads((folder / "card.json").read_text("utf-8"))
    if card["task"] != "TASK_TENSORS":
        eyes = detector(folder)
        return lambda jpeg: json.dumps(faces(eyes, jpeg)).encode()
    engine = OnnxRuntimeEngine((folder / "model.onnx").read_bytes())
    (asked,), (told,) = engine.inputs, engine.outputs

    def answer(content: bytes) -> bytes:
        value = np.frombuffer(content, asked.dtype).reshape(1, -1)
        return engine.infer({asked.name: value})[told.name].tobytes()

    return answer


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
