"""The importer: every operator that it knows equals ONNX Runtime, and what it does not know it names."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from lathe.errors import BadVariant, NotFound
from lathe_compression.onnx_import import import_onnx
from lathe_compression.onnx_operators import OPERATORS, remedy
from tests.compression.graphs import Array, graph, random, run

NOTHING: Any = object()
"""An input that is left out."""


@dataclass(frozen=True)
class Case:
    """A node over the input `x`: 2 × 4 × 9 × 11 numbers."""

    op: str
    constants: dict[str, Array] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ("x",)
    outputs: tuple[str, ...] = ("y",)
    flat: bool = False
    opset: int = 17

    def model(self) -> onnx.ModelProto:
        constants = {name: value for name, value in self.constants.items() if value is not NOTHING}
        inputs = [name if value is not NOTHING else "" for name, value in self.constants.items()]
        nodes = [helper.make_node(self.op, [*self.inputs, *inputs], list(self.outputs), **self.attributes)]
        if self.flat:
            nodes[0].input[0] = "flat"
            nodes.insert(0, helper.make_node("Flatten", ["x"], ["flat"]))
        return graph(nodes, constants, inputs=sorted(set(self.inputs)), outputs=self.outputs, opset=self.opset)


def whole(*numbers: int) -> Any:
    return np.array(numbers, np.int64)


def real(*numbers: float) -> Array:
    return np.array(numbers, np.float32)


POSITIVE = np.abs(random(4)) + 0.5
CASES = {
    "add": Case("Add", inputs=("x", "z")),
    "add to itself": Case("Add", inputs=("x", "x")),
    "add a constant": Case("Add", {"c": random(4, 1, 1)}),
    "batch norm": Case(
        "BatchNormalization", {"s": random(4), "b": random(4), "m": random(4), "v": POSITIVE}, {"epsilon": 1e-3}
    ),
    "concat": Case("Concat", attributes={"axis": 1}, inputs=("x", "z", "x")),
    "concat rows": Case("Concat", attributes={"axis": 2}, inputs=("x", "z")),
    "conv": Case("Conv", {"w": random(6, 4, 3, 3), "b": random(6)}, {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "conv without bias": Case("Conv", {"w": random(6, 4, 1, 1)}),
    "conv in groups": Case("Conv", {"w": random(8, 1, 3, 3)}, {"group": 4, "pads": [1, 0, 1, 0]}),
    "conv dilated": Case("Conv", {"w": random(2, 4, 3, 3)}, {"dilations": [2, 3], "pads": [2, 3, 2, 3]}),
    "conv with rows unlike columns": Case("Conv", {"w": random(2, 4, 1, 3)}, {"strides": [1, 2]}),
    "transposed conv": Case("ConvTranspose", {"w": random(4, 5, 2, 2), "b": random(5)}, {"strides": [2, 2]}),
    "transposed conv in groups": Case(
        "ConvTranspose",
        {"w": random(4, 3, 3, 3)},
        {"group": 2, "strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
    ),
    "global average": Case("GlobalAveragePool"),
    "identity": Case("Identity"),
    "leaky relu": Case("LeakyRelu", attributes={"alpha": 0.2}),
    "max pool": Case("MaxPool", attributes={"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "max pool ceiled": Case("MaxPool", attributes={"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    "max pool dilated": Case("MaxPool", attributes={"kernel_shape": [2, 2], "dilations": [2, 2]}),
    "multiply": Case("Mul", inputs=("x", "z")),
    "multiply by a constant": Case("Mul", {"c": np.float32(0.5).reshape(1)}),
    "prelu": Case("PRelu", {"slope": random(4, 1, 1)}),
    "prelu of one slope": Case("PRelu", {"slope": random(1)}),
    "relu": Case("Relu"),
    "sigmoid": Case("Sigmoid"),
    "average pool": Case("AveragePool", attributes={"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "average pool with its padding": Case(
        "AveragePool", attributes={"kernel_shape": [2, 3], "pads": [0, 1, 0, 1], "count_include_pad": 1}
    ),
    "average pool ceiled": Case("AveragePool", attributes={"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    "clip": Case("Clip", {"low": np.float32(-0.5), "high": np.float32(0.7)}),
    "clip to 6": Case("Clip", {"low": np.float32(0), "high": np.float32(6)}),
    "clip from below": Case("Clip", {"low": np.float32(0.1)}),
    "clip from above": Case("Clip", {"low": NOTHING, "high": np.float32(0.1)}),
    "clip of nothing": Case("Clip"),
    "clip of operator set 6": Case("Clip", attributes={"min": -0.1, "max": 0.2}, opset=10),
    "divide": Case("Div", {"c": POSITIVE.reshape(4, 1, 1)}),
    "exponential": Case("Exp"),
    "flatten": Case("Flatten"),
    "gemm": Case("Gemm", {"w": random(396, 5), "b": random(5)}, {"alpha": 0.5, "beta": 2.0}, flat=True),
    "gemm transposed": Case("Gemm", {"w": random(5, 396), "b": random(1)}, {"transB": 1}, flat=True),
    "gemm without bias": Case("Gemm", {"w": random(396, 5)}, flat=True),
    "hard sigmoid": Case("HardSigmoid"),
    "hard sigmoid of torch": Case("HardSigmoid", attributes={"alpha": 1 / 6, "beta": 0.5}),
    "hard swish": Case("HardSwish"),
    "matrix product": Case("MatMul", {"w": random(11, 5)}),
    "mean": Case("ReduceMean", attributes={"axes": [2, 3]}),
    "mean without its axes": Case("ReduceMean", attributes={"axes": [-1], "keepdims": 0}),
    "mean of operator set 18": Case("ReduceMean", {"axes": whole(2, 3)}, opset=18),
    "pad": Case("Pad", {"pads": whole(0, 1, 2, 0, 0, 3, 0, 1), "value": np.float32(1.5)}),
    "pad without a value": Case("Pad", {"pads": whole(0, 0, 1, 1, 0, 0, 1, 1)}),
    "pad with a cut": Case("Pad", {"pads": whole(0, 0, -1, 0, 0, 0, 0, 2)}),
    "pad by mirror": Case("Pad", {"pads": whole(0, 0, 1, 2, 0, 0, 3, 4)}, {"mode": "reflect"}),
    "pad by edge": Case("Pad", {"pads": whole(0, 0, 1, 2, 0, 0, 3, 4)}, {"mode": "edge"}),
    "pad of operator set 2": Case("Pad", attributes={"pads": [0, 0, 1, 1, 0, 0, 1, 1], "value": 2.0}, opset=10),
    "reshape": Case("Reshape", {"shape": whole(2, 36, -1)}),
    "reshape that keeps sides": Case("Reshape", {"shape": whole(0, 0, -1)}),
    "resize": Case("Resize", {"roi": NOTHING, "scales": real(1, 1, 2, 3)}),
    "resize as torch writes it": Case(
        "Resize",
        {"roi": NOTHING, "scales": real(1, 1, 3, 3)},
        {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor", "mode": "nearest"},
    ),
    "resize twice, without offsets": Case(
        "Resize", {"roi": NOTHING, "scales": real(1, 1, 2, 2)}, {"coordinate_transformation_mode": "asymmetric"}
    ),
    "resize of operator set 10": Case("Resize", {"scales": real(1, 1, 2, 2)}, opset=10),
    "slice": Case("Slice", {"s": whole(1, 2), "e": whole(3, 2**40), "a": whole(1, 3)}),
    "slice of the last rows": Case("Slice", {"s": whole(-4), "e": whole(-1), "a": whole(2)}),
    "slice in steps": Case("Slice", {"s": whole(0), "e": whole(9), "a": whole(2), "t": whole(2)}),
    "slice without axes": Case("Slice", {"s": whole(0, 1), "e": whole(1, 3)}),
    "split": Case("Split", {"sizes": whole(1, 3)}, {"axis": 1}, outputs=("y", "z")),
    "split evenly": Case("Split", attributes={"axis": 1}, outputs=("y", "z")),
    "split of operator set 11": Case("Split", attributes={"axis": 2, "split": [4, 5]}, outputs=("y", "z"), opset=11),
    "subtract": Case("Sub", inputs=("x", "z")),
    "subtract a constant": Case("Sub", {"c": random(4, 1, 1)}),
    "transpose": Case("Transpose", attributes={"perm": [0, 2, 3, 1]}),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_operator_equals_the_runtime(case: Case, tmp_path: Path) -> None:
    model = case.model()
    onnx.save(model, tmp_path / "model.onnx")
    inputs = [random(2, 4, 9, 11, seed=n) for n in range(len(model.graph.input))]
    with torch.no_grad():
        ours = import_onnx(tmp_path / "model.onnx")(*map(torch.from_numpy, inputs))
    for mine, theirs in zip(ours if len(case.outputs) > 1 else [ours], run(model, *inputs), strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs, rtol=1e-5, atol=1e-5)


def test_every_operator_has_a_case() -> None:
    assert {case.op for case in CASES.values()} == set(OPERATORS)


def test_outputs_keep_their_order(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["b"]), helper.make_node("Sigmoid", ["b"], ["a"])]
    model = graph(nodes, {}, outputs=("a", "b"))
    onnx.save(model, tmp_path / "model.onnx")
    x = random(1, 2, 3, 4)
    for ours, theirs in zip(import_onnx(tmp_path / "model.onnx")(torch.from_numpy(x)), run(model, x), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-6)


def _node(op: str, *inputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), ["y"], **attributes)


WEIGHTS: dict[str, Any] = {
    **{"w": random(4, 4, 3, 3), "w1": random(4, 4, 3), "m": random(4, 4)},
    **{"sides": whole(0, 0, 1, 1, 0, 0, 1, 1), "channel_sides": whole(0, 1, 1, 1, 0, 0, 0, 0)},
    **{"sizes": whole(1, 4, 8, 8), "scales": real(1, 1, 2, 2), "half": real(1, 1, 0.5, 0.5)},
    **{"first": whole(0), "last": whole(3), "axis": whole(2), "back": whole(-1)},
}
UNSUPPORTED = {
    "names Softmax, which it does not know": (_node("Softmax", "x"), "uses Softmax"),
    "conv with uneven pads": (_node("Conv", "x", "w", pads=[0, 0, 1, 1]), "uneven pads"),
    "conv with automatic pads": (_node("Conv", "x", "w", auto_pad="SAME_UPPER"), "auto_pad"),
    "conv of one dimension": (_node("Conv", "x", "w1"), "height and width"),
    "conv with computed weights": (_node("Conv", "x", "x"), "computed weights"),
    "transposed conv with an output shape": (_node("ConvTranspose", "x", "w", output_shape=[9, 9]), "output_shape"),
    "pool of one dimension": (_node("MaxPool", "x", kernel_shape=[2], pads=[0, 1]), "height and width"),
    "average pool dilated": (_node("AveragePool", "x", kernel_shape=[2, 2], dilations=[2, 2]), "dilations"),
    "bounds from other nodes": (_node("Clip", "x", "x"), "Clip takes min from other nodes"),
    "flatten from another axis": (_node("Flatten", "x", axis=2), "write it as Reshape"),
    "gemm with a transposed input": (_node("Gemm", "x", "m", transA=1), "put a Transpose before it"),
    "matrix product of two values": (_node("MatMul", "x", "x"), "computed weights"),
    "matrix product from the left": (_node("MatMul", "m", "x"), "on its right alone"),
    "mean of all": (_node("ReduceMean", "x"), "name the axes"),
    "pad by wrapping": (_node("Pad", "x", "sides", mode="wrap"), "by wrapping"),
    "pad of channels by mirror": (_node("Pad", "x", "channel_sides", mode="reflect"), "channels by reflect"),
    "resize to a size": (_node("Resize", "x", "", "", "sizes"), "scale_factor=2.0"),
    "resize by linear interpolation": (_node("Resize", "x", "", "scales", mode="linear"), "other than to the nearest"),
    "resize by a half": (_node("Resize", "x", "", "half"), "whole factors"),
    "resize that rounds elsewhere": (_node("Resize", "x", "", "scales", nearest_mode="ceil"), "whole factors"),
    "shape from other nodes": (_node("Reshape", "x", "n"), "Reshape takes shape from other nodes"),
    "slice backwards": (_node("Slice", "x", "last", "first", "axis", "back"), "backwards"),
    "transpose without an order": (_node("Transpose", "x"), "name the order of the axes"),
}
REMEDIES = {
    "NonMaxSuppression": "let the file end before it",
    "QuantizeLinear": "give the model before quantization",
    "Cast": "start with float planes",
    "CumSum": "computes with sizes",
    "If": "export by tracing",
    "Upsample": "operator set 11 or later",
    "Softmax": "give the model as `package.module:factory`",
}


@pytest.mark.parametrize(("kind", "told"), REMEDIES.items())
def test_unknown_operator_comes_with_what_to_do(kind: str, told: str) -> None:
    assert told in remedy(kind)
    assert kind not in OPERATORS


def test_each_unknown_operator_is_named_with_its_own_remedy(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Softmax", ["x"], ["a"]),
        helper.make_node("CumSum", ["a", "axis"], ["b"]),
        helper.make_node("Gelu", ["b"], ["y"], domain="com.microsoft"),
    ]
    model = graph(nodes, {"axis": whole(1)})
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(BadVariant) as raised:
        import_onnx(tmp_path / "model.onnx")
    softmax, cumsum, gelu = str(raised.value).split("; and ")
    assert softmax.startswith("model.onnx uses Softmax, which the importer does not know: give the model as")
    assert cumsum.startswith("uses CumSum, which the importer does not know: it computes with sizes")
    assert gelu.startswith("uses com.microsoft.Gelu, which the importer does not know: export with operators of")


def test_weights_that_are_nodes_are_read(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(random(6, 4, 1, 1))
    nodes = [
        helper.make_node("Constant", [], ["w"], value=weight),
        helper.make_node("Identity", ["w"], ["v"]),
        helper.make_node("Conv", ["x", "v"], ["y"]),
    ]
    model = graph(nodes, {})
    onnx.save(model, tmp_path / "model.onnx")
    network, x = import_onnx(tmp_path / "model.onnx"), random(1, 4, 3, 5)
    assert [type(layer) for layer in network.children()] == [torch.nn.Conv2d]
    np.testing.assert_allclose(network(torch.from_numpy(x)).detach().numpy(), run(model, x)[0], atol=1e-5)


@pytest.mark.parametrize(("node", "told"), UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_unsupported_form_is_refused(node: onnx.NodeProto, told: str, tmp_path: Path) -> None:
    model = graph([node], {name: value for name, value in WEIGHTS.items() if name in node.input}, opset=19)
    if "n" in node.input:
        model.graph.input.append(helper.make_tensor_value_info("n", onnx.TensorProto.INT64, [2]))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(BadVariant, match=told):
        import_onnx(tmp_path / "model.onnx")


def test_second_output_of_a_node_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("MaxPool", ["x"], ["y", "indices"], kernel_shape=[2, 2])
    onnx.save(graph([node], {}), tmp_path / "model.onnx")
    with pytest.raises(BadVariant, match="MaxPool with 2 outputs"):
        import_onnx(tmp_path / "model.onnx")


@pytest.mark.parametrize("content", [b"", b"not a network", bytes(1000)], ids=["empty", "text", "zeros"])
def test_not_onnx_is_refused_without_its_path(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(BadVariant, match=r"^model\.onnx is not a valid ONNX file$"):
        import_onnx(tmp_path / "model.onnx")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no ONNX file"):
        import_onnx(tmp_path / "model.onnx")
