"""The smaller file gives the same answers, bit by bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from lathe_compression.compact import MAX_EXACT_BIAS, compact
from lathe_compression.quantize import Quantize, assert_int8_kernels, quantize
from tests.compression.graphs import graph, run
from tests.compression.test_equalize import canvas


@pytest.fixture(scope="module")
def fp32(face_repository: Path) -> onnx.ModelProto:
    return onnx.load(face_repository / "face/fp32/1/model.onnx")


@pytest.fixture(scope="module")
def verbose(fp32: onnx.ModelProto) -> onnx.ModelProto:
    """CenterFace in INT8 as the library writes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lathe_compression.quantize.compact", lambda model: 0)
        return quantize(fp32, Quantize(), [canvas(0)], 32)[0]


@pytest.fixture(scope="module")
def compacted(verbose: onnx.ModelProto) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(verbose)
    assert compact(model) == verbose.ByteSize() - model.ByteSize() > 0
    return model


def test_outputs_stay_the_same_bit_by_bit(verbose: onnx.ModelProto, compacted: onnx.ModelProto) -> None:
    onnx.checker.check_model(compacted)
    for seed in range(4):
        for one, other in zip(run(verbose, canvas(seed)), run(compacted, canvas(seed)), strict=True):
            np.testing.assert_array_equal(one, other)


def test_as_many_int8_kernels_run(verbose: onnx.ModelProto, compacted: onnx.ModelProto) -> None:
    assert assert_int8_kernels(compacted) == assert_int8_kernels(verbose) > 50


def test_centerface_is_3_4_times_smaller_than_fp32(fp32: onnx.ModelProto, compacted: onnx.ModelProto) -> None:
    assert fp32.ByteSize() / compacted.ByteSize() > 3.6


def test_inputs_outputs_and_layers_keep_their_names(verbose: onnx.ModelProto, compacted: onnx.ModelProto) -> None:
    for place in ("input", "output"):
        assert getattr(compacted.graph, place) == getattr(verbose.graph, place)
    layers = [[node.name for node in one.graph.node if node.op_type == "Conv"] for one in (verbose, compacted)]
    assert layers[0] == layers[1]
    assert all(layers[0])


def _biased(bias: int) -> onnx.ModelProto:
    model = graph(
        [
            helper.make_node("DequantizeLinear", ["steps", "step"], ["bias"], "bias_dequantizer", axis=0),
            helper.make_node("Conv", ["x", "kernel", "bias"], ["y"], "conv"),
        ],
        {"kernel": np.ones((2, 1, 1, 1), np.float32), "step": np.full(2, 0.1, np.float32)},
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([bias, 3], np.int32), "steps"))
    return model


@pytest.mark.parametrize(("bias", "left"), [(7, 0), (-MAX_EXACT_BIAS, 1)])
def test_only_biases_that_float32_holds_exactly_are_written_as_floats(bias: int, left: int) -> None:
    model = _biased(bias)
    before = run(model, np.ones((1, 1, 2, 2), np.float32))[0]
    compact(model)
    assert sum(node.op_type == "DequantizeLinear" for node in model.graph.node) == left
    np.testing.assert_array_equal(run(model, np.ones((1, 1, 2, 2), np.float32))[0], before)


def test_an_output_is_never_renamed() -> None:
    """Even one with the name that a value would get."""
    model = graph([helper.make_node("Relu", ["x"], ["long_name"]), helper.make_node("Relu", ["long_name"], ["t0"])], {})
    model.graph.output[0].name = "t0"
    compact(model)
    onnx.checker.check_model(model)
    assert run(model, np.full((1, 1, 1, 1), 2, np.float32))[0] == 2
