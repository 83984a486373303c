"""OpenVINO, reading the same file; it is there where the extra `openvino` is installed."""

from __future__ import annotations

import io
import queue
from collections.abc import Mapping
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from lathe.errors import BadVariant
from lathe.machine import available_cores
from lathe_server.engines.engine import FREE, TensorSpec

RUNTIME = f"openvino {openvino.__version__.partition('-')[0]}"
_CONFIG = {
    "INFERENCE_NUM_THREADS": 1,
    "NUM_STREAMS": 1,  # with more, networks run on threads of the runtime's own
    "ENABLE_CPU_PINNING": False,
    "INFERENCE_PRECISION_HINT": "f32",  # else some processors run float layers as bf16
}
_CORE = openvino.Core()


class OpenVinoEngine:
    """The network compiled once for each core, since one that is compiled runs for one thread at a time.

    Requests compute on the thread that asks, so its CPU time is the frame's.

    Args:
        model: the content of an ONNX file without external data.

    Raises:
        BadVariant: the runtime cannot load it.
    """

    runtime = RUNTIME
    runs_alone = on_gpu = False
    meter = None

    def __init__(self, model: bytes) -> None:
        try:
            read = _CORE.read_model(io.BytesIO(model))
            networks = [_CORE.compile_model(read, "CPU", _CONFIG) for _ in range(available_cores())]
        except Exception as error:  # whatever the runtime raises, the variant is refused
            raise BadVariant("the runtime cannot load the model", detail=str(error)) from error
        self.inputs = tuple(_spec(port) for port in networks[0].inputs)
        self.outputs = tuple(_spec(port) for port in networks[0].outputs)
        self._idle: queue.LifoQueue[openvino.InferRequest] = queue.LifoQueue()
        for network in networks:
            self._idle.put(network.create_infer_request())

    def run(self, tensor: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        return self._run([tensor])

    def infer(self, tensors: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        return self._run([tensors[spec.name] for spec in self.inputs])

    def _run(self, tensors: list[NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        request = self._idle.get()
        try:
            results = request.infer(tensors, share_inputs=True)  # outputs are copied
            return {spec.name: results[place] for place, spec in enumerate(self.outputs)}
        finally:
            self._idle.put(request)


def _spec(port: openvino.ConstOutput) -> TensorSpec:
    shape = tuple(side.get_length() if side.is_static else FREE for side in port.get_partial_shape())
    # A tensor that becomes an output goes by several names; its last node has the output's own.
    name = port.get_node().get_friendly_name().partition("/sink_port_")[0]
    return TensorSpec(name, port.get_element_type().to_dtype().name, shape)
