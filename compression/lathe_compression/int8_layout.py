"""Rewrites, exact in real numbers, that let the runtime's INT8 kernels do what they are good at.

Each takes a model in place and says whether it applied.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

PIXELS_A_GROUP = 4


def regroup_stem(model: onnx.ModelProto) -> bool:
    """Lets a stride-2 stem see four pixels at a time as twelve channels.

    ONNX Runtime's direct INT8 convolution takes input channels in fours; three channels fall back to
    gathering patches. In the N×H×W×3 layout of the input, four neighbouring pixels are already twelve
    neighbouring bytes, so a reshape that moves nothing turns a 3×3 stride-2 convolution of 3 channels
    into a 3×2 convolution of 12, stride 2 down and 1 across, whose outputs are two neighbouring columns:
    another free reshape. It has 2.7 times the multiplications and takes less than half the time
    (0.70 to 0.30 ms for 320×256 to 32 channels on Sapphire Rapids).

    Applies to uint8 N×H×W×3 → transpose → cast → Conv 3×3, stride 2, pad 1 → Relu. The width must be a
    multiple of 4.
    """
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    users = _users(graph)
    path = _path_from_input(graph, users, ["Transpose", "Cast", "Conv", "Relu"])
    if path is None:
        return False
    transpose, cast, conv, relu = path
    settings = _attributes(conv)
    has_own_weights = len(conv.input) == 3 and all(name in weights and len(users[name]) == 1 for name in conv.input[1:])
    if not has_own_weights:
        return False
    kernel = weights[conv.input[1]]
    is_stem = (
        list(kernel.dims[1:]) == [3, 3, 3]
        and list(_attributes(transpose)["perm"]) == [0, 3, 1, 2]
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
    to_groups = _whole_numbers(graph, "stem_groups", [0, 0, -1, 3 * PIXELS_A_GROUP])
    to_columns = _whole_numbers(graph, "stem_columns", [0, 0, -1, channels_out])
    source, result = transpose.input[0], relu.output[0]
    nodes = [
        helper.make_node("Reshape", [source, to_groups], ["stem_grouped"], "stem_group"),
        helper.make_node("Transpose", ["stem_grouped"], ["stem_planes"], "stem_planes", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["stem_planes"], ["stem_float"], "stem_cast", to=onnx.TensorProto.FLOAT),
        helper.make_node(
            "Conv",
            ["stem_float", kernel.name, bias.name],
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
    _replace(graph, [transpose, cast, conv, relu], nodes)
    return True


def _grouped_kernel(kernel: np.ndarray) -> np.ndarray:
    """O×3×3×3 for single pixels to 2·O×12×3×2 for groups of four; outputs are even, then odd columns."""
    channels_out = kernel.shape[0]
    grouped = np.zeros((2 * channels_out, 3 * PIXELS_A_GROUP, 3, 2), kernel.dtype)
    for column in range(2):
        rows = slice(column * channels_out, (column + 1) * channels_out)
        for tap in range(3):
            pixel = 2 * column + tap - 1  # within the group; −1 is the last pixel of the group before
            group, place = (0, PIXELS_A_GROUP - 1) if pixel < 0 else (1, pixel)
            grouped[rows, 3 * place : 3 * place + 3, :, group] = kernel[:, :, :, tap]
    return grouped


def feed_pixels_directly(model: onnx.ModelProto) -> bool:
    """Takes the uint8 pixels as the quantized input of the first convolution, which they are.

    A quantized graph casts pixels to float and quantizes them again with scale 1 and zero point 0: an
    identity, which this removes.

    Applies where nothing lies between the cast and that quantization: no normalisation in the graph.
    """
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    users = _users(graph)
    for cast in [node for node in graph.node if node.op_type == "Cast"]:
        quantizers = users[cast.output[0]]
        is_identity = len(quantizers) == 1 and (
            quantizers[0].op_type == "QuantizeLinear"
            and constants[quantizers[0].input[1]] == 1.0
            and constants[quantizers[0].input[2]] == 0
        )
        if not is_identity:
            continue
        for dequantizer in users[quantizers[0].output[0]]:
            dequantizer.input[0] = cast.input[0]
        graph.node.remove(quantizers[0])
        graph.node.remove(cast)
        return True
    return False


def _path_from_input(
    graph: onnx.GraphProto, users: dict[str, list[onnx.NodeProto]], kinds: list[str]
) -> list[onnx.NodeProto] | None:
    """The nodes of these kinds that follow the graph's input one by one, for nobody else; or None."""
    value, path = graph.input[0].name, []
    outputs = {output.name for output in graph.output}
    for kind in kinds:
        following = users.get(value, [])
        if len(following) != 1 or following[0].op_type != kind or value in outputs:
            return None
        path.append(following[0])
        value = following[0].output[0]
    return path


def _users(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    users: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            users[name].append(node)
    return users


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _whole_numbers(graph: onnx.GraphProto, name: str, values: list[int]) -> str:
    graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
    return name


def _replace(graph: onnx.GraphProto, old: list[onnx.NodeProto], new: list[onnx.NodeProto]) -> None:
    at = list(graph.node).index(old[0])
    for node in old:
        graph.node.remove(node)
    for offset, node in enumerate(new):
        graph.node.insert(at + offset, node)
