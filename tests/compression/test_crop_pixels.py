"""Crops of the first planes are made of the pixels: equal to what they were, and only where that is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lathe_compression.crop_pixels import CROPPED, Picture, crop_pixels, picture_of
from lathe_compression.hygiene import clean
from lathe_compression.normalised import fold_normalisation
from lathe_compression.wide_stem import regroup_wide_stem
from tests.compression.graphs import count, pixels, random, run

MEAN, STD = np.array([120, 110, 100], np.float32).reshape(1, 3, 1, 1), np.full((1, 3, 1, 1), 250, np.float32)
Slice = tuple[Sequence[int], Sequence[int], Sequence[int], Sequence[int]]
ROWS, COLUMNS = ([1], [39], [2], [1]), ([5], [45], [3], [1])


def cropped(
    *slices: Slice,
    height: int | str = 40,
    normalised: bool = True,
    mean: NDArray[np.float32] = MEAN,
    outputs: Sequence[str] = ("y",),
) -> onnx.ModelProto:
    """uint8 pixels to planes, normalised, cut, through a convolution."""
    constants: dict[str, NDArray[np.generic]] = {"kernel": random(8, 3, 7, 7), "bias": random(8, seed=1)}
    constants |= {"mean": mean, "std": STD}
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["planes"], "transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["float"], "cast", to=TensorProto.FLOAT),
    ]
    value = "float"
    if normalised:
        nodes += [helper.make_node("Sub", ["float", "mean"], ["centred"], "sub")]
        nodes += [helper.make_node("Div", ["centred", "std"], ["normal"], "div")]
        value = "normal"
    for number, numbers in enumerate(slices):
        named = {f"{part}{number}": np.array(one) for part, one in zip("seat", numbers, strict=True)}
        constants |= named
        nodes.append(helper.make_node("Slice", [value, *named], [f"cut{number}"], f"slice{number}"))
        value = f"cut{number}"
    nodes.append(helper.make_node("Conv", [value, "kernel", "bias"], ["conv"], "conv", strides=[2, 2]))
    nodes.append(helper.make_node("Relu", ["conv"], ["y"], "relu"))
    return model(nodes, constants, height, outputs)


def model(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, NDArray[np.generic]],
    height: int | str,
    outputs: Sequence[str],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "cropped",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ("b", height, 50, 3))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"{name}{n}" for n in range(4)]) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize(
    ("slices", "width"),
    [
        ((ROWS, COLUMNS), 40),
        ((COLUMNS,), 40),
        ((ROWS,), 50),
        ((([1, 5], [39, -5], [2, 3], [1, 1]),), 40),
        ((([3], [np.iinfo(np.int64).max], [3], [1]),), 47),
    ],
)
def test_crops_of_planes_become_crops_of_pixels(slices: Sequence[Slice], width: int, *, normalised: bool) -> None:
    graph = cropped(*slices, normalised=normalised)
    picture = pixels(40, 50, batch=2)
    (before,) = run(graph, picture)
    assert crop_pixels(graph)
    onnx.checker.check_model(graph)
    assert graph.graph.node[0].op_type == "Slice"
    assert count(graph, "Slice") == 1
    assert picture_of(graph.graph) == Picture(CROPPED, width)
    np.testing.assert_array_equal(run(graph, picture)[0], before)


@pytest.mark.parametrize("shape", [(), (1,), (3, 1, 1), (1, 1, 1, 1)])
def test_constants_of_a_channel_have_any_such_shape(shape: tuple[int, ...]) -> None:
    graph = cropped(ROWS, mean=MEAN.reshape(-1)[: int(np.prod(shape))].reshape(shape))
    (before,) = run(graph, pixels(40, 50))
    assert crop_pixels(graph)
    np.testing.assert_array_equal(run(graph, pixels(40, 50))[0], before)


OTHERS = {
    "no crop": cropped(),
    "a free height": cropped(ROWS, height="h"),
    "every second row": cropped(([0], [40], [2], [2])),
    "channels too": cropped(([0], [3], [1], [1]), ROWS),
    "rows twice": cropped(ROWS, ([1], [30], [2], [1])),
    "a mean for each row": cropped(ROWS, mean=np.ones((1, 1, 40, 1), np.float32)),
    "a mean for each column": cropped(([1], [39], [2], [1]), mean=np.ones(50, np.float32)),
    "others see what is cut off": cropped(ROWS, outputs=("y", "normal")),
    "others see what is left": cropped(ROWS, outputs=("y", "cut0")),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_graphs_stay_as_they_are(name: str) -> None:
    before = OTHERS[name].SerializeToString()
    assert not crop_pixels(OTHERS[name])
    assert OTHERS[name].SerializeToString() == before


def test_a_picture_that_is_not_cut_is_the_input() -> None:
    assert picture_of(cropped().graph) == Picture("pixels", 50)


def test_what_is_no_crop_may_be_called_so() -> None:
    nodes = [
        helper.make_node("Transpose", ["pixels"], [CROPPED], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", [CROPPED], ["y"], to=TensorProto.FLOAT),
    ]
    assert picture_of(model(nodes, {}, 40, ["y"]).graph) == Picture("pixels", 50)


def test_cropped_stem_takes_its_normalisation_and_four_pixels_at_a_time() -> None:
    graph, told = clean(cropped(ROWS, ([5], [42], [3], [1])))
    assert "pixels cut before they are planes" in told
    picture = pixels(40, 50)
    (before,) = run(graph, picture)
    assert fold_normalisation(graph)
    assert regroup_wide_stem(graph)
    assert picture_of(graph.graph) == Picture(CROPPED, 37)
    (after,) = run(graph, picture)
    assert after.shape == before.shape == (1, 8, 16, 16)
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-3)
