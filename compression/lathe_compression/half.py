"""Half the bits: a graph whose weights and activations are 16-bit floats, for graphics processors.

Pixels stay uint8 and outputs float32. On a CPU the runtime computes in float32 all the same and gains nothing
but the smaller file.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto
from onnxruntime.transformers.float16 import convert_float_to_float16

from lathe.errors import BadVariant
from lathe_compression.export import INPUT_NAME
from lathe_compression.ranges import activation_ranges

LARGEST = 65504.0
"""The largest finite float16."""

HALF_TOLERANCE = 0.01
"""Root mean square error, of each output's largest magnitude, or of 1 where that is smaller. float16 has 11 bits,
rounding 1 part in 2048 at every layer."""


def halve(model: onnx.ModelProto, pictures: Sequence[NDArray[np.uint8]]) -> onnx.ModelProto:
    """A float16 copy of a clean float graph.

    Args:
        pictures: network inputs, 1 × H × W × 3, on which the copy is checked against the graph.

    Raises:
        BadVariant: an activation goes beyond `LARGEST`, which a CPU's float32 would hide; an output differs by
            more than `HALF_TOLERANCE`.
    """
    inferred = onnx.shape_inference.infer_shapes(model)
    floats = {
        value.name for value in inferred.graph.value_info if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    made = [name for node in model.graph.node for name in node.output if name in floats]
    for name, (low, high) in activation_ranges(model, made, pictures, "minmax", 100.0).items():
        if not max(-low, high) <= LARGEST:
            raise BadVariant(f"16-bit floats end at {LARGEST:g}, and {name} goes to {max(-low, high):.3g}")
    source = onnx.ModelProto()
    source.CopyFrom(model)
    halved: onnx.ModelProto = convert_float_to_float16(source, keep_io_types=True)
    onnx.checker.check_model(halved)
    reference, ours = (_session(one) for one in (model, halved))
    for picture in pictures:
        expected, found = (one.run(None, {INPUT_NAME: picture}) for one in (reference, ours))
        for output, wanted, value in zip(model.graph.output, expected, found, strict=True):
            difference = float(np.sqrt(np.mean(np.square(wanted - value))))
            allowed = HALF_TOLERANCE * max(1.0, float(np.abs(wanted).max()))
            if not difference <= allowed:
                raise BadVariant(
                    f"in 16-bit floats the output {output.name} differs by {difference:.2g}; {allowed:.2g} is allowed"
                )
    return halved


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
