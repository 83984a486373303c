"""Takes (pixel − mean) / std out of the graph and into the weights of the first convolution.

A quantized graph then reads the camera's bytes as they are. Only the border needs thought: a convolution pads
the normalised picture with 0, which is a pixel of the mean.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from lathe_compression.crop_pixels import picture_of
from lathe_compression.wiring import add_constant, attributes, drop_unused_constants, replace_nodes, users_of

FULL = 255
"""Value of the channel that tells picture from border."""


@dataclass(frozen=True)
class _Front:
    """Transpose → Cast → Sub → Div → Conv, for nobody else, and their numbers; Sub or Div may be missing."""

    nodes: list[onnx.NodeProto]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    kernel: NDArray[np.float64]
    bias: NDArray[np.float64]


def fold_normalisation(model: onnx.ModelProto, kept: Collection[str] = ()) -> str:
    """Rewrites the front in place, if it is one.

    * A convolution without padding takes mean and std as they are: exact.
    * Means that lie within half a pixel value of one whole number m, as 127.5 does: pixels less m, which uint8
      with the zero point m holds exactly. The border becomes m instead of the mean, wrong by at most half a
      pixel value.
    * Others: a fourth channel, 255 in the picture and padded with 0, carries the means: exact.

    Args:
        kept: names of layers that stay in float; a first convolution among them stays as it is.

    Returns:
        A sentence for the lineage; empty where nothing was done.
    """
    front = _front(model.graph)
    if front is None or front.nodes[-1].name in kept:
        return ""
    shared = min(max(round(float(front.mean.min() + front.mean.max()) / 2), 0), FULL)
    if not any(attributes(front.nodes[-1]).get("pads", [])):
        _rewrite(model.graph, front, front.mean, marked=False, shift=0)
        return "layout: normalisation in the weights of the first convolution"
    if np.abs(front.mean - shared).max() <= 0.5:
        _rewrite(model.graph, front, front.mean - shared, marked=False, shift=shared)
        return f"layout: normalisation in the weights of the first convolution, its border a pixel of {shared}"
    _rewrite(model.graph, front, front.mean, marked=True, shift=0)
    return "layout: normalisation in the weights of the first convolution, a fourth channel marks the picture"


def _rewrite(graph: onnx.GraphProto, front: _Front, mean: NDArray[np.float64], *, marked: bool, shift: int) -> None:
    """The front without Div: weights take over `std` and `mean`, and Sub a shift that is left.

    Args:
        mean: of each channel, after the shift.
        marked: the mean is the weight of a fourth channel, instead of a part of the bias.
    """
    transpose, cast, *_, conv = (_copy(node) for node in front.nodes)
    kernel = front.kernel / front.std.reshape(1, -1, 1, 1)
    lost = (kernel * mean.reshape(1, -1, 1, 1)).sum(axis=1, keepdims=True)
    bias = front.bias
    nodes = [transpose, cast]
    value = cast.output[0]
    if marked:
        kernel = np.concatenate([kernel, -lost / FULL], axis=1)
        pads = add_constant(graph, "mark_pads", np.array([0, 0, 0, 0, 0, 0, 0, 1]))
        full = add_constant(graph, "mark_full", np.array(FULL, np.uint8))
        nodes.insert(0, helper.make_node("Pad", [transpose.input[0], pads, full], ["marked_pixels"], "mark"))
        transpose.input[0] = "marked_pixels"
    else:
        bias = bias - lost.sum(axis=(1, 2, 3))
    if shift:
        shifted = add_constant(graph, "pixel_shift", np.array(shift, np.float32))
        nodes.append(helper.make_node("Sub", [value, shifted], ["shifted_pixels"], "shift"))
        value = "shifted_pixels"
    del conv.input[:]
    conv.input.append(value)
    for part, array in (("kernel", kernel), ("bias", bias)):
        conv.input.append(add_constant(graph, f"{conv.output[0]}_normalised_{part}", array.astype(np.float32)))
    replace_nodes(graph, front.nodes, [*nodes, conv])
    drop_unused_constants(graph)


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copied = onnx.NodeProto()
    copied.CopyFrom(node)
    return copied


def _front(graph: onnx.GraphProto) -> _Front | None:
    constants = {tensor.name: tensor for tensor in graph.initializer}
    users = users_of(graph)
    outputs = {output.name for output in graph.output}
    value, nodes = picture_of(graph).value, []
    kinds = ["Transpose", "Cast", "Sub", "Div", "Conv"]
    while kinds:
        following = users[value]
        if len(following) != 1 or following[0].input[0] != value or value in outputs:
            return None
        while kinds and kinds[0] != following[0].op_type and kinds[0] in ("Sub", "Div"):
            kinds.pop(0)
        if kinds.pop(0) != following[0].op_type:
            return None
        nodes.append(following[0])
        value = following[0].output[0]
    transpose, _, *steps, conv = nodes
    if not steps or list(attributes(transpose)["perm"]) != [0, 3, 1, 2]:
        return None
    if any(name not in constants for node in (*steps, conv) for name in node.input[1:]):
        return None
    numbers = {node.op_type: _for_channels(constants[node.input[1]]) for node in steps}
    mean, std = numbers.get("Sub", np.zeros(3)), numbers.get("Div", np.ones(3))
    kernel = numpy_helper.to_array(constants[conv.input[1]]).astype(np.float64)
    if mean is None or std is None or kernel.shape[1] != 3 or attributes(conv).get("group", 1) != 1:
        return None
    is_automatic = attributes(conv).get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
    if is_automatic:
        return None
    bias = numpy_helper.to_array(constants[conv.input[2]]) if len(conv.input) > 2 else np.zeros(len(kernel))
    return _Front(nodes, mean, std, kernel, bias.astype(np.float64))


def _for_channels(tensor: onnx.TensorProto) -> NDArray[np.float64] | None:
    """A number for each of three channels, from 1 × 3 × 1 × 1 or a single one; None for other shapes."""
    array = numpy_helper.to_array(tensor).astype(np.float64)
    if array.size == 1:
        return np.full(3, array.item())
    return array.reshape(3) if array.size == 3 and array.shape[-2:] == (1, 1) else None
