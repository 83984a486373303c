"""Which layers are better left in float: each is measured in INT8, for what it loses and what it gains.

Two measurements of every convolution. What it loses: the error of the network's outputs when it alone is INT8.
What it gains: the time of the whole network with everything in INT8, against the same with this one layer in
float, conversions around it included.

    costs = measure_layers(model, step, calibration, size_multiple, held_out)   # minutes; keep it as JSON
    layers = layers_to_keep(costs, step.max_loss, step.slower)
    quantize(model, replace(step, float_layers=(*step.float_layers, *layers)), calibration, size_multiple)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from lathe_compression.equalize import equalize
from lathe_compression.int8_nodes import int8_nodes, matching_layers
from lathe_compression.latency import RUNS, take_turns
from lathe_compression.quantize import Quantize, quantize
from lathe_compression.ranges import Range, activation_ranges
from lathe_compression.wiring import name_nodes
from lathe_server.engines import OnnxRuntimeEngine

HEAD_PICTURES = 4
"""Calibration pictures that the ranges of merged heads come from while layers are measured."""


@dataclass(frozen=True)
class LayerCost:
    """What one layer is like in INT8; `dataclasses.asdict` and `LayerCost(**table)` take it to JSON and back.

    Attributes:
        error: root mean square error of the outputs when this layer alone is INT8, of their root mean square;
            of several outputs the worst.
        seconds_saved: of the whole network's time on one thread; negative where INT8 is slower.
        noise_seconds: three standard errors of that difference.
        seconds: the network's time with every layer in INT8.
    """

    error: float
    seconds_saved: float
    noise_seconds: float
    seconds: float


def layers_to_keep(costs: Mapping[str, LayerCost], max_loss: float, slower: float) -> tuple[str, ...]:
    """The layers that stay in float: they lose more than allowed, or are slower in INT8 beyond noise.

    Args:
        slower: how much slower, as a share of the network's time.

    >>> layers_to_keep({
    ...     "fast": LayerCost(0.01, 2e-4, 1e-5, 5e-3),
    ...     "slow": LayerCost(0.01, -2e-4, 1e-5, 5e-3),
    ...     "unsure": LayerCost(0.01, -2e-4, 3e-4, 5e-3),
    ...     "lossy": LayerCost(0.30, 2e-4, 1e-5, 5e-3),
    ... }, max_loss=0.1, slower=0.01)
    ('slow', 'lossy')
    """
    return tuple(
        name
        for name, cost in costs.items()
        if cost.error > max_loss or cost.seconds_saved < -max(cost.noise_seconds, slower * cost.seconds)
    )


def measure_layers(
    model: onnx.ModelProto,
    step: Quantize,
    calibration: Sequence[NDArray[np.uint8]],
    size_multiple: int,
    held_out: Sequence[NDArray[np.uint8]],
    advance: Callable[[], None] = lambda: None,
    *,
    ranges: Mapping[str, Range] | None = None,
    runs: int = RUNS,
) -> dict[str, LayerCost]:
    """Measures every convolution of a clean FP32 graph that `step` does not keep in float already.

    Args:
        held_out: network inputs that did not calibrate, 1 × H × W × 3; the first is also what is timed.
        advance: called after each layer.
        ranges: as `quantize` takes them.
        runs: of each of two graphs, in turn, whose times are compared.
    """
    prepared = onnx.ModelProto()
    prepared.CopyFrom(model)
    name_nodes(prepared.graph)
    always = matching_layers(prepared.graph, step.float_layers)
    layers = [node.name for node in prepared.graph.node if node.op_type == "Conv" and node.name not in always]
    if step.equalize and ranges is None:
        equalize(prepared, calibration)
    known = _ranges(prepared, step, calibration) | dict(ranges or {})
    few = calibration[:HEAD_PICTURES]

    def in_int8(kept: Sequence[str]) -> onnx.ModelProto:
        settings = replace(step, method="ptq", range="minmax", float_layers=(*always, *kept))
        return quantize(prepared, settings, few, size_multiple, ranges=known)[0]

    reference = _outputs(prepared, held_out)
    whole = in_int8(())
    costs: dict[str, LayerCost] = {}
    for layer in layers:
        alone = _outputs(in_int8([other for other in layers if other != layer]), held_out)
        without = in_int8([layer]) if len(layers) > 1 else prepared
        seconds = take_turns({"whole": whole, "without": without}, held_out[0], runs)
        saved, noise = median_and_noise(seconds["without"] - seconds["whole"])
        costs[layer] = LayerCost(relative_error(alone, reference), saved, noise, float(np.median(seconds["whole"])))
        advance()
    return costs


def relative_error(outputs: Sequence[NDArray[np.float32]], reference: Sequence[NDArray[np.float32]]) -> float:
    """Root mean square error of each output, of its reference's root mean square; the worst of them.

    >>> relative_error([np.array([1.0, 1.5]), np.array([2.0])], [np.array([1.0, 1.0]), np.array([2.0])]).__round__(3)
    0.354
    """

    def size(values: NDArray[np.float32]) -> float:
        return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))

    return max(size(ours - wanted) / max(size(wanted), 1e-12) for ours, wanted in zip(outputs, reference, strict=True))


def median_and_noise(differences: NDArray[np.float64]) -> tuple[float, float]:
    """The median of repeated measurements, and three standard errors of it, both deaf to outliers."""
    median = float(np.median(differences))
    deviation = 1.4826 * float(np.median(np.abs(differences - median)))
    return median, 3 * 1.2533 * deviation / float(np.sqrt(len(differences)))


def _ranges(model: onnx.ModelProto, step: Quantize, calibration: Sequence[NDArray[np.uint8]]) -> dict[str, Range]:
    """Of every tensor that a node to be quantized takes; heads keep a range for each channel."""
    chosen = set(int8_nodes(model.graph))
    made = {name for node in model.graph.node if node.op_type != "Cast" for name in node.output}
    taken = dict.fromkeys(name for node in model.graph.node if node.name in chosen for name in node.input)
    return activation_ranges(model, [name for name in taken if name in made], calibration, step.range, step.percentile)


def _outputs(model: onnx.ModelProto, pictures: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
    """Each output over all pictures, flat."""
    engine = OnnxRuntimeEngine(model.SerializeToString())
    runs = [engine.run(picture) for picture in pictures]
    return [np.concatenate([run[name].ravel() for run in runs]) for name in runs[0]]
