"""Equalization changes ranges and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from lathe_compression.equalize import MAX_FACTOR, equalize
from tests.compression.graphs import graph, random


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


@pytest.mark.parametrize("shared", ["bias", "kernel"])
def test_weights_that_two_tensors_share_are_left_alone(shared: str) -> None:
    """The same layer on two levels: one set of factors cannot suit both."""
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["x"], to=onnx.TensorProto.FLOAT),
    ]
    constants = {"bias": random(3)}
    for level in "ab":
        kernel = "kernel" if shared == "kernel" else f"kernel_{level}"
        constants |= {f"first_{level}": random(3, 3, 1, 1, seed=ord(level)), kernel: random(3, 1, 3, 3)}
        constants |= {f"bias_{level}": random(3, seed=ord(level))} if shared == "kernel" else {}
        bias = "bias" if shared == "bias" else f"bias_{level}"
        nodes += [
            helper.make_node("Conv", ["x", f"first_{level}", bias], [f"conv_{level}"]),
            helper.make_node("Relu", [f"conv_{level}"], [f"hidden_{level}"]),
            helper.make_node("Conv", [f"hidden_{level}", kernel], [f"out_{level}"], group=3),
        ]
    model = graph(nodes, constants, inputs=(), outputs=("out_a", "out_b"))
    sides = ("batch", "height", "width", 3)
    model.graph.input.append(helper.make_tensor_value_info("pixels", onnx.TensorProto.UINT8, sides))
    before = run(model, canvas(1))
    assert equalize(model, [canvas(0)]) == 0
    for one, other in zip(before, run(model, canvas(1)), strict=True):
        np.testing.assert_array_equal(one, other)
