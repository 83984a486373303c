"""Layers that stay in float among INT8 ones, written so that the runtime leaves them so.

ONNX Runtime quantizes by itself the float weights of every Conv that lies between a DequantizeLinear and a
QuantizeLinear (its pass WeightBiasQuantization): for a whole tensor at once, which loses more than the scales
for each channel would have. Its own operator FusedConv computes the same, and that pass does not look at it.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx
from onnx import helper

from lathe_compression.wiring import replace_nodes, users_of

RUNTIME_DOMAIN = "com.microsoft"


def hold_in_float(model: onnx.ModelProto, kept: Collection[str]) -> int:
    """Turns the named convolutions into FusedConv in place, each with the Relu that takes its result alone.

    Returns:
        How many there were.
    """
    graph = model.graph
    users = users_of(graph)
    outputs = {output.name for output in graph.output}
    convs = [node for node in graph.node if node.op_type == "Conv" and node.name in kept]
    for conv in convs:
        held = onnx.NodeProto()
        held.CopyFrom(conv)
        held.op_type, held.domain = "FusedConv", RUNTIME_DOMAIN
        following = users[conv.output[0]]
        old = [conv]
        if len(following) == 1 and following[0].op_type == "Relu" and conv.output[0] not in outputs:
            held.attribute.append(helper.make_attribute("activation", "Relu"))
            held.output[0] = following[0].output[0]
            old.append(following[0])
        replace_nodes(graph, old, [held])
    if convs and all(opset.domain != RUNTIME_DOMAIN for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid(RUNTIME_DOMAIN, 1))
    return len(convs)
