"""One convolution for all heads of a detector, with a range of its own for every channel.

Quantized one by one, each head has a single scale for all its channels, and heads of few channels miss the
runtime's direct INT8 convolution, which wants 16. Merged, each channel is shifted and scaled to 0..1 inside
the convolution's weights, so that every one uses the whole uint8 range, and stretched back in float after it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from lathe_compression.activations import channel_ranges
from lathe_compression.ranges import uint8_ends
from lathe_compression.wiring import add_constant, attributes, drop_unused_constants, replace_nodes, users_of

CHANNELS_A_BLOCK = 16
MERGED = "heads_even"
"""The merged convolution's result: every channel from 0 to 1."""


def merge_heads(
    model: onnx.ModelProto,
    calibration: Sequence[NDArray[np.uint8]],
    known: Mapping[str, tuple[float, float]] | None = None,
    kept: Collection[str] = (),
) -> int:
    """Merges 1×1 convolutions that read one tensor and lead to outputs, in place; the network computes the same.

    Args:
        known: lowest and highest value of heads' results that calibration need not find; then every channel
            of the head has the 256 values that uint8 gives this range.
        kept: names of layers that stay in float, by themselves.

    Returns:
        How many became one; 0 where there are not at least two.
    """
    graph = model.graph
    known = known or {}
    heads = _heads(graph, kept)
    if len(heads) < 2:
        return 0
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    names = [head.output[0] for head in heads]
    ranges = channel_ranges(model, [name for name in names if name not in known], calibration)
    for head, name in zip(heads, names, strict=True):
        if name in known:
            channels = weights[head.input[1]].shape[0]
            low_high = (np.full(channels, end, np.float32) for end in uint8_ends(*known[name]))
            ranges[name] = (next(low_high), next(low_high))
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
        helper.make_node("Conv", [source, "heads_kernel", "heads_bias"], [MERGED], "heads", kernel_shape=[1, 1]),
        helper.make_node("Mul", [MERGED, "heads_span"], ["heads_stretched"], "heads_stretch"),
        helper.make_node("Add", ["heads_stretched", "heads_low"], ["heads_values"], "heads_shift"),
        helper.make_node("Split", ["heads_values", "heads_sizes"], names, "heads_split", axis=1),
    ]
    replace_nodes(graph, heads, merged)
    for name, value in constants.items():
        add_constant(graph, name, value)
    drop_unused_constants(graph)
    return len(heads)


def head_results(model: onnx.ModelProto, kept: Collection[str] = ()) -> list[str]:
    """What the heads give, where they are not merged: tensors whose few peaks are the detections."""
    return [head.output[0] for head in _heads(model.graph, kept)]


def _heads(graph: onnx.GraphProto, kept: Collection[str]) -> list[onnx.NodeProto]:
    """The largest group of plain 1×1 convolutions of one tensor whose results are outputs, or their sigmoids."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {output.name for output in graph.output}
    users = users_of(graph)

    def leads_out(name: str) -> bool:
        following = users[name]
        is_squashed = len(following) == 1 and following[0].op_type == "Sigmoid" and following[0].output[0] in outputs
        return is_squashed or (name in outputs and not following)

    groups: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        is_conv = node.op_type == "Conv" and len(node.input) == 3 and all(name in constants for name in node.input[1:])
        if not is_conv or node.name in kept:
            continue
        if _is_plain(node, constants[node.input[1]]) and leads_out(node.output[0]):
            groups[node.input[0]].append(node)
    return max(groups.values(), key=len, default=[])


def _is_plain(node: onnx.NodeProto, kernel: onnx.TensorProto) -> bool:
    settings = attributes(node)
    return (
        list(kernel.dims[2:]) == [1, 1]
        and settings.get("group", 1) == 1
        and set(settings.get("strides", [1])) == {1}
        and not any(settings.get("pads", []))
    )
