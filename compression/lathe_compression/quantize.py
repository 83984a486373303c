"""Quantization to INT8: activations uint8, weights int8 per channel (U8S8); and to 16-bit floats.

Signed activations (the library's default) gain nothing on x86, unsigned weights lose speed, and
averaging range estimators cut the sparse peaks of heat-maps: hence MinMax unless a recipe says otherwise.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
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

from lathe.errors import BadVariant, InvalidInput
from lathe_compression.compact import compact
from lathe_compression.dynamic import quantize_products
from lathe_compression.equalize import equalize
from lathe_compression.export import INPUT_NAME
from lathe_compression.fake_quantize import LARGEST_WEIGHT, WeightGrid
from lathe_compression.float_layers import hold_in_float
from lathe_compression.half import halve
from lathe_compression.hygiene import prelu_as_convolutions
from lathe_compression.int8_layout import (
    PIXELS_A_GROUP,
    feed_pixels_directly,
    pixel_quantization,
    regroup_stem,
    upsample_by_convolution,
)
from lathe_compression.int8_nodes import OF_ONE_TENSOR, OPERATORS, int8_nodes, matching_layers
from lathe_compression.merge_heads import MERGED, head_results, merge_heads
from lathe_compression.normalised import fold_normalisation
from lathe_compression.projections import use_matrix_kernel
from lathe_compression.ranges import Range, activation_ranges, spread
from lathe_compression.wide_stem import regroup_wide_stem
from lathe_compression.wiring import name_nodes

HALF_CHECKS = 4
"""Pictures that a 16-bit graph is compared with the float one on."""


@dataclass(frozen=True)
class Quantize:
    """The step's settings.

    Attributes:
        method: `ptq` takes the ranges of activations from calibration pictures; `qat` takes those that training
            learnt. `dynamic` finds them anew at every run, for matrix products only. `fp16` makes 16-bit floats,
            for graphics processors.
        range: how calibration sets ranges: `minmax` keeps every peak; `percentile` cuts the outermost values
            off; `entropy` cuts where the distribution suffers least. `qat` learns on from the first two.
        percentile: the share of values that `percentile` keeps, in per cent.
        equalize: first even out the ranges of hidden channels, which costs nothing at run time.
        matrix_kernel: write the weights of projections so that ONNX Runtime takes them to AMX.
        per_channel: a scale for each channel's weights; without, one for the layer's, for hardware that knows no more:
            that loses much where channels differ, as in depthwise layers, and heads stay convolutions of their own.
        reduce_range: 7-bit weights, for x86 processors without VNNI, whose 16-bit sums saturate.
        float_layers: names of layers that stay in float, or patterns of names (`*conv_1*`).
        mixed: measure every layer, and keep those in float that cost more in INT8 than they give.
        max_loss: a layer that alone, in INT8, changes the outputs by more stays in float; of an output's
            root mean square.
        slower: a layer stays in float if INT8 makes the whole network slower by more than this share.
        pictures: scenes that `qat` learns from.
        rate: of its learning, as of `Schedule`.
    """

    method: Literal["ptq", "qat", "dynamic", "fp16"] = "ptq"
    range: Literal["minmax", "percentile", "entropy"] = "minmax"
    percentile: float = 99.999
    equalize: bool = True
    matrix_kernel: bool = True
    per_channel: bool = True
    reduce_range: bool = False
    float_layers: tuple[str, ...] = ()
    mixed: bool = False
    max_loss: float = 0.1
    slower: float = 0.005
    pictures: int = 4000
    rate: float = 0.0005

    def __post_init__(self) -> None:
        if not 50 < self.percentile <= 100:
            raise ValueError("percentile must be above 50, and at most 100")
        if self.max_loss <= 0 or self.slower < 0:
            raise ValueError("max_loss must be above 0, and slower not negative")
        if self.pictures < 1 or not 0 < self.rate < 1:
            raise ValueError("pictures must be at least 1, and rate between 0 and 1")
        if self.method == "fp16" and (self.float_layers or self.mixed):
            raise ValueError('float_layers and mixed are of INT8, and the method is "fp16"')
        if self.method in ("dynamic", "fp16") and not self.per_channel:
            raise ValueError('per_channel is of "ptq" and "qat"')
        if self.method == "dynamic" and self.mixed:
            raise ValueError('mixed is of "ptq" and "qat"')

    @property
    def weight_grid(self) -> WeightGrid:
        """How ONNX Runtime's quantizer will round the weights."""
        return WeightGrid(64 if self.reduce_range else LARGEST_WEIGHT, self.per_channel)

    def describe(self) -> str:
        if self.method == "fp16":
            return "quantize: fp16, 16-bit floats, pixels uint8, outputs float32"
        bits = "7-bit" if self.reduce_range else "8-bit"
        if self.method == "dynamic":
            return f"quantize: dynamic, matrix products, {bits} weights"
        ranges = f"{self.percentile:g} % ranges" if self.range == "percentile" else f"{self.range} ranges"
        learnt = "learnt ranges, else " if self.method == "qat" else ""
        scales = "per channel" if self.per_channel else "per layer"
        return f"quantize: {self.method}, U8S8 {scales}, {bits} weights, {learnt}{ranges}"


def quantize(
    model: onnx.ModelProto,
    step: Quantize,
    calibration: Sequence[NDArray[np.uint8]],
    size_multiple: int,
    advance: Callable[[], None] = lambda: None,
    *,
    ranges: Mapping[str, Range] | None = None,
) -> tuple[onnx.ModelProto, list[str]]:
    """Quantizes a clean FP32 graph. `step.mixed` is not looked at: `layers_to_keep` says the `float_layers`.

    Args:
        calibration: network inputs, 1 × H × W × 3 uint8.
        size_multiple: the network's heights and widths are multiples of this.
        advance: called after each calibration input.
        ranges: lowest and highest value of tensors of this graph, as training learnt them; they hold exactly,
            and nothing is equalized. Tensors without take calibration's. The pixels keep their own.

    Returns:
        The quantized graph, and a sentence for its lineage for each thing that was done.

    Raises:
        InvalidInput: the settings do not fit the graph or what was given.
        BadVariant: the optimised graph does not run INT8 kernels where it should; 16-bit floats lose too much.
    """
    if not calibration:
        raise InvalidInput("quantizing needs calibration pictures")
    if step.method == "qat" and ranges is None:
        raise InvalidInput('method = "qat" needs the ranges that training learnt')
    prepared = onnx.ModelProto()
    prepared.CopyFrom(model)
    name_nodes(prepared.graph)
    kept = matching_layers(prepared.graph, step.float_layers)
    if step.method == "fp16":
        return halve(prepared, calibration[:HALF_CHECKS]), [step.describe()]
    if step.method == "dynamic":
        return quantize_products(prepared, kept, step.reduce_range), [step.describe()]
    _check_ranges(prepared.graph, ranges or {})
    done = []
    if step.equalize and ranges is None and (count := equalize(prepared, calibration)):
        done.append(f"equalize: {count} hidden tensors")
    if count := prelu_as_convolutions(prepared, kept):
        done.append(f"layout: {count} PReLUs as depthwise convolutions")
    if folded := fold_normalisation(prepared, kept):
        done.append(folded)
    if (size_multiple % PIXELS_A_GROUP == 0 and regroup_stem(prepared, kept)) or regroup_wide_stem(prepared, kept):
        done.append(f"layout: the stem takes {PIXELS_A_GROUP} pixels at a time")
    if count := upsample_by_convolution(prepared):
        done.append(f"layout: {count} transposed convolutions as 1×1 convolutions, for which there are INT8 kernels")
    known = dict(ranges or {})
    if step.per_channel and (count := merge_heads(prepared, calibration, known, kept)):
        done.append(f"layout: {count} heads in one convolution, a range for each channel")
        if ranges is not None or step.range != "minmax":
            known[MERGED] = (0.0, 1.0)  # each channel keeps its peaks; few as they are, they are the detections
    elif step.range != "minmax":
        peaks = [name for name in head_results(prepared, kept) if name not in known]
        known |= activation_ranges(prepared, peaks, calibration, "minmax", 100.0)
    quantized = _quantize_static(prepared, step, calibration, kept, spread(prepared.graph, known), advance)
    done.append(step.describe())
    if kept:
        hold_in_float(quantized, kept)
        done.append(f"in float: {', '.join(sorted(kept))}")
    if feed_pixels_directly(quantized):
        done.append("layout: pixels feed the first convolution as they are")
    if step.matrix_kernel and (count := use_matrix_kernel(quantized)):
        done.append(f"layout: {count} projections go through the matrix kernel")
    compact(quantized)
    onnx.checker.check_model(quantized)
    assert_int8_kernels(quantized, kept)
    return quantized, done


def _quantize_static(
    prepared: onnx.ModelProto,
    step: Quantize,
    calibration: Sequence[NDArray[np.uint8]],
    kept: Collection[str],
    known: Mapping[str, Range],
    advance: Callable[[], None],
) -> onnx.ModelProto:
    """Quantize and dequantize nodes around what is to be INT8; the ranges not known come from calibration."""
    chosen = int8_nodes(prepared.graph, kept)
    if not chosen:
        raise InvalidInput("every layer is to stay in float; nothing is left to quantize")
    pixels = pixel_quantization(prepared)
    constants = {tensor.name for tensor in prepared.graph.initializer}
    inputs = {value.name for value in prepared.graph.input}
    touched: dict[str, None] = {}
    for node in prepared.graph.node:
        if node.name in set(chosen):
            data = node.input[:1] if node.op_type in OF_ONE_TENSOR else node.input
            touched |= dict.fromkeys([*data, *node.output])
    unknown = [name for name in touched if name and name not in {*constants, *inputs, *known, *pixels}]
    found = activation_ranges(prepared, unknown, calibration, step.range, step.percentile, advance)
    overrides: dict[str, list[dict[str, object]]] = {
        name: [{"rmin": np.array(low, np.float32), "rmax": np.array(high, np.float32)}]
        for name, (low, high) in {**found, **known}.items()
        if name in touched
    }
    for name, zero_point in pixels.items():
        overrides[name] = [{"scale": np.array(1.0, np.float32), "zero_point": np.array(zero_point, np.uint8)}]
    add_pre_process_metadata(prepared)  # hygiene is the pre-processing that the library would warn to do
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        onnx.save(prepared, source)
        quantize_static(
            str(source),
            str(target),
            _OnePicture(calibration[0]),  # every range is in the overrides, and the library must see one picture
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(OPERATORS),
            nodes_to_quantize=chosen,
            per_channel=step.per_channel,
            reduce_range=step.reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={
                "TensorQuantOverrides": overrides,
                "MatMulConstBOnly": True,
                "OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"],
            },
        )
        return onnx.load(target)


class _OnePicture(CalibrationDataReader):  # type: ignore[misc]  # the base class is untyped
    def __init__(self, canvas: NDArray[np.uint8]) -> None:
        self._left = [canvas]

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        return {INPUT_NAME: self._left.pop()} if self._left else None


def _check_ranges(graph: onnx.GraphProto, ranges: Mapping[str, Range]) -> None:
    made = {name for node in graph.node for name in node.output}
    for name, (low, high) in ranges.items():
        if name not in made:
            raise InvalidInput(f'a range is given for "{name}", which no layer makes')
        if not low <= high or not np.isfinite([low, high]).all():
            raise InvalidInput(f'the range of "{name}" is from {low:g} to {high:g}')


def optimised_operators(model: onnx.ModelProto) -> Counter[str]:
    """How often each operator stands in the graph that ONNX Runtime really runs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "optimised.onnx")
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 4  # it warns that the file holds this machine's optimisations
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return Counter(node.op_type for node in onnx.load(path).graph.node)


def assert_int8_kernels(model: onnx.ModelProto, kept: Collection[str] = ()) -> int:
    """Checks the optimised graph, not the file: QDQ nodes alone promise nothing.

    Args:
        kept: names of convolutions that are meant to run in float.

    Returns:
        The number of INT8 convolutions.

    Raises:
        BadVariant: some other convolution would run in float, or one of these in INT8.
    """
    wanted = sum(node.op_type == "Conv" and node.name not in kept for node in model.graph.node)
    operators = optimised_operators(model)
    running = operators["QLinearConv"]
    if kept and running > wanted:
        raise BadVariant(f"{running - wanted} convolutions that are meant to run in float run as INT8 kernels")
    if running < wanted:
        raise BadVariant(f"only {running} of {wanted} convolutions run as INT8 kernels in ONNX Runtime")
    return running
