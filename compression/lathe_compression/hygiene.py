"""Passes that make a graph run as fast as its arithmetic allows, without changing what it computes.

Their gain is not compression's: a variant's speed is quoted against the clean FP32 graph.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from onnx import numpy_helper


def clean(model: onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    """A copy with every pass applied, and a sentence for its lineage."""
    cleaned = onnx.ModelProto()
    cleaned.CopyFrom(model)
    constants = weights_are_constants(cleaned)
    norms = fold_batch_norms(cleaned)
    return cleaned, f"hygiene: {constants} weights made constants, {norms} batch norms folded"


def weights_are_constants(model: onnx.ModelProto) -> int:
    """Takes weights off the list of graph inputs, where they count as variable and stop every fusion.

    On CenterFace as shipped this alone is worth a factor of 1.9.

    Returns:
        How many there were.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    removed = len(model.graph.input) - len(inputs)
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 4)
    return removed


def fold_batch_norms(model: onnx.ModelProto) -> int:
    """Folds BatchNormalization into the Conv or ConvTranspose before it (Jacob et al., arXiv 1712.05877, 3.2).

    The runtime does so for Conv only, and quantization must see the folded weights in any case.

    Returns:
        How many were folded.
    """
    graph = model.graph
    folded = 0
    weights = {tensor.name: tensor for tensor in graph.initializer}
    consumers = Counter(name for node in graph.node for name in node.input)
    consumers.update(output.name for output in graph.output)
    producers = {name: node for node in graph.node for name in node.output}
    for norm in [node for node in graph.node if node.op_type == "BatchNormalization"]:
        conv = producers.get(norm.input[0])
        foldable = (
            conv is not None
            and conv.op_type in ("Conv", "ConvTranspose")
            and consumers[norm.input[0]] == 1
            and all(name in weights for name in (*conv.input[1:], *norm.input[1:]))
            and consumers[conv.input[1]] == 1
        )
        if conv is None or not foldable:
            continue
        scale, shift, mean, variance = (numpy_helper.to_array(weights[name]) for name in norm.input[1:5])
        epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-5)
        factor = scale / np.sqrt(variance + epsilon)
        kernel = numpy_helper.to_array(weights[conv.input[1]])
        bias = numpy_helper.to_array(weights[conv.input[2]]) if len(conv.input) > 2 else np.zeros_like(shift)
        _replace(weights[conv.input[1]], kernel * _along_outputs(factor, conv, kernel))
        folded_bias = numpy_helper.from_array(
            ((bias - mean) * factor + shift).astype(kernel.dtype), conv.output[0] + "_folded_bias"
        )
        graph.initializer.append(folded_bias)
        del conv.input[2:]
        conv.input.append(folded_bias.name)
        conv.output[0] = norm.output[0]
        graph.node.remove(norm)
        folded += 1
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return folded


def _along_outputs(factor: np.ndarray, conv: onnx.NodeProto, kernel: np.ndarray) -> np.ndarray:
    """The factor of each output channel, shaped to multiply the kernel."""
    if conv.op_type == "Conv":  # outputs, inputs / groups, height, width
        return factor.reshape(-1, 1, 1, 1)
    groups = next((a.i for a in conv.attribute if a.name == "group"), 1)
    per_group = factor.reshape(groups, 1, -1)  # inputs, outputs / groups, height, width
    return np.repeat(per_group, kernel.shape[0] // groups, axis=1).reshape(kernel.shape[0], -1, 1, 1)


def _replace(tensor: onnx.TensorProto, value: np.ndarray) -> None:
    tensor.CopyFrom(numpy_helper.from_array(value.astype(numpy_helper.to_array(tensor).dtype), tensor.name))
