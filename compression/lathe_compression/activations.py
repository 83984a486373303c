"""How far the activations of a network go on calibration pictures, channel by channel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

from lathe_compression.export import INPUT_NAME


def channel_ranges(
    model: onnx.ModelProto, names: Sequence[str], calibration: Sequence[NDArray[np.uint8]]
) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Lowest and highest activation of each channel of each named tensor.

    Args:
        names: tensors of the graph, N × C × H × W.
        calibration: network inputs, 1 × H × W × 3.
    """
    if not names:  # the runtime would take none for all
        return {}
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    known = {output.name for output in shown.graph.output}
    shown.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names if name not in known
    )
    session = onnxruntime.InferenceSession(shown.SerializeToString(), providers=["CPUExecutionProvider"])
    ranges: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
    for canvas in calibration:
        for name, value in zip(names, session.run(list(names), {INPUT_NAME: canvas}), strict=True):
            low, high = value.min(axis=(0, 2, 3)), value.max(axis=(0, 2, 3))
            before = ranges.get(name, (low, high))
            ranges[name] = (np.minimum(before[0], low), np.maximum(before[1], high))
    return ranges
