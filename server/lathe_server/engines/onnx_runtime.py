"""ONNX Runtime, on the processor or on an execution provider that its build has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from lathe.errors import BadVariant, Refused
from lathe_server.engines.engine import FREE, TensorSpec

RUNTIME = f"onnxruntime {onnxruntime.__version__}"
"""What runs the networks, for cards and reports."""
CPU = "CPUExecutionProvider"


class OnnxRuntimeEngine:
    """One single-threaded session, shared by all worker threads.

    More threads within a session burn 1.2 to 2.5 times the CPU for the same frames, and spinning
    3.5 to 4 times at light load; so the workers are the parallelism, and nothing spins.

    Args:
        model: the content of an ONNX file without external data.
        provider: what executes the operators; the processor those that it cannot.

    Raises:
        BadVariant: the runtime cannot load it.
        Refused: the provider does not start on this machine.
    """

    meter = None

    def __init__(self, model: bytes, provider: str = CPU) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=list(dict.fromkeys([provider, CPU])))
        except Exception as error:  # the runtime's errors share no base class of their own
            raise BadVariant(_told(str(error)), detail=str(error)) from error
        if provider not in self._session.get_providers():  # the runtime goes on without one whose device is missing
            raise Refused(f"{provider} does not start on this machine")
        self.runs_alone = provider == CPU
        self.on_gpu = provider != CPU
        self.runtime = RUNTIME if provider == CPU else f"{RUNTIME} {provider}"
        self.inputs = tuple(_spec(node) for node in self._session.get_inputs())
        self.outputs = tuple(_spec(node) for node in self._session.get_outputs())
        self._output_names = [spec.name for spec in self.outputs]

    def run(self, tensor: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        outputs = self._session.run(self._output_names, {self.inputs[0].name: tensor})
        return dict(zip(self._output_names, outputs, strict=True))

    def infer(self, tensors: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        outputs = self._session.run(self._output_names, dict(tensors))
        return dict(zip(self._output_names, outputs, strict=True))


def _told(message: str) -> str:
    """What the runtime says, for those who published the model."""
    if newer := re.search(r"IR version: (\d+), max supported IR version: (\d+)", message):
        return f"the model has IR version {newer[1]}; the runtime reads up to {newer[2]}"
    if newer := re.search(r"Opset (\d+) .* till opset (\d+)", message):
        return f"the model has opset {newer[1]}; the runtime supports up to {newer[2]}"
    return "the runtime cannot load the model"


_DTYPES = {
    "tensor(bool)": "bool",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(string)": "object",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
}


def _spec(node: onnxruntime.NodeArg) -> TensorSpec:
    shape = tuple(side if isinstance(side, int) else FREE for side in node.shape)
    return TensorSpec(node.name, _DTYPES.get(node.type, node.type), shape)
