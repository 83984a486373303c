"""ONNX graphs node by node, and running them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[np.float32]


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def pixels(height: int, width: int, batch: int = 1, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (batch, height, width, 3), np.uint8)


def graph(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, Array],
    *,
    inputs: Sequence[str] = ("x",),
    outputs: Sequence[str] = ("y",),
    weights_are_inputs: bool = False,
    opset: int = 17,
) -> onnx.ModelProto:
    """A float model whose inputs are batch × channels × height × width of any size."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("b", "c", "h", "w")) for name in inputs]
    if weights_are_inputs:
        values += [helper.make_tensor_value_info(name, TensorProto.FLOAT, a.shape) for name, a in constants.items()]
    made = helper.make_graph(
        list(nodes),
        "test",
        values,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"{name}_{n}" for n in range(4)]) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(model: onnx.ModelProto, *inputs: NDArray[np.generic]) -> list[Array]:
    """Runs a model's inputs that are not weights, in their order."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    outputs: list[Array] = session.run(None, dict(zip(names, inputs, strict=True)))
    return outputs


def count(model: onnx.ModelProto, kind: str) -> int:
    return sum(node.op_type == kind for node in model.graph.node)
