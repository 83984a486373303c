"""Merging heads changes no number and gives every channel a range of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from lathe_compression.activations import channel_ranges
from lathe_compression.merge_heads import merge_heads
from tests.compression.test_equalize import canvas, run


@pytest.fixture
def fp32(face_repository: Path) -> onnx.ModelProto:
    return onnx.load(face_repository / "face/fp32/1/model.onnx")


def test_the_network_computes_the_same(fp32: onnx.ModelProto) -> None:
    before = run(fp32, canvas(1))
    assert merge_heads(fp32, [canvas(0)]) == 4
    onnx.checker.check_model(fp32)
    for one, other in zip(before, run(fp32, canvas(1)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_every_channel_spans_zero_to_one(fp32: onnx.ModelProto) -> None:
    merge_heads(fp32, [canvas(0), canvas(1)])
    low, high = channel_ranges(fp32, ["heads_even"], [canvas(0), canvas(1)])["heads_even"]
    assert len(low) == 16, "15 channels and one of padding"
    np.testing.assert_allclose(low[:15], 0, atol=1e-4)
    np.testing.assert_allclose(high[:15], 1, atol=1e-4)


def test_no_weight_is_left_behind(fp32: onnx.ModelProto) -> None:
    merge_heads(fp32, [canvas(0)])
    used = {name for node in fp32.graph.node for name in node.input}
    assert all(tensor.name in used for tensor in fp32.graph.initializer)


def test_a_single_head_is_left_alone(fp32: onnx.ModelProto) -> None:
    """Only outputs that come straight from a 1×1 convolution count, and one alone is nothing to merge."""
    keep = fp32.graph.output[1].name
    del fp32.graph.output[:]
    fp32.graph.output.add().CopyFrom(onnx.helper.make_tensor_value_info(keep, onnx.TensorProto.FLOAT, None))
    nodes = [node for node in fp32.graph.node if node.op_type != "Sigmoid"]
    del fp32.graph.node[:]
    fp32.graph.node.extend(nodes)
    before = fp32.SerializeToString()
    assert merge_heads(fp32, [canvas(0)]) == 0
    assert fp32.SerializeToString() == before
    assert numpy_helper.to_array(fp32.graph.initializer[0]).size
