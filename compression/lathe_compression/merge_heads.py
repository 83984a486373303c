"""One convolution for all heads of a detector, with a range of its own for every channel.

Quantized one by one, each head has a single scale for all its channels, and heads of few channels miss the
runtime's direct INT8 convolution, which wants 16. Merged, each channel is shifted and scaled to 0..1 inside
the convolution's weights, so that every one uses the whole uint8 range, and stretched back in float after it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from lathe_compression.activations import channel_ranges

CHANNELS_A_BLOCK = 16
FLOAT_NODES = ("heads_stretch", "heads_shift")
"""Nodes that must stay in float when the graph is quantized."""


def merge_heads(model: onnx.ModelProto, calibration: Sequence[NDArray[np.uint8]]) -> int:
    """Merges 1×1 convolutions that read one tensor and lead to outputs, in place; the network computes the same.

    Returns:
        How many became one; 0 where there are not at least two.
    """
    graph = model.graph
    heads = _heads(graph)
    if len(heads) < 2:
        return 0
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    names = [head.output[0] for head in heads]
    ranges = channel_ranges(model, names, calibration)
    low = np.concatenate([ranges[name][0] for name in names])
    span = np.concatenate([ranges[name][1] for name in names]) - low
    span[span <= 0] = 1.0
    kernel = np.concatenate([weights[head.input[1]] for head in heads]) / span.reshape(-1, 1, 1, 1)
    bias = (np.concatenate([weights[head.input[2]] for head in heads]) - low) / span
    sizes = [weights[head.input[1]].shape[0] for head in heads]
    if missing := -sum(sizes) % CHANNELS_A_BLOCK:
        kernel = np.concatenate([kernel, np.zeros((missing, *kernel.shape[1:]))])
        bias, low, span = (np.append(value, np.zeros(missing)) for value in (bias, low, span))
        sizes, names = [*sizes, missing], [*names, "heads_padding"]
    constants = {
        "heads_kernel": kernel.astype(np.float32),
        "heads_bias": bias.astype(np.float32),
        "heads_span": span.reshape(1, -1, 1, 1).astype(np.float32),
        "heads_low": low.reshape(1, -1, 1, 1).astype(np.float32),
        "heads_sizes": np.array(sizes, np.int64),
    }
    source = heads[0].input[0]
    merged = [
        helper.make_node("Conv", [source, "heads_kernel", "heads_bias"], ["heads_even"], "heads", kernel_shape=[1, 1]),
        helper.make_node("Mul", ["heads_even", "heads_span"], ["heads_stretched"], FLOAT_NODES[0]),
        helper.make_node("Add", ["heads_stretched", "heads_low"], ["heads_values"], FLOAT_NODES[1]),
        helper.make_node("Split", ["heads_values", "heads_sizes"], names, "heads_split", axis=1),
    ]
    _replace(graph, heads, merged, constants)
    return len(heads)


def _heads(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The largest group of plain 1×1 convolutions of one tensor whose results are outputs, or their sigmoids."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {output.name for output in graph.output}
    users: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            users[name].append(node)

    def leads_out(name: str) -> bool:
        following = users[name]
        is_squashed = len(following) == 1 and following[0].op_type == "Sigmoid" and following[0].output[0] in outputs
        return is_squashed or (name in outputs and not following)

    groups: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        is_conv = node.op_type == "Conv" and len(node.input) == 3 and all(name in constants for name in node.input[1:])
        if is_conv and _is_plain(node, constants[node.input[1]]) and leads_out(node.output[0]):
            groups[node.input[0]].append(node)
    return max(groups.values(), key=len, default=[])


def _is_plain(node: onnx.NodeProto, kernel: onnx.TensorProto) -> bool:
    settings = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return (
        list(kernel.dims[2:]) == [1, 1]
        and settings.get("group", 1) == 1
        and set(settings.get("strides", [1])) == {1}
        and not any(settings.get("pads", []))
    )


def _replace(
    graph: onnx.GraphProto, old: list[onnx.NodeProto], new: list[onnx.NodeProto], constants: dict[str, np.ndarray]
) -> None:
    at = list(graph.node).index(old[0])
    for node in old:
        graph.node.remove(node)
    for offset, node in enumerate(new):
        graph.node.insert(at + offset, node)
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
