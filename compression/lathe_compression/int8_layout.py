"""Rewrites, exact in real numbers, that let the runtime's INT8 kernels do what they are good at.

Each takes a model in place and says whether it applied.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from lathe_compression.int8_nodes import FUSED_ACTIVATIONS
from lathe_compression.wiring import add_constant, attributes, drop_unused_constants, replace_nodes, users_of

PIXELS_A_GROUP = 4


def regroup_stem(model: onnx.ModelProto, kept: Collection[str] = ()) -> bool:
    """Lets a stride-2 stem see four pixels at a time as twelve channels.

    ONNX Runtime's direct INT8 convolution takes input channels in fours; three channels fall back to
    gathering patches. In the N×H×W×3 layout of the input, four neighbouring pixels are already twelve
    neighbouring bytes, so a reshape that moves nothing turns a 3×3 stride-2 convolution of 3 channels
    into a 3×2 convolution of 12, stride 2 down and 1 across, whose outputs are two neighbouring columns:
    another free reshape. It has 2.7 times the multiplications and takes less than half the time
    (0.70 to 0.30 ms for 320×256 to 32 channels on Sapphire Rapids).

    Applies to uint8 N×H×W×3 → transpose → cast → Conv 3×3, stride 2, pad 1 → Relu, with the fourth channel or
    the shift that `fold_normalisation` leaves. The width must be a multiple of 4.

    Args:
        kept: names of layers that stay in float; a stem among them stays as it is.
    """
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    users = users_of(graph)
    front = users[graph.input[0].name]
    marks = front[:1] if len(front) == 1 and front[0].op_type == "Pad" else []
    first = marks[0].output[0] if marks else graph.input[0].name
    path = _path_from(first, graph, users, ["Transpose", "Cast", "Conv", "Relu"])
    shifted = _path_from(first, graph, users, ["Transpose", "Cast", "Sub", "Conv", "Relu"])
    if path is None and shifted is None:
        return False
    transpose, cast, *shift, conv, relu = path or shifted or []
    settings = attributes(conv)
    has_own_weights = len(conv.input) == 3 and all(name in weights and len(users[name]) == 1 for name in conv.input[1:])
    if not has_own_weights or conv.name in kept:
        return False
    kernel = weights[conv.input[1]]
    is_stem = (
        list(kernel.dims[1:]) == [4 if marks else 3, 3, 3]
        and list(attributes(transpose)["perm"]) == [0, 3, 1, 2]
        and list(settings.get("strides", [])) == [2, 2]
        and list(settings.get("pads", [])) == [1, 1, 1, 1]
        and settings.get("group", 1) == 1
        and list(settings.get("dilations", [1, 1])) == [1, 1]
    )
    if not is_stem:
        return False
    channels_out = kernel.dims[0]
    kernel.CopyFrom(numpy_helper.from_array(_grouped_kernel(numpy_helper.to_array(kernel)), kernel.name))
    bias = weights[conv.input[2]]
    bias.CopyFrom(numpy_helper.from_array(np.tile(numpy_helper.to_array(bias), 2), bias.name))
    to_groups = add_constant(graph, "stem_groups", np.array([0, 0, -1, 3 * PIXELS_A_GROUP]))
    to_columns = add_constant(graph, "stem_columns", np.array([0, 0, -1, channels_out]))
    source, result = graph.input[0].name, relu.output[0]
    planes = "stem_marked" if marks else "stem_grouped"
    marked = []
    if marks:
        pads = add_constant(graph, "stem_pads", np.array([0] * 7 + [PIXELS_A_GROUP]))
        marked.append(helper.make_node("Pad", ["stem_grouped", pads, marks[0].input[2]], [planes], "stem_mark"))
    nodes = [
        helper.make_node("Reshape", [source, to_groups], ["stem_grouped"], "stem_group"),
        *marked,
        helper.make_node("Transpose", [planes], ["stem_planes"], "stem_planes", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["stem_planes"], ["stem_float"], "stem_cast", to=onnx.TensorProto.FLOAT),
        *(helper.make_node("Sub", ["stem_float", node.input[1]], ["stem_shifted"], "stem_shift") for node in shift),
        helper.make_node(
            "Conv",
            ["stem_shifted" if shift else "stem_float", kernel.name, bias.name],
            ["stem_conv"],
            "stem_conv",
            kernel_shape=[3, 2],
            strides=[2, 1],
            pads=[1, 1, 1, 0],
        ),
        helper.make_node("Relu", ["stem_conv"], ["stem_relu"], "stem_relu"),
        helper.make_node("Transpose", ["stem_relu"], ["stem_rows"], "stem_rows", perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["stem_rows", to_columns], ["stem_split"], "stem_split"),
        helper.make_node("Transpose", ["stem_split"], [result], "stem_result", perm=[0, 3, 1, 2]),
    ]
    replace_nodes(graph, [*marks, transpose, cast, *shift, conv, relu], nodes)
    return True


def _grouped_kernel(kernel: np.ndarray) -> np.ndarray:
    """O×3×3×3 for single pixels to 2·O×12×3×2 for groups of four; outputs are even, then odd columns.

    A fourth input channel, which is the same in every pixel, becomes four more of each group that share its weights.
    """
    channels_out, channels_in = kernel.shape[:2]
    grouped = np.zeros((2 * channels_out, channels_in * PIXELS_A_GROUP, 3, 2), kernel.dtype)
    for column in range(2):
        rows = slice(column * channels_out, (column + 1) * channels_out)
        for tap in range(3):
            pixel = 2 * column + tap - 1  # within the group; −1 is the last pixel of the group before
            group, place = (0, PIXELS_A_GROUP - 1) if pixel < 0 else (1, pixel)
            grouped[rows, 3 * place : 3 * place + 3, :, group] = kernel[:, :3, :, tap]
            grouped[rows, 3 * PIXELS_A_GROUP :, :, group] += kernel[:, 3:, :, tap] / PIXELS_A_GROUP
    return grouped


def upsample_by_convolution(model: onnx.ModelProto) -> int:
    """Makes a 1×1 convolution and moves of each transposed convolution whose patches do not overlap.

    ONNX Runtime has no INT8 ConvTranspose: the float one, with a conversion on each side, takes most of the time
    of an upsampling path. Where the kernel is as large as the stride, every input cell becomes a patch by
    itself: a 1×1 convolution computes all the cells of the patches as channels, and a transposition of whole
    rows of them puts them in their places (the sub-pixel convolution of Shi et al., arXiv 1609.05158, whose
    operator DepthToSpace is slower here than the transposition; 130 to 60 µs for 40×32 cells of 24 channels to
    twice the size). A Relu or Clip that takes the result alone goes before the moves, where the INT8 convolution
    does it by the way.

    Applies to ConvTranspose of two dimensions, one group, no padding, kernel = stride.

    Returns:
        To how many it applied.
    """
    graph = model.graph
    found = [node for node in graph.node if _is_patchwise(node, graph)]
    if not found:
        return 0
    source = graph.input[0].name
    graph.node.insert(0, helper.make_node("Shape", [source], ["upsample_batch"], "upsample_batch", start=0, end=1))
    for node in found:
        _upsample(graph, node)
    drop_unused_constants(graph)
    return len(found)


def _is_patchwise(node: onnx.NodeProto, graph: onnx.GraphProto) -> bool:
    weights = {tensor.name: tensor for tensor in graph.initializer}
    if node.op_type != "ConvTranspose" or not all(name in weights for name in node.input[1:]):
        return False
    settings, sides = attributes(node), list(weights[node.input[1]].dims[2:])
    return (
        len(sides) == 2
        and list(settings.get("strides", [])) == sides
        and settings.get("group", 1) == 1
        and not any(settings.get("pads", []))
        and not any(settings.get("output_padding", []))
        and "output_shape" not in settings
        and settings.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
        and set(settings.get("dilations", [1])) == {1}
    )


def _upsample(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    outputs = {output.name for output in graph.output}
    kernel, prefix, old = weights[node.input[1]], f"{node.name}_patches", [node]
    channels_in, channels_out, rows, columns = kernel.shape
    patches = kernel.transpose(2, 3, 1, 0).reshape(-1, channels_in, 1, 1)
    inputs = [node.input[0], add_constant(graph, f"{prefix}_kernel", np.ascontiguousarray(patches))]
    if len(node.input) == 3:
        inputs.append(add_constant(graph, f"{prefix}_bias", np.tile(weights[node.input[2]], rows * columns)))
    nodes = [helper.make_node("Conv", inputs, [prefix], node.name, kernel_shape=[1, 1])]

    def then(kind: str, name: str, *shape: str, **settings: Any) -> None:
        last = nodes[-1].output[0]
        nodes.append(helper.make_node(kind, [last, *shape], [f"{prefix}_{name}"], f"{prefix}_{name}", **settings))

    def sizes(name: str, *values: int) -> str:
        return add_constant(graph, f"{prefix}_{name}", np.array(values))

    next_, *others = [*users_of(graph)[node.output[0]], None]
    alone = others == [None] and node.output[0] not in outputs
    if next_ and alone and next_.op_type in FUSED_ACTIVATIONS and all(name in weights for name in next_.input[1:]):
        old.append(next_)
        then(next_.op_type, "activated", *next_.input[1:], **attributes(next_))
    # The shapes in the comments are of N×H×W cells, in patches of r×c cells of C channels.
    then("Transpose", "cells", perm=[0, 2, 3, 1])  # N, H, W, r·c·C
    then("Flatten", "flat", axis=2)  # N·H, W·r·c·C
    then("Reshape", "apart", sizes("apart_sizes", 0, -1, rows, columns * channels_out))  # N·H, W, r, c·C
    then("Transpose", "rows", perm=[0, 2, 1, 3])  # N·H, r, W, c·C
    then("Reshape", "wide", sizes("wide_sizes", 0, 0, -1, channels_out))  # N·H, r, W·c, C
    rest = sizes("rest", -1, 0, channels_out)
    shape = helper.make_node("Concat", ["upsample_batch", rest], [f"{prefix}_sizes"], f"{prefix}_sizes", axis=0)
    then("Reshape", "whole", shape.output[0])  # N, H·r, W·c, C
    then("Transpose", "planes", perm=[0, 3, 1, 2])
    nodes[-1].output[0] = old[-1].output[0]
    replace_nodes(graph, old, [shape, *nodes])


def pixel_quantization(model: onnx.ModelProto) -> dict[str, int]:
    """The zero point, with scale 1, of each tensor that holds bytes as they are, or bytes less a whole number."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    users = users_of(model.graph)
    points: dict[str, int] = {}
    for cast in (node for node in model.graph.node if node.op_type == "Cast"):
        for user in users[cast.output[0]]:
            if user.op_type == "Conv":
                points[cast.output[0]] = 0
            elif user.op_type == "Sub" and (shift := constants.get(user.input[1])) is not None and _is_byte(shift):
                points[user.output[0]] = int(shift.item())
    return points


def feed_pixels_directly(model: onnx.ModelProto) -> bool:
    """Takes the uint8 pixels as the quantized input of the first convolution, which they are.

    A quantized graph casts pixels to float and quantizes them again with scale 1: an identity, which this removes.
    So does one that takes the zero point of that quantization off the pixels first.

    Applies where nothing else lies between the cast and that quantization: no normalisation in the graph.
    """
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    users = users_of(graph)
    for cast in [node for node in graph.node if node.op_type == "Cast"]:
        path, shift = [cast], 0
        following = users[cast.output[0]]
        is_shifted = len(following) == 1 and following[0].op_type == "Sub"
        if is_shifted and (value := constants.get(following[0].input[1])) is not None and _is_byte(value):
            path.append(following[0])
            shift = int(value.item())
            following = users[following[0].output[0]]
        is_identity = len(following) == 1 and (
            following[0].op_type == "QuantizeLinear"
            and constants[following[0].input[1]] == 1.0
            and constants[following[0].input[2]] == shift
        )
        if not is_identity:
            continue
        for dequantizer in users[following[0].output[0]]:
            dequantizer.input[0] = cast.input[0]
        for node in [*path, following[0]]:
            graph.node.remove(node)
        return True
    return False


def _is_byte(value: np.ndarray) -> bool:
    return value.size == 1 and value.item() in range(256)


def _path_from(
    value: str, graph: onnx.GraphProto, users: dict[str, list[onnx.NodeProto]], kinds: list[str]
) -> list[onnx.NodeProto] | None:
    """The nodes of these kinds that follow a value one by one, for nobody else; or None."""
    path: list[onnx.NodeProto] = []
    outputs = {output.name for output in graph.output}
    for kind in kinds:
        following = users.get(value, [])
        if len(following) != 1 or following[0].op_type != kind or value in outputs:
            return None
        path.append(following[0])
        value = following[0].output[0]
    return path
