"""A rewrite, exact in real numbers, for first convolutions with a large kernel and no padding.

ONNX Runtime's direct INT8 convolution takes input channels in fours; of three it gathers patches, which for a kernel of
7×7 or 11×11 is most of the layer's time. Four neighbouring pixels of the N×H×W×3 input are twelve neighbouring bytes,
and so twelve channels, by a reshape that moves nothing. `regroup_stem` does the same for 3×3 kernels with padding.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import ceil

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from lathe_compression.crop_pixels import picture_of
from lathe_compression.int8_layout import PIXELS_A_GROUP
from lathe_compression.wiring import add_constant, attributes, drop_unused_constants, replace_nodes, users_of


@dataclass(frozen=True)
class _Stem:
    """Transpose → Cast → Conv → Relu, each for the next one alone.

    Attributes:
        kernel: O × 3 × rows × columns.
        stride: 2 or 4, both ways.
        width: of the input, in pixels.
    """

    nodes: list[onnx.NodeProto]
    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]
    stride: int
    width: int

    @property
    def taps(self) -> int:
        """Of the kernel, in a row."""
        return int(self.kernel.shape[3])

    @property
    def columns(self) -> int:
        """Of the output, in a row."""
        return (self.width - self.taps) // self.stride + 1

    @property
    def columns_a_group(self) -> int:
        """Of the output, that one step from group to group makes."""
        return PIXELS_A_GROUP // self.stride

    @property
    def groups(self) -> int:
        """That the kernel covers, for all the columns of a step."""
        pixels = self.taps + self.stride * (self.columns_a_group - 1)
        return ceil(pixels / PIXELS_A_GROUP)

    @property
    def needed_width(self) -> int:
        """Pixels of a row that the regrouped convolution takes to make the same columns and no more."""
        return PIXELS_A_GROUP * (self.columns // self.columns_a_group + self.groups - 1)


def regroup_wide_stem(model: onnx.ModelProto, kept: Collection[str] = ()) -> bool:
    """Lets a first convolution of stride 2 or 4 see four pixels at a time as twelve channels.

    With stride 4 a step from group to group makes one column of the output; with stride 2 it makes two, as twice as
    many channels, which another free reshape puts side by side. What a row has too few pixels for is filled up with
    zeros that have no weight, and what it has too many of is cut off.

    On a Zen 4 core, 150×150 pixels to 32 channels: 7×7 stride 2 from 0.30 to 0.17 ms, 11×11 stride 4 from 0.12 to 0.09.

    Applies to uint8 N×H×W×3 of a fixed width, or its crop → transpose → cast → Conv without padding → Relu.

    Args:
        kept: names of layers that stay in float; a stem among them stays as it is.

    Returns:
        Whether it applied.
    """
    graph = model.graph
    stem = _stem(graph, kept)
    if stem is None:
        return False
    transpose, cast, conv, relu = stem.nodes
    source, result, channels = picture_of(graph).value, relu.output[0], len(stem.kernel)
    nodes = []
    if extra := stem.needed_width - stem.width:
        pads = add_constant(graph, "stem_pads", np.array([0, 0, 0, 0, 0, 0, extra, 0]))
        nodes.append(helper.make_node("Pad", [source, pads], ["stem_row"], "stem_row"))
        source = "stem_row"
    to_groups = add_constant(graph, "stem_groups", np.array([0, 0, -1, 3 * PIXELS_A_GROUP]))
    kernel = add_constant(graph, "stem_kernel", _grouped(stem))
    bias = add_constant(graph, "stem_bias", np.tile(stem.bias, stem.columns_a_group))
    last = result if stem.columns_a_group == 1 else "stem_relu"
    nodes += [
        helper.make_node("Reshape", [source, to_groups], ["stem_grouped"], "stem_group"),
        helper.make_node("Transpose", ["stem_grouped"], ["stem_planes"], "stem_planes", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["stem_planes"], ["stem_float"], "stem_cast", to=onnx.TensorProto.FLOAT),
        helper.make_node(
            "Conv",
            ["stem_float", kernel, bias],
            ["stem_conv"],
            "stem_conv",
            kernel_shape=[stem.kernel.shape[2], stem.groups],
            strides=[stem.stride, 1],
        ),
        helper.make_node("Relu", ["stem_conv"], [last], "stem_relu"),
    ]
    if last != result:
        to_columns = add_constant(graph, "stem_columns", np.array([0, 0, -1, channels]))
        nodes += [
            helper.make_node("Transpose", [last], ["stem_rows"], "stem_rows", perm=[0, 2, 3, 1]),
            helper.make_node("Reshape", ["stem_rows", to_columns], ["stem_split"], "stem_split"),
            helper.make_node("Transpose", ["stem_split"], [result], "stem_result", perm=[0, 3, 1, 2]),
        ]
    replace_nodes(graph, [transpose, cast, conv, relu], nodes)
    drop_unused_constants(graph)
    return True


def _grouped(stem: _Stem) -> NDArray[np.float32]:
    """(columns a group · O) × 12 × rows × groups: the outputs of the first column of a step, then of the next."""
    channels, _, rows, taps = stem.kernel.shape
    grouped = np.zeros((stem.columns_a_group, channels, PIXELS_A_GROUP, 3, rows, stem.groups), np.float32)
    for column in range(stem.columns_a_group):
        for tap in range(taps):
            group, place = divmod(column * stem.stride + tap, PIXELS_A_GROUP)
            grouped[column, :, place, :, :, group] = stem.kernel[:, :, :, tap]
    return grouped.reshape(-1, PIXELS_A_GROUP * 3, rows, stem.groups)


def _stem(graph: onnx.GraphProto, kept: Collection[str]) -> _Stem | None:
    constants = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {output.name for output in graph.output}
    users = users_of(graph)
    picture = picture_of(graph)
    value, nodes = picture.value, []
    for kind in ("Transpose", "Cast", "Conv", "Relu"):
        following = users[value]
        if len(following) != 1 or following[0].op_type != kind or value in outputs:
            return None
        nodes.append(following[0])
        value = following[0].output[0]
    transpose, _, conv, _ = nodes
    settings = attributes(conv)
    stride = settings.get("strides", [1, 1])[0]
    is_plain = (
        list(attributes(transpose)["perm"]) == [0, 3, 1, 2]
        and list(settings.get("strides", [])) in ([2, 2], [4, 4])
        and not any(settings.get("pads", []))
        and settings.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
        and set(settings.get("dilations", [1])) == {1}
        and settings.get("group", 1) == 1
        and len(conv.input) == 3
        and all(name in constants for name in conv.input[1:])
        and conv.name not in kept
    )
    if not is_plain:
        return None
    kernel, bias = (numpy_helper.to_array(constants[name]) for name in conv.input[1:])
    stem = _Stem(nodes, kernel, bias, stride, picture.width)
    fits = kernel.shape[1] == 3 and stem.width >= stem.taps and stem.columns % stem.columns_a_group == 0
    return stem if fits else None
