"""What is INT8: all between multiplications, nothing behind the last one, and no layer kept in float."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import Tensor, nn

from lathe.errors import BadVariant, InvalidInput
from lathe_compression.export import Normalisation, export
from lathe_compression.hygiene import clean
from lathe_compression.int8_nodes import int8_nodes, matching_layers
from lathe_compression.quantize import Quantize, assert_int8_kernels, optimised_operators, quantize
from tests.compression.graphs import graph, pixels, run
from tests.compression.networks import exported

CALIBRATION = [pixels(32, 64, seed=n) for n in range(3)]


def _node(kind: str, source: str, result: str, *more: str) -> onnx.NodeProto:
    return helper.make_node(kind, [source, *more], [result], result)


def _conv(source: str, result: str) -> onnx.NodeProto:
    return _node("Conv", source, result, "w")


CASES: dict[str, tuple[list[onnx.NodeProto], list[str], list[str]]] = {
    "a chain between convolutions, and a tail": (
        [
            _conv("x", "a"),
            _node("Sigmoid", "a", "b"),
            _conv("b", "c"),
            _node("Sigmoid", "c", "d"),
            _node("Exp", "d", "y"),
        ],
        [],
        ["a", "b", "c"],
    ),
    "a Relu goes with the last convolution": (
        [_conv("x", "a"), _node("Relu", "a", "b"), _node("Reshape", "b", "y", "s")],
        [],
        ["a", "b"],
    ),
    "a Relu of a float convolution": (
        [_conv("x", "a"), _conv("a", "b"), _node("Relu", "b", "c"), _conv("c", "y")],
        ["b"],
        ["a", "y"],
    ),
    "a sum of float convolutions": (
        [_conv("x", "a"), _conv("x", "b"), _node("Add", "a", "c", "b"), _conv("c", "y")],
        ["a", "b"],
        ["y"],
    ),
    "a sum of one of each": (
        [_conv("x", "a"), _conv("x", "b"), _node("Add", "a", "c", "b"), _conv("c", "y")],
        ["b"],
        ["a", "c", "y"],
    ),
    "an operator without a kernel, and what is around it": (
        [
            _conv("x", "a"),
            _node("MaxPool", "a", "b"),
            _node("Softplus", "b", "c"),
            _node("Add", "c", "d", "b"),
            _conv("d", "y"),
        ],
        [],
        ["a", "b", "d", "y"],
    ),
    "one path is decoded, the other goes on": (
        [_conv("x", "a"), _node("Mul", "a", "box", "a"), _node("MaxPool", "a", "b"), _conv("b", "y")],
        [],
        ["a", "b", "y"],
    ),
}


@pytest.mark.parametrize(("nodes", "kept", "chosen"), CASES.values(), ids=CASES)
def test_what_is_int8(nodes: list[onnx.NodeProto], kept: list[str], chosen: list[str]) -> None:
    assert int8_nodes(graph(nodes, {}).graph, kept) == chosen


class Mixed(nn.Module):
    """SiLU, LeakyReLU, a concatenation, a pool, an upsampling; and boxes decoded from the last convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.left, self.right = nn.Conv2d(16, 16, 3, 2, 1), nn.Conv2d(16, 16, 1)
        self.leaky = nn.LeakyReLU(0.1)
        self.join, self.head = nn.Conv2d(48, 16, 1), nn.Conv2d(16, 8, 1)
        self.register_buffer("slope", torch.rand(1, 16, 1, 1))

    def forward(self, planes: Tensor) -> Tensor:
        x = nn.functional.silu(self.stem(planes / 255))
        pooled = nn.functional.max_pool2d(x, 2)
        left = self.leaky(self.left(x))
        right = self.right(pooled)
        right = self.slope * right + (1 - self.slope) * torch.relu(right)  # a PReLU as hygiene may write it
        up = nn.functional.interpolate(torch.cat([left, right, pooled], 1), scale_factor=2.0, mode="nearest")
        boxes = self.head(nn.functional.silu(self.join(up)))
        boxes = boxes.flatten(2).transpose(1, 2)
        return torch.cat([torch.sigmoid(boxes[..., :4]), torch.exp(boxes[..., 4:]) * 8 + 3], -1)


@pytest.fixture(scope="module")
def mixed() -> onnx.ModelProto:
    torch.manual_seed(0)
    return clean(export(Mixed().eval(), Normalisation(), ("y",), 32))[0]


def test_no_common_operator_falls_out_of_int8_before_the_last_convolution(mixed: onnx.ModelProto) -> None:
    model, _ = quantize(mixed, Quantize(), CALIBRATION, 32)
    operators = optimised_operators(model)
    assert assert_int8_kernels(model) == 7  # the PReLU is two of them
    for kind, wanted in {
        "QLinearConv": 7,
        "QLinearSigmoid": 2,
        "QLinearLeakyRelu": 1,
        "QLinearConcat": 1,
        "Resize": 1,
    }.items():
        assert operators[kind] == wanted, kind
    assert operators["QLinearMul"] >= 2  # of the two SiLUs
    assert operators["MaxPool"] + operators["NhwcMaxPool"] == 1
    assert operators["LeakyRelu"] == 0
    assert operators["QuantizeLinear"] == 1, "the Relu that shares its input is a change of range"


def test_decoding_stays_in_float(mixed: onnx.ModelProto) -> None:
    model, _ = quantize(mixed, Quantize(), CALIBRATION, 32)
    operators = optimised_operators(model)
    assert operators["Exp"] == 1
    assert operators["Sigmoid"] == 1
    picture = pixels(32, 64, seed=9)
    ours, reference = run(model, picture)[0], run(mixed, picture)[0]
    assert np.sqrt(np.mean((ours - reference) ** 2)) < 0.05 * float(np.ptp(reference))


def test_layers_stay_in_float_by_name_and_pattern() -> None:
    fp32 = clean(exported())[0]
    layers = [node.name for node in fp32.graph.node if node.op_type == "Conv"]
    step = Quantize(float_layers=(layers[1], "*heads.1*"))
    assert len(matching_layers(fp32.graph, step.float_layers)) == 2
    model, done = quantize(fp32, step, CALIBRATION, 32)
    assert any(sentence.startswith("in float: ") and layers[1] in sentence for sentence in done)
    operators = optimised_operators(model)
    assert operators["Conv"] + operators["FusedConv"] == 2
    assert operators["QLinearConv"] == len(layers) - 2 - 2, "and three heads are one"


def test_the_runtime_leaves_float_layers_in_float() -> None:
    """It would quantize their weights by itself, each tensor with one scale."""
    fp32 = clean(exported())[0]
    step = Quantize(float_layers=("/network/down/down.0/Conv",))
    model, _ = quantize(fp32, step, CALIBRATION, 32)
    assert assert_int8_kernels(model, step.float_layers) == 4
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    for node in plain.graph.node:
        if node.op_type == "FusedConv":
            node.op_type, node.domain = "Conv", ""
            node.attribute.remove(next(one for one in node.attribute if one.name == "activation"))
    with pytest.raises(BadVariant, match="meant to run in float"):
        assert_int8_kernels(plain, step.float_layers)


def test_a_stem_in_float_keeps_its_layout() -> None:
    fp32 = clean(exported(Normalisation((104.0,) * 3, (2.0,) * 3)))[0]
    stem = next(node.name for node in fp32.graph.node if node.op_type == "Conv")
    model, done = quantize(fp32, Quantize(float_layers=(stem,)), CALIBRATION, 32)
    assert not any(sentence.startswith("layout: ") and "heads" not in sentence for sentence in done)
    picture = pixels(32, 64, seed=9)
    for ours, reference in zip(run(model, picture), run(fp32, picture), strict=True):
        assert np.sqrt(np.mean((ours - reference) ** 2)) < 0.03 * max(1.0, float(np.ptp(reference)))


def test_a_pattern_that_nothing_matches_is_told() -> None:
    fp32 = clean(exported())[0]
    with pytest.raises(InvalidInput, match=r'no layer is named "/network/stem/stem\.1/Conv"; did you mean'):
        quantize(fp32, Quantize(float_layers=("/network/stem/stem.1/Conv",)), CALIBRATION, 32)
    with pytest.raises(InvalidInput, match="nothing is left to quantize"):
        quantize(fp32, Quantize(float_layers=("*",)), CALIBRATION, 32)
