"""Hygiene changes how fast a graph runs, and nothing of what it computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from lathe_compression.hygiene import clean, fold_batch_norms, weights_are_constants
from tests.compression.graphs import Array, count, graph, pixels, random, run
from tests.compression.networks import exported

NORM = {"s": random(8) + 1, "t": random(8), "m": random(8, seed=1), "v": np.abs(random(8)) + 0.5}
X = random(2, 4, 8, 10)


def norm_after(op: str, weights: dict[str, Array], *, outputs: tuple[str, ...] = ("y",), **settings: Any) -> Any:
    """`op`, a batch norm with its own epsilon, and a Relu."""
    nodes = [
        helper.make_node(op, ["x", *weights], ["conv"], **settings),
        helper.make_node("BatchNormalization", ["conv", *NORM], ["normed"], epsilon=1e-3),
        helper.make_node("Relu", ["normed"], ["y"]),
    ]
    return graph(nodes, weights | NORM, outputs=outputs)


CONVOLUTIONS: dict[str, tuple[str, dict[str, Array], dict[str, Any]]] = {
    "conv": ("Conv", {"w": random(8, 4, 3, 3)}, {}),
    "conv with bias": ("Conv", {"w": random(8, 4, 3, 3), "b": random(8, seed=2)}, {}),
    "conv in groups": ("Conv", {"w": random(8, 2, 3, 3)}, {"group": 2}),
    "depthwise conv": ("Conv", {"w": random(8, 1, 3, 3)}, {"group": 4}),
    "transposed": ("ConvTranspose", {"w": random(4, 8, 2, 2)}, {"strides": [2, 2]}),
    "transposed with bias": ("ConvTranspose", {"w": random(4, 8, 2, 2), "b": random(8)}, {"strides": [2, 2]}),
    "transposed in groups": ("ConvTranspose", {"w": random(4, 4, 3, 3)}, {"group": 2, "strides": [2, 2]}),
    "transposed depthwise": ("ConvTranspose", {"w": random(4, 2, 3, 3)}, {"group": 4}),
}


@pytest.mark.parametrize(("op", "weights", "settings"), CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_batch_norm_folds_without_a_difference(op: str, weights: dict[str, Array], settings: dict[str, Any]) -> None:
    model = norm_after(op, weights, **settings)
    before = run(model, X)[0]
    assert fold_batch_norms(model) == 1
    onnx.checker.check_model(model)
    assert count(model, "BatchNormalization") == 0
    np.testing.assert_allclose(run(model, X)[0], before, rtol=1e-5, atol=1e-5)


def test_folding_leaves_no_unused_weights() -> None:
    model = norm_after("Conv", {"w": random(8, 4, 3, 3), "b": random(8)})
    fold_batch_norms(model)
    assert len(model.graph.initializer) == 2


def test_a_second_consumer_keeps_the_batch_norm() -> None:
    model = norm_after("Conv", {"w": random(8, 4, 1, 1)})
    model.graph.node.append(helper.make_node("Sigmoid", ["conv"], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [None] * 4))
    before = run(model, X)
    assert fold_batch_norms(model) == 0
    for now, then in zip(run(model, X), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_a_graph_output_between_keeps_the_batch_norm() -> None:
    model = norm_after("Conv", {"w": random(8, 4, 1, 1)}, outputs=("y", "conv"))
    assert fold_batch_norms(model) == 0


def test_weights_of_two_convolutions_keep_the_batch_norm() -> None:
    model = norm_after("Conv", {"w": random(8, 4, 1, 1)})
    model.graph.node.append(helper.make_node("Conv", ["x", "w"], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [None] * 4))
    assert fold_batch_norms(model) == 0


def test_batch_norm_without_a_convolution_stays() -> None:
    norm = helper.make_node("BatchNormalization", ["x", *NORM], ["y"])
    assert fold_batch_norms(graph([norm], NORM)) == 0


def test_weights_on_the_list_of_inputs_become_constants() -> None:
    weights = {"w": random(4, 4, 1, 1), "b": random(4)}
    model = graph([helper.make_node("Conv", ["x", *weights], ["y"])], weights, weights_are_inputs=True)
    model.ir_version = 3
    assert weights_are_constants(model) == 2
    assert [value.name for value in model.graph.input] == ["x"]
    assert model.ir_version == 4
    onnx.checker.check_model(model)


def test_clean_makes_a_copy_that_computes_the_same() -> None:
    model = exported()
    text = model.SerializeToString()
    cleaned, told = clean(model)
    assert model.SerializeToString() == text
    assert told == "hygiene: 0 weights made constants, 1 batch norms folded"  # the exporter folds those after Conv
    assert count(cleaned, "BatchNormalization") == 0
    picture = pixels(64, 96)
    for now, then in zip(run(cleaned, picture), run(model, picture), strict=True):
        np.testing.assert_allclose(now, then, rtol=1e-4, atol=1e-4)
