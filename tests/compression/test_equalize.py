"""Equalization changes ranges and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from lathe_compression.equalize import MAX_FACTOR, equalize


def run(model: onnx.ModelProto, pixels: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"pixels": pixels})


def canvas(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (1, 64, 96, 3), np.uint8)


def test_the_network_computes_the_same(face_repository: Path) -> None:
    model = onnx.load(face_repository / "face/fp32/1/model.onnx")
    before = run(model, canvas(1))
    assert equalize(model, [canvas(0)]) == 17, "one hidden tensor before each depthwise convolution"
    for one, other in zip(before, run(model, canvas(1)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3, rtol=1e-4)


def test_small_channels_are_raised_by_no_more_than_the_limit(face_repository: Path) -> None:
    model = onnx.load(face_repository / "face/fp32/1/model.onnx")
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor).copy() for tensor in model.graph.initializer}
    equalize(model, [canvas(0)])
    changed = 0
    for tensor in model.graph.initializer:
        before, after = weights[tensor.name], onnx.numpy_helper.to_array(tensor)
        if before.ndim != 4 or np.array_equal(before, after):
            continue
        changed += 1
        ratio = np.abs(after[before != 0] / before[before != 0])
        assert ratio.min() >= 1 / MAX_FACTOR - 1e-3
        assert ratio.max() <= MAX_FACTOR + 1e-3
    assert changed > 17
