"""Rewrites for INT8 kernels: exact where they apply, and nothing where they do not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lathe_compression.export import Normalisation
from lathe_compression.hygiene import clean
from lathe_compression.int8_layout import feed_pixels_directly, regroup_stem
from lathe_compression.quantize import Quantize, quantize
from tests.compression.graphs import count, graph, pixels, random, run
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
