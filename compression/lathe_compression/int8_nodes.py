"""Which nodes of a float graph become INT8: everything between multiplications, nothing behind the last one.

A chain stays in INT8 from one multiplication to the next, or each step in float would cost a conversion
there and back. What follows the last one is the decoding of a detector's answer, where coordinates and small
scores need float, and where there is little to gain.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

import onnx

from lathe.config import nearest
from lathe.errors import InvalidInput
from lathe_compression.wiring import users_of

MULTIPLICATIONS = ("Conv", "Gemm", "MatMul")
OF_ONE_TENSOR = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split", "Resize")
"""What these take besides the first input are sizes and places, which are never quantized."""
JOINS = ("Concat", "Add", "Mul", "MaxPool", "AveragePool", "GlobalAveragePool")
ACTIVATIONS = ("Relu", "Clip", "LeakyRelu", "Sigmoid")
OPERATORS = (*MULTIPLICATIONS, *OF_ONE_TENSOR, *JOINS, *ACTIVATIONS)
"""Those with INT8 kernels in ONNX Runtime. ConvTranspose has none."""

FUSED_ACTIVATIONS = ("Relu", "Clip")
"""Those that a quantized convolution does by the range of its result."""


def matching_layers(graph: onnx.GraphProto, patterns: Sequence[str]) -> frozenset[str]:
    """The names of the layers that match any of some names or glob patterns.

    Raises:
        InvalidInput: a pattern that nothing matches.
    """
    names = [node.name for node in graph.node if node.op_type in (*MULTIPLICATIONS, "ConvTranspose")]
    matching = {
        pattern: {name for name in names if name == pattern or fnmatchcase(name, pattern)} for pattern in patterns
    }
    for pattern, found in matching.items():
        if not found:
            raise InvalidInput(f'no layer is named "{pattern}"{nearest(pattern, names)}')
    return frozenset(name for found in matching.values() for name in found)


def int8_nodes(graph: onnx.GraphProto, kept: Collection[str] = ()) -> list[str]:
    """The names of the nodes to quantize.

    Multiplications are, but those that are kept in float. A Relu goes with the convolution before it. Any other
    node is where INT8 multiplications lie both before and behind it.

    Args:
        graph: every node has a name of its own, and comes after those that it takes values from.
        kept: names of multiplications that stay in float.
    """
    users = users_of(graph)
    outputs = {output.name for output in graph.output}
    producers = {name: node for node in graph.node for name in node.output}

    def is_int8(node: onnx.NodeProto) -> bool:
        return node.op_type in MULTIPLICATIONS and node.name not in kept

    def meets(nodes: Sequence[onnx.NodeProto], found: set[str]) -> bool:
        """Whether one is an INT8 multiplication, or no multiplication at all and leads to one."""
        return any(is_int8(node) or (node.op_type not in MULTIPLICATIONS and node.name in found) for node in nodes)

    before: set[str] = set()
    for node in graph.node:
        if meets([producers[name] for name in node.input if name in producers], before):
            before.add(node.name)
    behind: set[str] = set()
    for node in reversed(graph.node):
        if meets([user for name in node.output for user in users[name]], behind):
            behind.add(node.name)

    def belongs(node: onnx.NodeProto) -> bool:
        if node.op_type in MULTIPLICATIONS:
            return is_int8(node)
        source = producers.get(node.input[0]) if node.input else None
        is_alone = source is not None and len(users[node.input[0]]) == 1 and node.input[0] not in outputs
        if source is not None and source.op_type == "Conv" and node.op_type in FUSED_ACTIVATIONS and is_alone:
            return is_int8(source)
        return node.op_type in OPERATORS and node.name in before & behind

    return [node.name for node in graph.node if belongs(node)]
