"""Sends projections through the runtime's matrix kernel, which uses the processor's matrix unit where there is one.

ONNX Runtime has two ways for an INT8 1×1 convolution. Weights whose zero points are all 0 take the direct
convolution; any other weights take the matrix product, which has kernels for AMX. With many inputs and few
outputs the product is up to twice as fast there. One channel's weights moved up by one, and its zero point
with them, is the same number written differently.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from onnx import helper, numpy_helper

MIN_INPUTS, MIN_NARROWING = 144, 3
"""Projections with at least so many inputs, and so many times fewer outputs, gain: measured with AMX, each alone."""


def use_matrix_kernel(model: onnx.ModelProto) -> int:
    """Rewrites the weights of projections of a quantized graph in place; every output stays the same, bit by bit.

    Returns:
        How many were rewritten.
    """
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    uses = Counter(name for node in graph.node for name in node.input)
    dequantizers = {
        node.output[0]: node
        for node in graph.node
        if node.op_type == "DequantizeLinear" and len(node.input) == 3 and node.input[0] in tensors
    }
    count = 0
    for conv in graph.node:
        dequantizer = dequantizers.get(conv.input[1]) if conv.op_type == "Conv" else None
        if dequantizer is None or uses[dequantizer.input[0]] > 1 or uses[dequantizer.output[0]] > 1:
            continue
        weights = numpy_helper.to_array(tensors[dequantizer.input[0]])
        zero_points = numpy_helper.to_array(tensors[dequantizer.input[2]])
        if not _is_projection(conv, weights) or zero_points.shape != weights.shape[:1] or zero_points.any():
            continue
        room = np.flatnonzero(weights.max(axis=(1, 2, 3)) < np.iinfo(weights.dtype).max)
        if not len(room):
            continue
        moved, points = weights.copy(), zero_points.copy()
        moved[room[0]] += 1
        points[room[0]] = 1
        tensors[dequantizer.input[0]].CopyFrom(numpy_helper.from_array(moved, dequantizer.input[0]))
        name = f"{dequantizer.input[0]}_zero_points"  # channels of other weights may share the old ones
        graph.initializer.append(numpy_helper.from_array(points, name))
        dequantizer.input[2] = name
        count += 1
    return count


def _is_projection(conv: onnx.NodeProto, weights: np.ndarray) -> bool:
    groups = next((helper.get_attribute_value(a) for a in conv.attribute if a.name == "group"), 1)
    outputs, inputs, *sides = weights.shape
    return groups == 1 and sides == [1, 1] and inputs >= max(MIN_INPUTS, MIN_NARROWING * outputs)
