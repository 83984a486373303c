"""First convolutions that see four pixels at a time: equal to what they were, and only where that is known."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lathe_compression.wide_stem import regroup_wide_stem
from tests.compression.graphs import pixels, random, run


def stem(
    side: int, stride: int, width: int | str = 50, *, relu: bool = True, inputs: int = 3, **settings: object
) -> onnx.ModelProto:
    """uint8 pixels through a convolution of side × side to 8 channels."""
    kernel = random(8, inputs, side, side)
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["planes"], "transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["float"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Conv", ["float", "kernel", "bias"], ["conv"], "conv", strides=[stride, stride], **settings),
        helper.make_node("Relu" if relu else "Sigmoid", ["conv"], ["y"], "bend"),
    ]
    graph = helper.make_graph(
        nodes,
        "stem",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ("b", 40, width, inputs))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("b", 8, "h", "w"))],
        [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(random(8, seed=1), "bias")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("width", [48, 49, 50, 51, 52, 53])
@pytest.mark.parametrize(("side", "stride"), [(7, 2), (5, 2), (3, 2), (4, 2), (11, 4), (6, 4), (4, 4), (8, 4), (3, 4)])
def test_regrouped_stem_is_equal(side: int, stride: int, width: int) -> None:
    model = stem(side, stride, width)
    columns = (width - side) // stride + 1
    picture = pixels(40, width, batch=2)
    (before,) = run(model, picture)
    applied = regroup_wide_stem(model)
    assert applied == (stride == 4 or columns % 2 == 0)
    (after,) = run(model, picture)
    assert after.shape == before.shape == (2, 8, (40 - side) // stride + 1, columns)
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=2e-2)  # of pixels up to 255
    if applied:
        conv = next(node for node in model.graph.node if node.op_type == "Conv")
        kernel = next(one for one in model.graph.initializer if one.name == conv.input[1])
        assert kernel.dims[1] == 12


def test_regrouped_once_it_stays() -> None:
    model = stem(7, 2, 49)
    assert regroup_wide_stem(model)
    assert not regroup_wide_stem(model)


OTHERS = {
    "padding": stem(7, 2, 50, pads=[3, 3, 3, 3]),
    "a free width": stem(7, 2, "w"),
    "another stride": stem(7, 3, 50),
    "no stride": stem(7, 1, 50),
    "steps between taps": stem(3, 2, 50, dilations=[2, 2]),
    "another activation": stem(7, 4, 50, relu=False),
    "grey pixels": stem(7, 4, 50, inputs=1),
}


@pytest.mark.parametrize("model", OTHERS.values(), ids=OTHERS)
def test_other_stems_stay_as_they_are(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    assert not regroup_wide_stem(model)
    assert model.SerializeToString() == before


def test_stem_that_stays_in_float_stays_as_it_is() -> None:
    assert not regroup_wide_stem(stem(7, 4, 50), kept=["conv"])
