"""Passes that make a graph run as fast as its arithmetic allows, without changing what it computes.

Their gain is not compression's: a variant's speed is quoted against the clean FP32 graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from lathe_compression.crop_pixels import crop_pixels
from lathe_compression.wiring import add_constant, attributes, drop_unused_constants, replace_nodes, users_of

LARGEST_FOLDED = 1 << 20
"""Elements of a folded constant at most, unless it was as large before: larger ones cost more in the file than
their node at run time."""

NEVER_FOLDED = (
    *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"),
    *("QuantizeLinear", "DequantizeLinear"),
)
"""Those that give something else each time, and those whose place in the graph is what they are for."""


def clean(model: onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    """A copy with every pass applied, and a sentence for its lineage."""
    cleaned = onnx.ModelProto()
    cleaned.CopyFrom(model)
    weights = weights_are_constants(cleaned)
    constants = fold_constants(cleaned)
    norms = fold_batch_norms(cleaned)
    prelus = prelu_as_arithmetic(cleaned)
    cropped = crop_pixels(cleaned)
    told = f"hygiene: {weights} weights made constants, {norms} batch norms folded"
    told += f", {constants} constant nodes folded" if constants else ""
    told += f", {prelus} PReLUs written as arithmetic" if prelus else ""
    told += ", pixels cut before they are planes" if cropped else ""
    return cleaned, told


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


def fold_constants(model: onnx.ModelProto) -> int:
    """Replaces nodes that take nothing but constants by what they give.

    Exporters leave chains of Shape, Gather, Cast and Constant behind. The runtime folds them at every start;
    the passes that look for weights look among the constants alone. Free dimensions stay free.

    Returns:
        How many were folded.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {output.name for output in graph.output}
    folded = 0
    for node in list(graph.node):
        taken = [name for name in node.input if name]
        if any(name not in constants for name in taken) or outputs & set(node.output) or not _may_fold(node, taken):
            continue
        results = _results(node, [constants[name] for name in taken], model)
        if results is None:
            continue
        for name, result in zip(node.output, results, strict=True):
            if name:
                constants[name] = numpy_helper.from_array(result, name)
                graph.initializer.append(constants[name])
        graph.node.remove(node)
        folded += 1
    if folded:
        drop_unused_constants(graph)
    return folded


def prelu_as_arithmetic(model: onnx.ModelProto) -> int:
    """Writes PReLU with constant slopes a as a·x + (1 − a)·relu(x), equal to rounding.

    The runtime's own kernel is slow: with onnxruntime 1.32 on one thread of a Sapphire Rapids core the rewritten
    operator takes 0.20 to 0.32 of its time, and four inverted residuals of 48 to 128 channels 0.30 to 0.47.

    Returns:
        How many were rewritten.
    """
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    prelus = [node for node in graph.node if node.op_type == "PRelu" and node.input[1] in constants]
    for node in prelus:
        value, given = node.input[0], node.output[0]
        slope = constants[node.input[1]]
        rest = add_constant(graph, f"{given}_rest", (1 - slope).astype(slope.dtype))
        parts = [
            helper.make_node("Mul", [value, node.input[1]], [f"{given}_line"], f"{given}_scale_line"),
            helper.make_node("Relu", [value], [f"{given}_positive"], f"{given}_rectify"),
            helper.make_node("Mul", [f"{given}_positive", rest], [f"{given}_bend"], f"{given}_scale_bend"),
            helper.make_node("Add", [f"{given}_line", f"{given}_bend"], [given], f"{given}_join"),
        ]
        replace_nodes(graph, [node], parts)
    return len(prelus)


def prelu_as_convolutions(model: onnx.ModelProto, kept: Collection[str] = ()) -> int:
    """Writes PReLU, also where `prelu_as_arithmetic` has been, as two depthwise 1×1 convolutions and their sum.

    For graphs that are to be INT8: the same four inverted residuals take 0.82 to 0.88 of the quantized arithmetic's
    time, and 0.29 to 0.31 of a quantized graph's that keeps PReLU. In float it is no faster than the arithmetic, so
    `clean` leaves it to the INT8 path.

    Args:
        kept: names of layers that stay in float; a PReLU of what one of them gives stays arithmetic, in float too.

    Returns:
        How many were rewritten: those over height and width whose number of channels is known, from the slopes
        or from a convolution before.
    """
    prelu_as_arithmetic(model)
    graph = model.graph
    in_float = {name for node in graph.node if node.name in kept for name in node.output}
    found = [prelu for prelu in _written_prelus(graph) if prelu.values[0] not in in_float]
    for prelu in found:
        channels = len(prelu.slopes)
        for scale, slopes in ((prelu.line, prelu.slopes), (prelu.bend, 1 - prelu.slopes)):
            kernel = add_constant(graph, f"{scale.output[0]}_kernel", slopes.reshape(-1, 1, 1, 1).astype(np.float32))
            value = scale.input[0] if scale.input[0] in prelu.values else scale.input[1]
            conv = helper.make_node(
                "Conv", [value, kernel], list(scale.output), scale.name, group=channels, kernel_shape=[1, 1]
            )
            replace_nodes(graph, [scale], [conv])
    if found:
        drop_unused_constants(graph)
    return len(found)


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
        epsilon = attributes(norm).get("epsilon", 1e-5)
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
    drop_unused_constants(graph)
    return folded


def _along_outputs(factor: np.ndarray, conv: onnx.NodeProto, kernel: np.ndarray) -> np.ndarray:
    """The factor of each output channel, shaped to multiply the kernel."""
    if conv.op_type == "Conv":  # outputs, inputs / groups, height, width
        return factor.reshape(-1, 1, 1, 1)
    groups = attributes(conv).get("group", 1)
    per_group = factor.reshape(groups, 1, -1)  # inputs, outputs / groups, height, width
    return np.repeat(per_group, kernel.shape[0] // groups, axis=1).reshape(kernel.shape[0], -1, 1, 1)


def _replace(tensor: onnx.TensorProto, value: np.ndarray) -> None:
    tensor.CopyFrom(numpy_helper.from_array(value.astype(numpy_helper.to_array(tensor).dtype), tensor.name))


def _may_fold(node: onnx.NodeProto, taken: list[str]) -> bool:
    has_graph = any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)
    is_value = bool(taken) or node.op_type == "Constant"
    return node.domain in ("", "ai.onnx") and node.op_type not in NEVER_FOLDED and not has_graph and is_value


def _results(
    node: onnx.NodeProto, taken: list[onnx.TensorProto], model: onnx.ModelProto
) -> list[NDArray[np.generic]] | None:
    """What a node gives for constants; None where it is large or onnx itself cannot say."""
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in taken}
    inputs = [helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in taken]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    alone = helper.make_model(
        helper.make_graph([node], "one", list({value.name: value for value in inputs}.values()), outputs),
        opset_imports=model.opset_import,
    )
    try:
        results = ReferenceEvaluator(alone).run(None, values)
    except Exception:  # noqa: BLE001  # whatever the reference raises on an operator that it lacks: the node stays
        return None
    most = max([LARGEST_FOLDED, *(value.size for value in values.values())])
    if any(not isinstance(one, np.ndarray | np.generic) for one in results):
        return None
    if node.op_type != "Constant" and any(np.size(one) > most for one in results):
        return None
    named = iter(np.asarray(one) for one in results)
    return [next(named) if name else np.empty(0) for name in node.output]


@dataclass(frozen=True)
class _WrittenPrelu:
    """A PReLU as `prelu_as_arithmetic` leaves it.

    Attributes:
        line, bend: the two multiplications.
        values: what they multiply, before and after the Relu.
        slopes: one for each channel.
    """

    line: onnx.NodeProto
    bend: onnx.NodeProto
    values: tuple[str, str]
    slopes: NDArray[np.float32]


def _written_prelus(graph: onnx.GraphProto) -> list[_WrittenPrelu]:
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    users = users_of(graph)
    outputs = {output.name for output in graph.output}

    def scaled(name: str) -> tuple[onnx.NodeProto, str, NDArray[np.float32]] | None:
        """A multiplication by a constant that the sum alone takes, with what it multiplies."""
        node = producers.get(name)
        if node is None or node.op_type != "Mul" or len(users[name]) != 1 or name in outputs:
            return None
        for value, factor in (node.input, reversed(node.input)):
            if factor in constants and value not in constants:
                return node, value, constants[factor]
        return None

    found = []
    for add in [node for node in graph.node if node.op_type == "Add"]:
        parts = [scaled(name) for name in add.input]
        for one, other in (parts, reversed(parts)):
            if one is None or other is None:
                continue
            (line, value, slope), (bend, positive, rest) = one, other
            relu = producers.get(positive)
            is_prelu = relu is not None and relu.op_type == "Relu" and relu.input[0] == value
            if not is_prelu or slope.shape != rest.shape or not np.allclose(slope + rest, 1, atol=1e-6):
                continue
            slopes = _for_channels(slope, producers.get(value), constants)
            if slopes is not None:
                found.append(_WrittenPrelu(line, bend, (value, positive), slopes))
    return found


def _for_channels(
    slope: NDArray[np.float32], before: onnx.NodeProto | None, constants: dict[str, NDArray[np.float32]]
) -> NDArray[np.float32] | None:
    """A slope for each channel of an N × C × H × W tensor; None where it is not known that there is just one."""
    if slope.ndim in (3, 4) and slope.size > 1:
        return slope.reshape(-1) if slope.shape[-3] == slope.size else None
    if slope.size != 1 or before is None or before.op_type != "Conv" or before.input[1] not in constants:
        return None
    kernel = constants[before.input[1]]
    return np.full(len(kernel), slope.item(), slope.dtype) if kernel.ndim == 4 else None
