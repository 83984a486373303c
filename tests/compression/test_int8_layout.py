"""Rewrites for INT8 kernels: exact where they apply, and nothing where they do not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lathe_compression.export import Normalisation
from lathe_compression.hygiene import clean
from lathe_compression.int8_layout import feed_pixels_directly, regroup_stem, upsample_by_convolution
from lathe_compression.quantize import Quantize, quantize
from tests.compression.graphs import Array, count, graph, pixels, random, run
from tests.compression.networks import exported

WEIGHTS = {"w": random(16, 3, 3, 3), "b": random(16)}


def stem(**changes: object) -> onnx.ModelProto:
    """Pixels → transpose → cast → 3×3 convolution of stride 2 → Relu → heads; `changes` to the convolution."""
    settings = {"strides": [2, 2], "pads": [1, 1, 1, 1], "kernel_shape": [3, 3]} | changes
    model = graph(
        [
            helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Cast", ["planes"], ["x"], to=TensorProto.FLOAT),
            helper.make_node("Conv", ["x", "w", "b"], ["conv"], **settings),
            helper.make_node("Relu", ["conv"], ["relu"]),
            helper.make_node("Sigmoid", ["relu"], ["y"]),
        ],
        WEIGHTS,
        inputs=(),
    )
    sides = ("batch", "height", "width", 3)
    model.graph.input.append(helper.make_tensor_value_info("pixels", TensorProto.UINT8, sides))
    return model


@pytest.mark.parametrize("size_wh", [(32, 32), (96, 32), (320, 256), (64, 96), (160, 224), (4, 1), (8, 33)])
def test_regrouped_stem_computes_the_same(size_wh: tuple[int, int]) -> None:
    """At every width that is a multiple of 4, and at odd heights."""
    model = stem()
    picture = pixels(size_wh[1], size_wh[0], batch=2)
    before = run(model, picture)[0]
    assert regroup_stem(model)
    onnx.checker.check_model(model)
    np.testing.assert_allclose(run(model, picture)[0], before, atol=1e-4)


def test_regrouped_detector_computes_the_same() -> None:
    model, _ = clean(exported())
    picture = pixels(96, 160)
    before = run(model, picture)
    assert regroup_stem(model)
    for now, then in zip(run(model, picture), before, strict=True):
        np.testing.assert_allclose(now, then, rtol=1e-4, atol=1e-4)


def _with_node(position: int, **fields: object) -> onnx.ModelProto:
    model = stem()
    node = model.graph.node[position]
    for name, value in fields.items():
        setattr(node, name, value)
    return model


def _used_twice(name: str) -> onnx.ModelProto:
    model = stem()
    model.graph.node.append(helper.make_node("Relu", [name], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    return model


def _also_output(name: str) -> onnx.ModelProto:
    model = stem()
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4))
    return model


def _without_bias() -> onnx.ModelProto:
    model = stem()
    del model.graph.node[2].input[2:]
    return model


def _with_computed_weights() -> onnx.ModelProto:
    model = stem()
    model.graph.node.insert(0, helper.make_node("Identity", ["w"], ["w_too"]))
    model.graph.node[3].input[1] = "w_too"
    return model


def _transposed_otherwise() -> onnx.ModelProto:
    model = stem()
    model.graph.node[0].CopyFrom(helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 2, 1]))
    return model


OTHER_STEMS: dict[str, Callable[[], onnx.ModelProto]] = {
    "stride 1": lambda: stem(strides=[1, 1]),
    "no pads": lambda: stem(pads=[0, 0, 0, 0]),
    "dilated": lambda: stem(dilations=[2, 2]),
    "no Relu after it": lambda: _with_node(3, op_type="Sigmoid"),
    "rows and columns swapped": _transposed_otherwise,
    "no bias": _without_bias,
    "computed weights": _with_computed_weights,
    "convolution used twice": lambda: _used_twice("conv"),
    "weights used twice": lambda: _used_twice("w"),
    "convolution is an output": lambda: _also_output("conv"),
    "normalised": lambda: clean(exported(Normalisation((127.0,) * 3, (128.0,) * 3)))[0],
}


@pytest.mark.parametrize("build", OTHER_STEMS.values(), ids=OTHER_STEMS)
def test_other_stems_are_left_alone(build: Callable[[], onnx.ModelProto]) -> None:
    model = build()
    before = model.SerializeToString(deterministic=True)
    assert not regroup_stem(model)
    assert model.SerializeToString(deterministic=True) == before


def _restore_cast(model: onnx.ModelProto) -> None:
    """Undoes `feed_pixels_directly`: pixels are cast and quantized again with scale 1 and zero point 0."""
    planes = next(node.output[0] for node in model.graph.node if node.op_type == "Transpose")
    (dequantizer,) = [node for node in model.graph.node if node.input[0] == planes]
    dequantizer.input[0] = "again"
    at = list(model.graph.node).index(dequantizer)
    scale, zero = dequantizer.input[1:3]
    quantizer = helper.make_node("QuantizeLinear", ["as_float", scale, zero], ["again"])
    model.graph.node.insert(at, quantizer)
    model.graph.node.insert(at, helper.make_node("Cast", [planes], ["as_float"], to=TensorProto.FLOAT))


def test_pixels_fed_directly_change_no_bit() -> None:
    model, done = quantize(clean(exported())[0], Quantize(), [pixels(64, 96, seed=n) for n in range(3)], 32)
    assert "layout: pixels feed the first convolution as they are" in done
    assert count(model, "Cast") == 0
    cast = onnx.ModelProto()
    cast.CopyFrom(model)
    _restore_cast(cast)
    picture = pixels(96, 64, seed=9)
    for direct, through_float in zip(run(model, picture), run(cast, picture), strict=True):
        np.testing.assert_array_equal(direct, through_float)
    assert feed_pixels_directly(cast)
    assert count(cast, "Cast") == 0


UP = {"strides": [2, 2], "kernel_shape": [2, 2]}


def upsampling(
    kernel: tuple[int, ...] = (6, 5, 2, 2), *, bias: bool = True, activation: str = "", **changes: object
) -> onnx.ModelProto:
    """A transposed convolution, and perhaps an activation behind it."""
    weights: dict[str, Array] = {"w": random(*kernel, seed=1)}
    if bias:
        weights["b"] = random(kernel[1], seed=2)
    if activation == "Clip":
        weights |= {"low": np.array(0, np.float32), "high": np.array(2, np.float32)}
    settings = UP | {"kernel_shape": list(kernel[2:])} | changes
    up = helper.make_node("ConvTranspose", ["x", "w", *(["b"] if bias else [])], ["up"], "up", **settings)
    inputs = ["up", "low", "high"] if activation == "Clip" else ["up"]
    return graph([up, helper.make_node(activation or "Identity", inputs, ["y"], "end")], weights)


UPSAMPLINGS: dict[str, tuple[onnx.ModelProto, tuple[int, int]]] = {
    "twice": (upsampling(), (2, 2)),
    "without a bias": (upsampling(bias=False), (2, 2)),
    "with a Relu": (upsampling(activation="Relu"), (2, 2)),
    "with a Clip": (upsampling(activation="Clip"), (2, 2)),
    "with a Sigmoid": (upsampling(activation="Sigmoid"), (2, 2)),
    "not square": (upsampling((6, 5, 2, 3), strides=[2, 3]), (2, 3)),
    "one row": (upsampling((6, 5, 1, 2), strides=[1, 2]), (1, 2)),
    "one channel to one": (upsampling((1, 1, 4, 4), strides=[4, 4]), (4, 4)),
}


@pytest.mark.parametrize(("model", "factors"), UPSAMPLINGS.values(), ids=UPSAMPLINGS)
@pytest.mark.parametrize("size", [(1, 1, 1), (2, 3, 5), (3, 8, 4)], ids=str)
def test_upsampling_by_convolution_computes_the_same(
    model: onnx.ModelProto, factors: tuple[int, int], size: tuple[int, int, int]
) -> None:
    """Whatever the batch and the size: the graph's sides have no numbers."""
    batch, height, width = size
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    assert upsample_by_convolution(changed) == 1
    onnx.checker.check_model(changed, full_check=True)
    assert count(changed, "ConvTranspose") == 0
    assert [node.name for node in changed.graph.node if node.op_type == "Conv"] == ["up"]
    value = random(batch, model.graph.initializer[0].dims[0], height, width, seed=3)
    (before,), (after,) = run(model, value), run(changed, value)
    assert after.shape[2:] == (height * factors[0], width * factors[1])
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", ["Relu", "Clip"])
def test_activation_goes_before_the_moves(activation: str) -> None:
    """So that the INT8 convolution does it."""
    model = upsampling(activation=activation)
    upsample_by_convolution(model)
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    (follower,) = [node for node in model.graph.node if conv.output[0] in node.input]
    assert follower.op_type == activation


def test_activation_stays_where_something_else_takes_the_upsampling() -> None:
    model = upsampling(activation="Relu")
    model.graph.node.append(helper.make_node("Neg", ["up"], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    assert upsample_by_convolution(changed) == 1
    value = random(2, 6, 3, 4, seed=3)
    for after, before in zip(run(changed, value), run(model, value), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)


def test_two_upsamplings_in_a_row() -> None:
    ups = [
        helper.make_node("ConvTranspose", ["x", "w"], ["middle"], "first", **UP),
        helper.make_node("ConvTranspose", ["middle", "v", "b"], ["y"], "second", **UP),
    ]
    constants = {"w": random(3, 4, 2, 2), "v": random(4, 2, 2, 2, seed=1), "b": random(2)}
    model, changed = graph(ups, constants), graph(ups, constants)
    assert upsample_by_convolution(changed) == 2
    value = random(2, 3, 5, 3, seed=3)
    np.testing.assert_allclose(run(changed, value)[0], run(model, value)[0], rtol=1e-5, atol=1e-5)


def _computed_kernel() -> onnx.ModelProto:
    model = upsampling()
    model.graph.node.insert(0, helper.make_node("Identity", ["w"], ["w_too"]))
    model.graph.node[1].input[1] = "w_too"
    return model


OTHER_UPSAMPLINGS: dict[str, onnx.ModelProto] = {
    "patches overlap": upsampling((6, 5, 3, 3)),
    "gaps between patches": upsampling(strides=[3, 3]),
    "no stride": upsampling(strides=[1, 1]),
    "in groups": upsampling((6, 5, 2, 2), group=2, bias=False),
    "padded": upsampling(pads=[1, 1, 1, 1]),
    "output padded": upsampling(output_padding=[1, 1]),
    "padded by the runtime": upsampling(auto_pad="SAME_UPPER"),
    "dilated": upsampling(dilations=[2, 2]),
    "computed weights": _computed_kernel(),
}


@pytest.mark.parametrize("model", OTHER_UPSAMPLINGS.values(), ids=OTHER_UPSAMPLINGS)
def test_other_upsamplings_are_left_alone(model: onnx.ModelProto) -> None:
    before = model.SerializeToString(deterministic=True)
    assert upsample_by_convolution(model) == 0
    assert model.SerializeToString(deterministic=True) == before
