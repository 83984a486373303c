"""The importer: every operator that it knows equals ONNX Runtime, and what it does not know it names."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from lathe.errors import BadVariant, NotFound
from lathe_compression.onnx_import import OPERATORS, import_onnx
from tests.compression.graphs import Array, graph, random, run


@dataclass(frozen=True)
class Case:
    """A node over the input `x`: 2 × 4 × 9 × 11 numbers."""

    op: str
    constants: dict[str, Array] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ("x",)

    def model(self) -> onnx.ModelProto:
        node = helper.make_node(self.op, [*self.inputs, *self.constants], ["y"], **self.attributes)
        return graph([node], self.constants, inputs=sorted(set(self.inputs)))


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
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_operator_equals_the_runtime(case: Case, tmp_path: Path) -> None:
    model = case.model()
    onnx.save(model, tmp_path / "model.onnx")
    inputs = [random(2, 4, 9, 11, seed=n) for n in range(len(model.graph.input))]
    with torch.no_grad():
        ours = import_onnx(tmp_path / "model.onnx")(*map(torch.from_numpy, inputs))
    np.testing.assert_allclose(ours.numpy(), run(model, *inputs)[0], atol=1e-5)


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


WEIGHTS = {"w": random(4, 4, 3, 3), "w1": random(4, 4, 3)}
UNSUPPORTED = {
    "names Softmax, which it does not know": (_node("Softmax", "x"), "uses Softmax"),
    "conv with uneven pads": (_node("Conv", "x", "w", pads=[0, 0, 1, 1]), "uneven pads"),
    "conv with automatic pads": (_node("Conv", "x", "w", auto_pad="SAME_UPPER"), "auto_pad"),
    "conv of one dimension": (_node("Conv", "x", "w1"), "height and width"),
    "conv with computed weights": (_node("Conv", "x", "x"), "computed weights"),
    "transposed conv with an output shape": (_node("ConvTranspose", "x", "w", output_shape=[9, 9]), "output_shape"),
    "pool of one dimension": (_node("MaxPool", "x", kernel_shape=[2], pads=[0, 1]), "height and width"),
}


@pytest.mark.parametrize(("node", "told"), UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_unsupported_form_is_refused(node: onnx.NodeProto, told: str, tmp_path: Path) -> None:
    onnx.save(graph([node], WEIGHTS), tmp_path / "model.onnx")
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
