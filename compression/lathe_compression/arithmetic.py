"""What a graph costs on paper: multiply-accumulates, parameters, zeros."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference


@dataclass(frozen=True)
class Arithmetic:
    """Cost of one picture.

    Attributes:
        macs: multiply-accumulates of convolutions and matrix products, and nothing else. Counters that
            add biases and activations, and take every output of a transposed convolution for a full
            sum, say more: 659 M for CenterFace at 320×320, where these are 617 M.
        parameters: elements of the weights.
        sparsity: share of the multiplied weights that are zero.
    """

    macs: int
    parameters: int
    sparsity: float


@dataclass(frozen=True)
class LayerArithmetic:
    """Cost of one multiplying layer for one picture.

    Attributes:
        shape: of its output.
        parameters: of the weights alone.
        precision: `fp32`, `fp16` or `int8`, as the graph has it.
        sparsity: share of the weights that are zero.
    """

    name: str
    operator: str
    shape: tuple[int, ...]
    macs: int
    parameters: int
    precision: str
    sparsity: float


def arithmetic(model: onnx.ModelProto, size_wh: tuple[int, int]) -> Arithmetic:
    """Counts a float graph whose input is 1 × H × W × 3."""
    layers = layer_arithmetic(model, size_wh)
    multiplied = sum(layer.parameters for layer in layers)
    zeros = sum(layer.parameters * layer.sparsity for layer in layers)
    floats = (tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT)
    return Arithmetic(
        sum(layer.macs for layer in layers),
        sum(int(np.prod(tensor.dims)) for tensor in floats),
        zeros / multiplied if multiplied else 0.0,
    )


def layer_arithmetic(model: onnx.ModelProto, size_wh: tuple[int, int]) -> list[LayerArithmetic]:
    """Counts layer by layer; quantized graphs too."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    sides = fixed.graph.input[0].type.tensor_type.shape.dim
    for side, length in zip(sides, (1, size_wh[1], size_wh[0], 3), strict=True):
        side.dim_value = length
    for output in fixed.graph.output:
        output.type.tensor_type.ClearField("shape")
    inferred = shape_inference.infer_shapes(fixed, data_prop=True).graph
    shapes = {
        value.name: [side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.output, *inferred.input)
    }
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in inferred.initializer}
    for node in inferred.node:  # quantized weights are read through the node that scales them
        if node.op_type == "DequantizeLinear" and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
    found = []
    for node in inferred.node:
        weight = weights.get(node.input[1]) if len(node.input) > 1 else None
        if weight is None or node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            continue
        found.append(
            LayerArithmetic(
                name=node.name,
                operator=node.op_type,
                shape=tuple(shapes[node.output[0]]),
                macs=_macs(node, weight, shapes),
                parameters=weight.size,
                precision=PRECISIONS.get(weight.dtype.name, weight.dtype.name),
                sparsity=1 - int(np.count_nonzero(weight)) / weight.size,
            )
        )
    return found


PRECISIONS = {"float32": "fp32", "float16": "fp16", "int8": "int8", "uint8": "int8"}


def _macs(node: onnx.NodeProto, weight: np.ndarray, shapes: dict[str, list[int]]) -> int:
    if node.op_type == "Conv":  # every output element sums over inputs / groups × kernel
        return int(np.prod(shapes[node.output[0]])) * int(np.prod(weight.shape[1:]))
    if node.op_type == "ConvTranspose":  # every input element spreads over outputs / groups × kernel
        return int(np.prod(shapes[node.input[0]])) * int(np.prod(weight.shape[1:]))
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return int(np.prod(shapes[node.output[0]])) * int(weight.shape[-1 if transposed else -2])
