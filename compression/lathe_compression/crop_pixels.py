"""Networks that look at a part of their input cut it out of the pixels: bytes, and before any arithmetic.

What follows then finds its patterns (`normalised`, `wide_stem`) behind the crop as it does behind the input.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from lathe_compression.wiring import add_constant, attributes, drop_unused_constants, rename_values, users_of

CROPPED = "cropped_pixels"
_OF_PIXELS = {2: 1, 3: 2}
"""Rows and columns: their axis of N×C×H×W, and of N×H×W×C."""


@dataclass(frozen=True)
class Picture:
    """What the first convolution is made from.

    Attributes:
        value: its name: of the graph's input, or of what is cut out of it.
        width: in pixels; 0 where it is free.
    """

    value: str
    width: int


def picture_of(graph: onnx.GraphProto) -> Picture:
    """The graph's input, or its crop where nobody takes anything else."""
    source = graph.input[0]
    sides = source.type.tensor_type.shape.dim
    width = sides[2].dim_value if len(sides) == 4 else 0
    users = users_of(graph)[source.name]
    if len(users) != 1 or users[0].op_type != "Slice" or users[0].output[0] != CROPPED:
        return Picture(source.name, width)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    starts, ends, axes = (constants[name] for name in users[0].input[1:4])
    for start, end, axis in zip(starts, ends, axes, strict=True):
        if axis == _OF_PIXELS[3]:
            width = len(range(width)[start:end])
    return Picture(CROPPED, width)


def crop_pixels(model: onnx.ModelProto) -> bool:
    """Moves slices of the first planes in front of what makes planes of pixels, in place.

    Applies to N×H×W×C of a fixed size → transpose → cast → (− constant) → (÷ constant) → slices of rows and columns.
    The constants are single numbers, or one for each channel: 1×C×1×1 or C×1×1.

    Returns:
        Whether it applied.
    """
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    chain = _chain(graph, constants)
    slices = [node for node in chain if node.op_type == "Slice"]
    boxes = [_box(node, constants) for node in slices]
    axes = [axis for box in boxes if box is not None for axis in box[2]]
    if not slices or None in boxes or len(set(axes)) < len(axes):
        return False
    starts, ends, _ = (np.concatenate(parts) for parts in zip(*(box for box in boxes if box is not None), strict=True))
    source = graph.input[0].name
    chain[0].input[0] = CROPPED
    rename_values(graph, {node.output[0]: chain[-len(slices) - 1].output[0] for node in slices})
    for node in slices:
        graph.node.remove(node)
    named = {"starts": starts, "ends": ends, "axes": np.array([_OF_PIXELS[axis] for axis in axes])}
    inputs = [source, *(add_constant(graph, f"crop_{name}", value.astype(np.int64)) for name, value in named.items())]
    graph.node.insert(0, helper.make_node("Slice", inputs, [CROPPED], "crop_pixels"))
    drop_unused_constants(graph)
    return True


def _chain(graph: onnx.GraphProto, constants: dict[str, NDArray[np.generic]]) -> list[onnx.NodeProto]:
    """Transpose, cast, subtraction, division and slices, each for the next one alone; nothing where they are not so."""
    users = users_of(graph)
    outputs = {output.name for output in graph.output}
    sides = graph.input[0].type.tensor_type.shape.dim
    if len(sides) != 4 or not all(side.dim_value for side in sides[1:]):
        return []
    value, chain = graph.input[0].name, list[onnx.NodeProto]()
    for kind in ("Transpose", "Cast", "Sub", "Div", "Slice", "Slice"):
        following = users[value]
        if value in outputs or len(following) != 1:
            break
        node = following[0]
        if node.op_type != kind or node.input[0] != value:
            if kind in ("Transpose", "Cast"):
                return []
            continue
        if kind in ("Sub", "Div") and not _is_even(constants.get(node.input[1])):
            return []
        chain.append(node)
        value = node.output[0]
    is_planes = chain and list(attributes(chain[0]).get("perm", [])) == [0, 3, 1, 2]
    return chain if is_planes and value not in outputs else []


def _is_even(constant: NDArray[np.generic] | None) -> bool:
    """Whether planes take the same numbers from it wherever they are cut."""
    return constant is not None and constant.ndim <= 4 and all(side == 1 for side in constant.shape[-2:])


def _box(
    node: onnx.NodeProto, constants: dict[str, NDArray[np.generic]]
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[int]] | None:
    """Starts, ends and axes of N×C×H×W; None where they are not known, of other axes, or leave pixels between out."""
    given = list(node.input[1:])
    if len(given) < 3 or any(name not in constants for name in given):
        return None
    starts, ends, axes, *steps = (constants[name].reshape(-1).astype(np.int64) for name in given)
    if any(axis not in _OF_PIXELS for axis in axes) or any((step != 1).any() for step in steps):
        return None
    return starts, ends, [int(axis) for axis in axes]
