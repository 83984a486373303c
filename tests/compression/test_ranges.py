"""Ranges of activations: all that was seen, or less of it; and those that training says."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from lathe.errors import InvalidInput
from lathe_compression.hygiene import clean
from lathe_compression.quantize import Quantize, assert_int8_kernels, quantize
from lathe_compression.ranges import activation_ranges, entropy_threshold, percentile_range, spread, uint8_ends
from tests.compression.graphs import count, graph, pixels, run
from tests.compression.networks import exported

CALIBRATION = [pixels(64, 96, seed=n) for n in range(3)]


@pytest.fixture(scope="module")
def fp32() -> onnx.ModelProto:
    return clean(exported())[0]


def _activation(model: onnx.ModelProto) -> str:
    return next(node.output[0] for node in model.graph.node if node.op_type == "Relu")


def _seen(model: onnx.ModelProto, name: str) -> np.ndarray:
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return np.concatenate([run(shown, picture)[-1].ravel() for picture in CALIBRATION])


def test_minmax_keeps_every_value(fp32: onnx.ModelProto) -> None:
    name = _activation(fp32)
    seen = _seen(fp32, name)
    (low, high) = activation_ranges(fp32, [name], CALIBRATION, "minmax", 99.0)[name]
    np.testing.assert_allclose((low, high), (seen.min(), seen.max()), rtol=1e-6)


def test_percentile_keeps_so_many_values(fp32: onnx.ModelProto) -> None:
    name = next(node.output[0] for node in fp32.graph.node if node.op_type == "Add")
    seen = _seen(fp32, name)
    (low, high) = activation_ranges(fp32, [name], CALIBRATION, "percentile", 99.0)[name]
    outside = [np.mean(seen < low), np.mean(seen > high)]
    np.testing.assert_allclose(outside, 0.005, atol=0.002)


@pytest.mark.parametrize(
    ("counts", "percentile", "expected"),
    [
        ([1, 49, 49, 1], 100.0, (0.0, 4.0)),
        ([1, 49, 49, 1], 98.0, (1.0, 3.0)),
        ([100, 0, 0, 0], 99.0, (0.0, 1.0)),
        ([0, 0, 100, 0], 99.0, (2.0, 3.0)),
    ],
)
def test_percentile_range(counts: list[int], percentile: float, expected: tuple[float, float]) -> None:
    assert percentile_range(np.array(counts), (0.0, 4.0), percentile) == expected


def test_entropy_cuts_a_far_outlier_and_nothing_of_an_even_distribution() -> None:
    drawn = np.abs(np.random.default_rng(0).normal(size=100_000))
    counts, _ = np.histogram(np.append(drawn, 60.0), bins=2048, range=(0, 60))
    assert 3 < entropy_threshold(counts, 60.0) < 15
    assert entropy_threshold(np.full(2048, 100), 60.0) == 60.0


@pytest.mark.parametrize("how", ["percentile", "entropy"])
def test_every_way_runs_in_int8_and_says_so(fp32: onnx.ModelProto, how: str) -> None:
    step = Quantize(range=how, percentile=99.9)
    model, done = quantize(fp32, step, CALIBRATION, 32)
    assert assert_int8_kernels(model) == count(model, "Conv")
    assert any(("99.9 % ranges" if how == "percentile" else "entropy ranges") in sentence for sentence in done)
    minmax = quantize(fp32, Quantize(), CALIBRATION, 32)[0]
    assert sum(_scales(model)) < sum(_scales(minmax))


def _scales(model: onnx.ModelProto) -> list[float]:
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return [float(constants[n.input[1]]) for n in model.graph.node if n.op_type == "QuantizeLinear"]


def _points(model: onnx.ModelProto) -> set[tuple[float, int]]:
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return {
        (float(constants[n.input[1]]), int(constants[n.input[2]]))
        for n in model.graph.node
        if n.op_type == "QuantizeLinear"
    }


def test_learnt_ranges_hold_exactly(fp32: onnx.ModelProto) -> None:
    """Of the stem, whose tensors the layout renames, and of a tensor in the middle."""
    stem = _activation(fp32)
    middle = next(node.output[0] for node in fp32.graph.node if node.op_type == "Add")
    model, done = quantize(
        fp32, Quantize(method="qat"), CALIBRATION, 32, ranges={stem: (0.0, 510.0), middle: (-100.0, 155.0)}
    )
    assert "layout: the stem takes 4 pixels at a time" in done
    assert not any("equalize" in sentence for sentence in done)
    points = _points(model)
    assert (2.0, 0) in points
    assert (1.0, 100) in points
    assert len(points) > 2, "calibration's ranges for the others"


def test_a_learnt_range_of_a_head_holds_through_their_merging(fp32: onnx.ModelProto) -> None:
    """Every value of that output is one of the 256 that uint8 gives the range."""
    model, done = quantize(fp32, Quantize(), CALIBRATION, 32, ranges={"scale": (-300.0, 465.0)})
    assert any("4 heads in one convolution" in sentence for sentence in done)
    steps = run(model, pixels(64, 96, seed=5))[1] / 3.0
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
    assert steps.min() >= -100 - 1e-3
    assert steps.max() <= 155 + 1e-3


@pytest.mark.parametrize("range_", [(1.0, -1.0), (0.0, float("inf")), (float("nan"), 1.0)])
def test_impossible_ranges_are_told(fp32: onnx.ModelProto, range_: tuple[float, float]) -> None:
    with pytest.raises(InvalidInput, match="the range of"):
        quantize(fp32, Quantize(), CALIBRATION, 32, ranges={"scale": range_})


def test_a_range_of_an_unknown_tensor_is_told(fp32: onnx.ModelProto) -> None:
    with pytest.raises(InvalidInput, match='"nothing", which no layer makes'):
        quantize(fp32, Quantize(), CALIBRATION, 32, ranges={"nothing": (0.0, 1.0)})


def test_quantization_aware_training_must_say_its_ranges(fp32: onnx.ModelProto) -> None:
    with pytest.raises(InvalidInput, match="the ranges that training learnt"):
        quantize(fp32, Quantize(method="qat"), CALIBRATION, 32)


@pytest.mark.parametrize(
    ("range_", "ends"), [((-1.0, 1.0), (-128 * 2 / 255, 127 * 2 / 255)), ((2.0, 5.1), (0, 5.1)), ((0.0, 0.0), (0, 0))]
)
def test_uint8_ends(range_: tuple[float, float], ends: tuple[float, float]) -> None:
    np.testing.assert_allclose(uint8_ends(*range_), ends)


def test_a_range_goes_back_through_what_only_moves() -> None:
    model = graph(
        [
            helper.make_node("Relu", ["x"], ["a"]),
            helper.make_node("Transpose", ["a"], ["b"], perm=[0, 2, 3, 1]),
            helper.make_node("Transpose", ["b"], ["y"], perm=[0, 3, 1, 2]),
        ],
        {},
    )
    assert spread(model.graph, {"y": (0.0, 1.0)}) == dict.fromkeys("yba", (0.0, 1.0))
