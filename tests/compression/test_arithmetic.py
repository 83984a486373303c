"""Counting by hand what a graph costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lathe_compression.arithmetic import arithmetic
from lathe_compression.hygiene import clean
from tests.compression.graphs import Array, graph, random
from tests.compression.networks import exported, tiny_detector


def pixels_into(op: str, weight: Array, **settings: Any) -> onnx.ModelProto:
    """Pixels → planes → one convolution."""
    model = graph(
        [
            helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Cast", ["planes"], ["x"], to=TensorProto.FLOAT),
            helper.make_node(op, ["x", "w"], ["y"], **settings),
        ],
        {"w": weight},
        inputs=(),
    )
    sides = ("batch", "height", "width", 3)
    model.graph.input.append(helper.make_tensor_value_info("pixels", TensorProto.UINT8, sides))
    return model


@pytest.mark.parametrize(
    ("op", "weight", "settings", "macs"),
    [
        ("Conv", random(8, 3, 3, 3), {"pads": [1, 1, 1, 1]}, 12 * 10 * 8 * 27),
        ("Conv", random(8, 3, 3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}, 6 * 5 * 8 * 27),
        ("Conv", random(6, 1, 3, 3), {"group": 3, "pads": [1, 1, 1, 1]}, 12 * 10 * 6 * 9),
        ("ConvTranspose", random(3, 8, 2, 2), {"strides": [2, 2]}, 12 * 10 * 3 * 8 * 4),
    ],
)
def test_macs_of_a_convolution(op: str, weight: Array, settings: dict[str, Any], macs: int) -> None:
    cost = arithmetic(pixels_into(op, weight, **settings), (12, 10))
    assert (cost.macs, cost.parameters) == (macs, weight.size)


@pytest.mark.parametrize("transposed", [False, True])
def test_macs_of_a_matrix_product(transposed: bool) -> None:
    """3 means to 7 outputs, whichever way round the weights lie."""
    weight = random(*((7, 3) if transposed else (3, 7)))
    model = pixels_into("Conv", random(3, 3, 1, 1))
    model.graph.node[-1].output[0] = "conv"
    model.graph.node.extend(
        [
            helper.make_node("GlobalAveragePool", ["conv"], ["means"]),
            helper.make_node("Flatten", ["means"], ["flat"]),
            helper.make_node("Gemm", ["flat", "g"], ["y"], transB=int(transposed)),
        ]
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "g"))
    assert arithmetic(model, (4, 2)).macs == 4 * 2 * 9 + 3 * 7


def test_sparsity_is_the_share_of_zero_weights() -> None:
    weight = np.ones((4, 3, 1, 1), np.float32)
    weight[:1] = 0
    assert arithmetic(pixels_into("Conv", weight), (4, 4)).sparsity == 0.25


def test_model_is_left_with_free_sizes() -> None:
    model, _ = clean(exported())
    cost = arithmetic(model, (96, 64))
    assert arithmetic(model, (192, 128)).macs == 4 * cost.macs
    weights = sum(p.numel() for name, p in tiny_detector().named_parameters() if name not in NORMS)
    assert cost.parameters == weights + 2 * 16  # each of the two norms became a bias


NORMS = {f"{block}.1.{which}" for block in ("stem", "up") for which in ("weight", "bias")}
