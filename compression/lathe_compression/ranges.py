"""The range of every activation that is to be uint8: all that calibration showed, or less of it.

Three ways. `minmax` keeps every peak. `percentile` cuts the outermost values off, for networks whose few
outliers would cost all others their resolution. `entropy` cuts where the distribution of the 8-bit values is
nearest to the float one's (Migacz, 8-bit inference with TensorRT, GTC 2017). One picture at a time is held in
memory, never all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from lathe_compression.export import INPUT_NAME

Range = tuple[float, float]
BINS = 2048
LEVELS = 128
CANDIDATE_EVERY = 16
MOVES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten")
"""Operators whose results hold the numbers they were given."""


def activation_ranges(
    model: onnx.ModelProto,
    names: Sequence[str],
    calibration: Sequence[NDArray[np.uint8]],
    how: Literal["minmax", "percentile", "entropy"],
    percentile: float,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Range]:
    """Lowest and highest value of each named tensor.

    Args:
        names: float tensors of the graph.
        calibration: network inputs, 1 × H × W × 3.
        percentile: the share of values that `percentile` keeps, in per cent.
        advance: called once for each network input.
    """
    if not names:
        return {}
    ends = _ends(model, names, calibration, advance)
    if how == "minmax":
        return ends
    spans = {name: _span(range_, how) for name, range_ in ends.items()}
    counts = _histograms(model, spans, calibration, magnitudes=how == "entropy")
    if how == "percentile":
        return {name: percentile_range(counts[name], ends[name], percentile) for name in names}
    return {name: _cut(ends[name], entropy_threshold(counts[name], spans[name][1])) for name in names}


def uint8_ends(low: float, high: float) -> Range:
    """What the uint8 values 0 and 255 stand for where a range is given: 0 is one of the 256 numbers.

    >>> uint8_ends(-1.0, 1.0)  # zero point 128, steps of 2 / 255
    (-1.003921568627451, 0.996078431372549)
    """
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / 255
    zero_point = round(-low / step) if step else 0
    return -zero_point * step, (255 - zero_point) * step


def spread(graph: onnx.GraphProto, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """The ranges, and the same for tensors that are merely moved to become those of known range."""
    known = dict(ranges)
    for node in reversed(graph.node):
        if node.op_type in MOVES and node.output[0] in known:
            known.setdefault(node.input[0], known[node.output[0]])
    return known


def _ends(
    model: onnx.ModelProto,
    names: Sequence[str],
    calibration: Sequence[NDArray[np.uint8]],
    advance: Callable[[], None],
) -> dict[str, Range]:
    """Lowest and highest value; the runtime itself finds them, so that tensors need not leave it."""
    reduced: dict[str, tuple[str, onnx.NodeProto]] = {}
    for name in names:
        for kind in ("ReduceMin", "ReduceMax"):
            reduced[f"{name}:{kind}"] = (name, helper.make_node(kind, [name], [f"{name}:{kind}"], keepdims=0))
    session = _showing(model, list(reduced), [node for _, node in reduced.values()])
    seen: dict[str, list[float]] = {name: [] for name in reduced}
    for canvas in calibration:
        for name, value in zip(reduced, session.run(list(reduced), {INPUT_NAME: canvas}), strict=True):
            seen[name].append(float(value))
        advance()
    return {name: (min(seen[f"{name}:ReduceMin"]), max(seen[f"{name}:ReduceMax"])) for name in names}


def _histograms(
    model: onnx.ModelProto,
    spans: Mapping[str, Range],
    calibration: Sequence[NDArray[np.uint8]],
    magnitudes: bool,
) -> dict[str, NDArray[np.int64]]:
    """How many values of each tensor, or of their magnitudes, fall into each of the equal bins of its span."""
    session = _showing(model, spans, [])
    counts = {name: np.zeros(BINS, np.int64) for name in spans}
    for canvas in calibration:
        for name, value in zip(spans, session.run(list(spans), {INPUT_NAME: canvas}), strict=True):
            counts[name] += histogram(np.abs(value) if magnitudes else value, spans[name])
    return counts


def histogram(values: NDArray[np.float32], span: Range) -> NDArray[np.int64]:
    """How many fall into each of `BINS` equal bins of the span; the outermost take what lies beyond."""
    low, high = span
    places = ((values.ravel() - low) * (BINS / max(high - low, 1e-30))).astype(np.int32)
    return np.bincount(np.clip(places, 0, BINS - 1), minlength=BINS)


def percentile_range(counts: NDArray[np.int64], span: Range, percentile: float) -> Range:
    """The middle of a distribution that holds so many per cent of the values; both sides lose alike.

    Args:
        counts: values in each of equal bins over the span.

    >>> percentile_range(np.array([1, 49, 49, 1]), (0.0, 4.0), 98.0)
    (1.0, 3.0)
    """
    low, high = span
    width = (high - low) / len(counts)
    below = np.cumsum(counts)
    outside = below[-1] * (100 - percentile) / 200
    first = int(np.searchsorted(below, outside, side="right"))
    last = int(np.searchsorted(below, below[-1] - outside))
    return low + first * width, min(high, low + (last + 1) * width)


def entropy_threshold(counts: NDArray[np.int64], highest: float) -> float:
    """The magnitude to cut at: there the distribution in 128 levels is nearest to the one it stands for.

    Args:
        counts: magnitudes in each of equal bins from 0 to the highest.
    """
    bins = len(counts)
    # A third of many activations is exactly 0, which every threshold represents exactly.
    masses = counts.astype(np.float64)
    masses[0] = masses[1]
    candidates = range(LEVELS, bins + 1, CANDIDATE_EVERY)
    best = min(candidates, key=lambda kept: (_divergence(masses, kept), -kept))
    return highest * best / bins


def _divergence(counts: NDArray[np.float64], kept: int) -> float:
    """Kullback–Leibler divergence of a histogram cut after so many bins from itself in `LEVELS` levels."""
    real = counts[:kept].copy()
    level = np.arange(kept) * LEVELS // kept
    filled = real > 0
    mass, places = np.bincount(level, real, LEVELS), np.bincount(level, filled, LEVELS)
    coarse = np.where(filled, (mass / np.maximum(places, 1))[level], 0.0)
    real[-1] += counts[kept:].sum()  # what is cut off is squeezed into the last bin
    if not real.sum() or not coarse.sum():
        return np.inf
    p, q = real / real.sum(), coarse / coarse.sum()
    if np.any((p > 0) & (q == 0)):
        return np.inf
    both = p > 0
    return float(np.sum(p[both] * np.log(p[both] / q[both])))


def _span(ends: Range, how: str) -> Range:
    return (0.0, max(abs(ends[0]), abs(ends[1]))) if how == "entropy" else ends


def _cut(ends: Range, threshold: float) -> Range:
    return max(ends[0], -threshold), min(ends[1], threshold)


def _showing(
    model: onnx.ModelProto, names: Collection[str], more: Sequence[onnx.NodeProto]
) -> onnxruntime.InferenceSession:
    """A session of the graph with more nodes and with the named tensors as outputs."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.node.extend(more)
    known = {output.name for output in shown.graph.output}
    shown.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names if name not in known
    )
    options = onnxruntime.SessionOptions()
    # Fused nodes round otherwise, and what is fused depends on what is shown.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
