"""Runtimes that execute a variant, behind one small interface."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from lathe.errors import BadVariant

RUNTIME = f"onnxruntime {onnxruntime.__version__}"
"""What runs the networks, for cards and reports."""

FREE = -1
"""A dimension that may be of any size."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, element type as NumPy names it, and shape; a free dimension is `FREE`."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class Engine(Protocol):
    """A loaded network that any number of threads may run at the same time."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(self, tensor: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        """Runs the network on its only input; outputs by name."""


class OnnxRuntimeEngine:
    """ONNX Runtime on the CPU: one single-threaded session, shared by all worker threads.

    More threads within a session burn 1.2 to 2.5 times the CPU for the same frames, and spinning
    3.5 to 4 times at light load; so the workers are the parallelism, and nothing spins.

    Args:
        model: the content of an ONNX file without external data.

    Raises:
        BadVariant: the runtime cannot load it.
    """

    def __init__(self, model: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's errors share no base class of their own
            raise BadVariant("the runtime cannot load the model", detail=str(error)) from error
        self.inputs = tuple(_spec(node) for node in self._session.get_inputs())
        self.outputs = tuple(_spec(node) for node in self._session.get_outputs())
        self._output_names = [spec.name for spec in self.outputs]

    def run(self, tensor: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        outputs = self._session.run(self._output_names, {self.inputs[0].name: tensor})
        return dict(zip(self._output_names, outputs, strict=True))


_DTYPES = {
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
}


def _spec(node: onnxruntime.NodeArg) -> TensorSpec:
    shape = tuple(side if isinstance(side, int) else FREE for side in node.shape)
    return TensorSpec(node.name, _DTYPES.get(node.type, node.type), shape)
