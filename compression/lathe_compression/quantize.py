"""Post-training quantization to INT8: activations uint8, weights int8 per channel (U8S8).

Signed activations (the library's default) gain nothing on x86, unsigned weights lose speed, and
averaging range estimators cut the sparse peaks of heat-maps: hence MinMax.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from lathe.errors import BadVariant
from lathe_compression.equalize import equalize
from lathe_compression.export import INPUT_NAME
from lathe_compression.int8_layout import PIXELS_A_GROUP, feed_pixels_directly, regroup_stem
from lathe_compression.merge_heads import FLOAT_NODES, merge_heads
from lathe_compression.projections import use_matrix_kernel


@dataclass(frozen=True)
class Quantize:
    """The step's settings.

    Attributes:
        method: `ptq` takes the ranges of activations from calibration pictures.
        range: how: `minmax` keeps every peak.
        equalize: first even out the ranges of hidden channels, which costs nothing at run time.
        matrix_kernel: write the weights of projections so that ONNX Runtime takes them to AMX.
        reduce_range: 7-bit weights, for x86 processors without VNNI, whose 16-bit sums saturate.
    """

    method: Literal["ptq"] = "ptq"
    range: Literal["minmax"] = "minmax"
    equalize: bool = True
    matrix_kernel: bool = True
    reduce_range: bool = False

    def describe(self) -> str:
        bits = "7-bit" if self.reduce_range else "8-bit"
        return f"quantize: {self.method}, U8S8 per channel, {bits} weights, {self.range} ranges"


OPERATORS = ("Conv", "Add", "Relu", "Reshape", "Transpose")
"""What is quantized: the multiplications, and what must not leave INT8 between them. A final Sigmoid
stays in float, where it keeps the resolution of small scores and costs nothing."""


def quantize(
    model: onnx.ModelProto,
    step: Quantize,
    calibration: Sequence[NDArray[np.uint8]],
    size_multiple: int,
    advance: Callable[[], None] = lambda: None,
) -> tuple[onnx.ModelProto, list[str]]:
    """Quantizes a clean FP32 graph.

    Args:
        calibration: network inputs, 1 × H × W × 3 uint8.
        size_multiple: the network's heights and widths are multiples of this.
        advance: called after each calibration input.

    Returns:
        The INT8 graph, and a sentence for its lineage for each thing that was done.

    Raises:
        BadVariant: the optimised graph does not run INT8 kernels where it should.
    """
    prepared = onnx.ModelProto()
    prepared.CopyFrom(model)
    done = []
    if step.equalize and (count := equalize(prepared, calibration)):
        done.append(f"equalize: {count} hidden tensors")
    if size_multiple % PIXELS_A_GROUP == 0 and regroup_stem(prepared):
        done.append(f"layout: the stem takes {PIXELS_A_GROUP} pixels at a time")
    if count := merge_heads(prepared, calibration):
        done.append(f"layout: {count} heads in one convolution, a range for each channel")
    add_pre_process_metadata(prepared)  # hygiene is the pre-processing that the library would warn to do
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        onnx.save(prepared, source)
        quantize_static(
            str(source),
            str(target),
            _Calibration(calibration, advance),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(OPERATORS),
            nodes_to_exclude=list(FLOAT_NODES),
            per_channel=True,
            reduce_range=step.reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"TensorQuantOverrides": _pixel_ranges(prepared)},
        )
        quantized = onnx.load(target)
    done.append(step.describe())
    if feed_pixels_directly(quantized):
        done.append("layout: pixels feed the first convolution as they are")
    if step.matrix_kernel and (count := use_matrix_kernel(quantized)):
        done.append(f"layout: {count} projections go through the matrix kernel")
    onnx.checker.check_model(quantized)
    assert_int8_kernels(quantized)
    return quantized, done


class _Calibration(CalibrationDataReader):  # type: ignore[misc]  # the base class is untyped
    def __init__(self, canvases: Sequence[NDArray[np.uint8]], advance: Callable[[], None]) -> None:
        self._left: Iterator[NDArray[np.uint8]] = iter(canvases)
        self._advance = advance

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        canvas = next(self._left, None)
        if canvas is not None:
            self._advance()
        return None if canvas is None else {INPUT_NAME: canvas}


def _pixel_ranges(model: onnx.ModelProto) -> dict[str, list[dict[str, NDArray[np.generic]]]]:
    """Bytes that are merely cast to float keep their own scale, whatever the calibration pictures held."""
    exact: dict[str, NDArray[np.generic]] = {"scale": np.array(1.0, np.float32), "zero_point": np.array(0, np.uint8)}
    users = Counter(name for node in model.graph.node if node.op_type == "Conv" for name in node.input[:1])
    return {node.output[0]: [exact] for node in model.graph.node if node.op_type == "Cast" and users[node.output[0]]}


def optimised_operators(model: onnx.ModelProto) -> Counter[str]:
    """How often each operator stands in the graph that ONNX Runtime really runs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "optimised.onnx")
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 4  # it warns that the file holds this machine's optimisations
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return Counter(node.op_type for node in onnx.load(path).graph.node)


def assert_int8_kernels(model: onnx.ModelProto) -> int:
    """Checks the optimised graph, not the file: QDQ nodes alone promise nothing.

    Returns:
        The number of INT8 convolutions.

    Raises:
        BadVariant: some convolution would run in float.
    """
    wanted = sum(node.op_type == "Conv" for node in model.graph.node)
    operators = optimised_operators(model)
    running = operators["QLinearConv"]
    if running < wanted:
        raise BadVariant(f"only {running} of {wanted} convolutions run as INT8 kernels in ONNX Runtime")
    return running
