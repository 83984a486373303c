"""A quantized file without what repeats itself; every output stays the same, bit by bit.

Quantization writes a zero point for every channel of every layer, nearly all of them 0, a scale for every
bias, which the scales around it say already, and names each tensor after the layer it came from: together an
eighth of the INT8 weights of CenterFace.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from lathe_compression.wiring import drop_unused_constants, rename_values, users_of

MAX_EXACT_BIAS = 1 << 22
"""A float32 below so many steps, rounded to whole steps, gives back the number that it was made from."""

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def compact(model: onnx.ModelProto) -> int:
    """Writes biases once, shares equal constants and shortens names, in place. Layers keep their names.

    Returns:
        The bytes that the file lost.
    """
    before = model.ByteSize()
    _write_biases_once(model.graph)
    _share_constants(model.graph)
    _shorten_names(model.graph)
    return before - model.ByteSize()


def _write_biases_once(graph: onnx.GraphProto) -> None:
    """Biases as float32. The runtime makes whole numbers of them, by the scales of pixels and weights."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    users = users_of(graph)
    for node in [node for node in graph.node if node.op_type == "DequantizeLinear"]:
        whole = constants.get(node.input[0])
        is_bias = all(user.op_type == "Conv" and user.input[2:] == node.output for user in users[node.output[0]])
        if whole is None or whole.data_type != onnx.TensorProto.INT32 or not is_bias:
            continue
        steps = numpy_helper.to_array(whole).astype(np.float64)
        if np.abs(steps).max() < MAX_EXACT_BIAS:
            bias = (steps * numpy_helper.to_array(constants[node.input[1]])).astype(np.float32)
            graph.initializer.append(numpy_helper.from_array(bias, node.output[0]))
            graph.node.remove(node)
    drop_unused_constants(graph)


def _share_constants(graph: onnx.GraphProto) -> None:
    """Of constants of the same type, shape and bytes one stays."""
    first: dict[bytes, str] = {}
    same: dict[str, str] = {}
    outputs = {output.name for output in graph.output}
    for tensor in graph.initializer:
        nameless = onnx.TensorProto()
        nameless.CopyFrom(tensor)
        nameless.ClearField("name")
        kept = first.setdefault(nameless.SerializeToString(deterministic=True), tensor.name)
        if kept != tensor.name and tensor.name not in outputs:
            same[tensor.name] = kept
    rename_values(graph, same)
    drop_unused_constants(graph)


def _shorten_names(graph: onnx.GraphProto) -> None:
    """Numbers for all values but the graph's own inputs and outputs; no names for Q and DQ nodes."""
    kept = {value.name for values in (graph.input, graph.output) for value in values}
    # Types and shapes of values between are what the runtime infers anyway.
    del graph.value_info[:]
    values = [*(tensor.name for tensor in graph.initializer), *(name for node in graph.node for name in node.output)]
    short: dict[str, str] = {}
    number = 0
    for name in values:
        if not name or name in kept or name in short:
            continue
        while (candidate := f"t{_base_36(number)}") in kept:
            number += 1
        short[name] = candidate
        number += 1
    rename_values(graph, short)
    for tensor in graph.initializer:
        tensor.name = short.get(tensor.name, tensor.name)
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.ClearField("name")


def _base_36(number: int) -> str:
    """
    >>> [_base_36(number) for number in (0, 35, 36)]
    ['0', 'z', '10']
    """
    digits = DIGITS[number % 36]
    return _base_36(number // 36) + digits if number >= 36 else digits
