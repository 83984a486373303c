"""Post-training quantization: INT8 kernels really run, and the outputs stay near."""

from __future__ import annotations

import hashlib
import logging

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from lathe.errors import BadVariant
from lathe_compression.hygiene import clean
from lathe_compression.quantize import Quantize, assert_int8_kernels, optimised_operators, quantize
from tests.compression.graphs import count, graph, pixels, random, run
from tests.compression.networks import exported

CALIBRATION = [pixels(64, 96, seed=n) for n in range(4)]


@pytest.fixture(scope="module")
def fp32() -> onnx.ModelProto:
    return clean(exported())[0]


@pytest.fixture(scope="module")
def int8(fp32: onnx.ModelProto) -> onnx.ModelProto:
    return quantize(fp32, Quantize(), CALIBRATION, 32)[0]


def test_every_convolution_runs_in_int8(int8: onnx.ModelProto) -> None:
    operators = optimised_operators(int8)
    assert assert_int8_kernels(int8) == operators["QLinearConv"] == count(int8, "Conv")
    assert operators["Conv"] == 0


def test_outputs_stay_near(fp32: onnx.ModelProto, int8: onnx.ModelProto) -> None:
    picture = pixels(96, 64, seed=9)
    for ours, reference in zip(run(int8, picture), run(fp32, picture), strict=True):
        error = float(np.sqrt(np.mean((ours - reference) ** 2)))
        assert error < 0.03 * max(1.0, float(np.ptp(reference)))


def test_lineage_tells_what_was_done(fp32: onnx.ModelProto) -> None:
    step = Quantize(reduce_range=True)
    assert "U8S8 per channel, 7-bit weights" in step.describe()
    done = quantize(fp32, step, CALIBRATION, 32)[1]
    for told in ("layout: the stem takes 4 pixels at a time", "layout: pixels feed the first convolution as they are"):
        assert told in done
    assert step.describe() in done


def test_stem_is_not_regrouped_where_widths_are_odd(fp32: onnx.ModelProto) -> None:
    """A width of 38 pixels is no whole number of groups of four."""
    model, done = quantize(fp32, Quantize(), CALIBRATION, 2)
    assert not any("stem" in step for step in done)
    assert run(model, pixels(32, 40))[0].shape == (1, 1, 8, 10)


def test_weights_are_int8_per_channel_and_activations_uint8(int8: onnx.ModelProto) -> None:
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in int8.graph.initializer}
    dequantizers = {node.output[0]: node for node in int8.graph.node if node.op_type == "DequantizeLinear"}
    for conv in (node for node in int8.graph.node if node.op_type == "Conv"):
        activation, weight = (dequantizers[name] for name in conv.input[:2])
        assert constants[activation.input[2]].dtype == np.uint8
        assert constants[weight.input[0]].dtype == np.int8
        assert len(constants[weight.input[1]]) == len(constants[weight.input[0]])


def test_layers_have_one_scale_where_hardware_knows_no_more(fp32: onnx.ModelProto) -> None:
    model, done = quantize(fp32, Quantize(per_channel=False), CALIBRATION, 32)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    dequantizers = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    assert {constants[dequantizers[conv.input[1]].input[1]].size for conv in convs} == {1}
    assert any("U8S8 per layer" in step for step in done)
    assert assert_int8_kernels(model) == len(convs)


def test_detections_keep_their_peaks_where_heads_are_not_merged(fp32: onnx.ModelProto) -> None:
    """A percentile cuts outliers off everything else."""
    peaks = []
    for step in (Quantize(per_channel=False), Quantize(per_channel=False, range="percentile", percentile=95.0)):
        model, _ = quantize(fp32, step, CALIBRATION, 32)
        peaks.append(max(float(run(model, canvas)[0].max()) for canvas in CALIBRATION))
    assert peaks[1] == pytest.approx(peaks[0], abs=0.01)


def test_reduced_range_keeps_seven_bits(fp32: onnx.ModelProto) -> None:
    model, _ = quantize(fp32, Quantize(reduce_range=True), CALIBRATION, 32)
    weights = [numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8]
    assert max(int(np.abs(weight.astype(int)).max()) for weight in weights) <= 64


def test_two_runs_give_the_same_file(fp32: onnx.ModelProto, int8: onnx.ModelProto) -> None:
    again, _ = quantize(fp32, Quantize(), CALIBRATION, 32)
    digests = {hashlib.sha256(model.SerializeToString()).hexdigest() for model in (int8, again)}
    assert len(digests) == 1


def test_the_float_graph_is_left_as_it_was(fp32: onnx.ModelProto) -> None:
    before = fp32.SerializeToString(deterministic=True)
    quantize(fp32, Quantize(), CALIBRATION, 32)
    assert fp32.SerializeToString(deterministic=True) == before


def test_the_library_warns_of_nothing(fp32: onnx.ModelProto, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        quantize(fp32, Quantize(), CALIBRATION, 32)
    assert caplog.messages == []


def test_float_graph_is_told_from_int8(fp32: onnx.ModelProto) -> None:
    with pytest.raises(BadVariant, match=f"only 0 of {count(fp32, 'Conv')} convolutions run as INT8"):
        assert_int8_kernels(fp32)


def test_quantized_nodes_that_do_not_fuse_are_told(int8: onnx.ModelProto) -> None:
    """QDQ nodes around every convolution are in the file, but one output stays in float."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["dw"]),
        helper.make_node("Conv", ["dq", "dw"], ["conv"]),
        helper.make_node("Sigmoid", ["conv"], ["y"]),
    ]
    constants = {"scale": np.float32(0.1).reshape(()), "w_scale": np.float32(0.1).reshape(())}
    model = graph(nodes, constants)
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name)
        for name, value in {
            "zero": np.array(128, np.uint8),
            "w": random(4, 4, 1, 1).astype(np.int8),
            "w_zero": np.array(0, np.int8),
        }.items()
    )
    with pytest.raises(BadVariant, match="only 0 of 1 convolutions"):
        assert_int8_kernels(model)


def bent_between() -> onnx.ModelProto:
    """Convolution `first`, PReLU, convolution, over pixels."""
    constants = {"k": random(8, 3, 3, 3) / 8, "slope": np.full((8, 1, 1), 0.25, np.float32), "k2": random(4, 8, 1, 1)}
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Conv", ["float", "k"], ["conv"], "first", strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("PRelu", ["conv", "slope"], ["bent"]),
        helper.make_node("Conv", ["bent", "k2"], ["y"]),
    ]
    model = graph(nodes, constants)
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("pixels", onnx.TensorProto.UINT8, ("b", "h", "w", 3)))
    return model


def test_prelus_run_in_int8_kernels() -> None:
    """Left as they are they would cut the graph into float and INT8 parts."""
    model = bent_between()
    quantized, done = quantize(clean(model)[0], Quantize(equalize=False), CALIBRATION, 32)
    assert "layout: 1 PReLUs as depthwise convolutions" in done
    assert assert_int8_kernels(quantized) == count(quantized, "Conv") == 4
    ours, reference = run(quantized, pixels(64, 96))[0], run(model, pixels(64, 96))[0]
    assert float(np.abs(ours - reference).mean()) < 0.02 * float(np.ptp(reference))


def test_a_prelu_behind_a_layer_in_float_is_in_float_too() -> None:
    step = Quantize(equalize=False, float_layers=("first",))
    quantized, done = quantize(clean(bent_between())[0], step, CALIBRATION, 32)
    assert not any("PReLU" in sentence for sentence in done)
    operators = optimised_operators(quantized)
    assert (operators["QLinearConv"], operators["QLinearMul"]) == (1, 0)
