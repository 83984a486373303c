"""OpenVINO, reading the same file; it is there where the extra `openvino` is installed."""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping

import numpy as np
import openvino
from numpy.typing import NDArray

from lathe.errors import BadVariant
from lathe.machine import available_cores
from lathe_server.engines.engine import FREE, TensorSpec

RUNTIME = f"openvino {openvino.__version__.partition('-')[0]}"
_CONFIG = {
    "INFERENCE_NUM_THREADS": available_cores(),
    "NUM_STREAMS": available_cores(),  # a stream is a graph under a lock: with one, threads would wait for each other
    "ENABLE_CPU_PINNING": False,
    "INFERENCE_PRECISION_HINT": "f32",  # else some processors run float layers as bf16
}
_CORE = openvino.Core()


class OpenVinoEngine:
    """One compiled network of as many single-threaded streams as there are cores.

    Each thread that runs it has a request of its own.

    Synchronous requests compute on the thread that asks, so its CPU time is the frame's.

    Args:
        model: the content of an ONNX file without external data.

    Raises:
        BadVariant: the runtime cannot load it.
    """

    runtime = RUNTIME

    def __init__(self, model: bytes) -> None:
        try:
            self._network = _CORE.compile_model(_CORE.read_model(io.BytesIO(model)), "CPU", _CONFIG)
        except Exception as error:  # whatever the runtime raises, the variant is refused
            raise BadVariant("the runtime cannot load the model", detail=str(error)) from error
        self.inputs = tuple(_spec(port) for port in self._network.inputs)
        self.outputs = tuple(_spec(port) for port in self._network.outputs)
        self._own = threading.local()

    def run(self, tensor: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        if not hasattr(self._own, "request"):
            self._own.request = self._network.create_infer_request()
        results = self._own.request.infer([tensor], share_inputs=True)  # outputs are copied
        return {spec.name: results[place] for place, spec in enumerate(self.outputs)}


def _spec(port: openvino.ConstOutput) -> TensorSpec:
    shape = tuple(side.get_length() if side.is_static else FREE for side in port.get_partial_shape())
    # A tensor that becomes an output goes by several names; its last node has the output's own.
    name = port.get_node().get_friendly_name().partition("/sink_port_")[0]
    return TensorSpec(name, port.get_element_type().to_dtype().name, shape)
