"""Hygiene changes how fast a graph runs, and nothing of what it computes."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from lathe_compression.hygiene import (
    LARGEST_FOLDED,
    clean,
    fold_batch_norms,
    fold_constants,
    prelu_as_arithmetic,
    prelu_as_convolutions,
    weights_are_constants,
)
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


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def constant(name: str, value: np.ndarray) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))


def test_chain_over_constants_folds_and_sizes_stay_free() -> None:
    """Shape → Gather → Cast → Mul of a constant; Shape of the input stays."""
    nodes = [
        constant("table", random(7, 3)),
        constant("first", np.array(0)),
        helper.make_node("Shape", ["table"], ["sides"]),
        helper.make_node("Gather", ["sides", "first"], ["side"]),
        helper.make_node("Cast", ["side"], ["seven"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", ["x", "seven"], ["times"]),
        helper.make_node("Shape", ["x"], ["own"]),
        helper.make_node("Reshape", ["times", "own"], ["y"]),
    ]
    model = graph(nodes, {})
    assert fold_constants(model) == 5
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["Mul", "Shape", "Reshape"]
    assert [tensor.name for tensor in model.graph.initializer] == ["seven"]
    for size in ((1, 2, 3, 4), (2, 3, 5, 7)):
        np.testing.assert_array_equal(run(model, random(*size))[0], random(*size) * 7)


def test_weights_that_are_nodes_let_batch_norms_fold() -> None:
    model = norm_after("Conv", {"w": random(8, 4, 3, 3)})
    (kernel,) = [tensor for tensor in model.graph.initializer if tensor.name == "w"]
    model.graph.initializer.remove(kernel)
    model.graph.node.insert(0, constant("w", numpy_helper.to_array(kernel)))
    cleaned, told = clean(model)
    assert told == "hygiene: 0 weights made constants, 1 batch norms folded, 1 constant nodes folded"
    np.testing.assert_allclose(run(cleaned, X)[0], run(model, X)[0], rtol=1e-5, atol=1e-5)


CANNOT_FOLD = {
    "another number each time": helper.make_node("RandomNormal", [], ["made"], shape=[1]),
    "random like a constant": helper.make_node("RandomNormalLike", ["c"], ["made"]),
    "larger than its node": helper.make_node("ConstantOfShape", ["many"], ["made"]),
    "with a graph in it": helper.make_node(
        "If",
        ["yes"],
        ["made"],
        **{
            f"{word}_branch": helper.make_graph(
                [helper.make_node("Identity", ["c"], [word])],
                word,
                [],
                [helper.make_tensor_value_info(word, onnx.TensorProto.FLOAT, [1])],
            )
            for word in ("then", "else")
        },
    ),
}


@pytest.mark.parametrize("node", CANNOT_FOLD.values(), ids=CANNOT_FOLD)
def test_what_must_not_fold_stays(node: onnx.NodeProto) -> None:
    constants: Any = {"c": random(1), "many": np.array([LARGEST_FOLDED + 1]), "yes": np.array(True)}
    model = graph(
        [node, helper.make_node("ReduceMax", ["made"], ["m"]), helper.make_node("Add", ["x", "m"], ["y"])], {}
    )
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    run(model, X)
    assert fold_constants(model) == 0
    assert len(model.graph.node) == 3


def test_a_constant_that_is_an_output_stays() -> None:
    model = graph([helper.make_node("Relu", ["x"], ["y"]), constant("z", random(1, 1, 1, 1))], {}, outputs=("y", "z"))
    assert fold_constants(model) == 0


SLOPES = {"for each channel": random(4, 1, 1), "with a batch": random(1, 4, 1, 1), "one": random(1)}
K = random(4, 4, 1, 1)


def prelu_between(slope: Array) -> onnx.ModelProto:
    """Convolution, PReLU, convolution."""
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["before"]),
        helper.make_node("PRelu", ["before", "slope"], ["bent"], "bend"),
        helper.make_node("Conv", ["bent", "k"], ["y"]),
    ]
    return graph(nodes, {"k": K, "slope": slope})


@pytest.mark.parametrize("slope", SLOPES.values(), ids=SLOPES)
def test_prelu_as_arithmetic_is_equal(slope: Array) -> None:
    model = prelu_between(slope)
    before = run(model, X)[0]
    cleaned, told = clean(model)
    assert told == "hygiene: 0 weights made constants, 0 batch norms folded, 1 PReLUs written as arithmetic"
    onnx.checker.check_model(cleaned, full_check=True)
    assert count(cleaned, "PRelu") == 0
    assert "bent" in {name for node in cleaned.graph.node for name in node.output}, "ranges are known by this name"
    np.testing.assert_allclose(run(cleaned, X)[0], before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("is_clean", [False, True], ids=["from PRelu", "from arithmetic"])
@pytest.mark.parametrize("slope", SLOPES.values(), ids=SLOPES)
def test_prelu_as_convolutions_is_equal(slope: Array, is_clean: bool) -> None:
    model = prelu_between(slope)
    before = run(model, X)[0]
    if is_clean:
        model, _ = clean(model)
    assert prelu_as_convolutions(model) == 1
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Conv", "Conv", "Relu", "Conv", "Add", "Conv"]
    assert len({node.name for node in model.graph.node if node.name}) == 4, "each of the four has a name of its own"
    np.testing.assert_allclose(run(model, X)[0], before, rtol=1e-5, atol=1e-5)
    assert prelu_as_convolutions(model) == 0


def test_prelu_of_computed_slopes_stays() -> None:
    model = graph([helper.make_node("PRelu", ["x", "z"], ["y"])], {}, inputs=("x", "z"))
    assert prelu_as_arithmetic(model) == prelu_as_convolutions(model) == 0
    assert count(model, "PRelu") == 1


NO_CONVOLUTIONS = {
    "a slope for each column": graph([helper.make_node("PRelu", ["x", "s"], ["y"])], {"s": random(10)}),
    "one slope, channels unknown": graph([helper.make_node("PRelu", ["x", "s"], ["y"])], {"s": random(1)}),
    "slopes over rows": graph([helper.make_node("PRelu", ["x", "s"], ["y"])], {"s": random(4, 8, 1)}),
}


@pytest.mark.parametrize("model", NO_CONVOLUTIONS.values(), ids=NO_CONVOLUTIONS)
def test_prelu_that_no_depthwise_convolution_can_be_stays_arithmetic(model: onnx.ModelProto) -> None:
    before = run(model, X)[0]
    assert prelu_as_convolutions(model) == 0
    assert (count(model, "PRelu"), count(model, "Conv")) == (0, 0)
    np.testing.assert_allclose(run(model, X)[0], before, rtol=1e-5, atol=1e-5)


def test_sums_that_are_no_prelu_stay() -> None:
    """The factors do not add up to 1, or the Relu is of something else."""
    half = {"h": np.full((4, 1, 1), 0.5, np.float32), "q": np.full((4, 1, 1), 0.25, np.float32)}
    for rest, rectified in (("q", "x"), ("h", "m")):
        nodes = [
            helper.make_node("Mul", ["x", "h"], ["m"]),
            helper.make_node("Relu", [rectified], ["r"]),
            helper.make_node("Mul", ["r", rest], ["n"]),
            helper.make_node("Add", ["m", "n"], ["y"]),
        ]
        assert prelu_as_convolutions(graph(nodes, half)) == 0


def test_prelu_as_arithmetic_is_faster() -> None:
    """By a factor of 3 to 5 where it was measured; interleaved, by the thread's own clock."""
    plain = graph([helper.make_node("PRelu", ["x", "s"], ["y"])], {"s": random(64, 1, 1)})
    sessions = {"plain": session(plain), "clean": session(clean(plain)[0])}
    x = random(1, 64, 56, 56)
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(40):
        for name, one in sessions.items():
            began = time.thread_time()
            one.run(None, {"x": x})
            seconds[name].append(time.thread_time() - began)
    assert median(seconds["clean"]) < 0.7 * median(seconds["plain"])
