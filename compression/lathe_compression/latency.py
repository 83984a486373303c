"""What graphs take on this machine, taking turns on one thread."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from lathe_server.engines import OnnxRuntimeEngine

RUNS, WARM_UP_RUNS = 60, 5


def take_turns(
    models: Mapping[str, onnx.ModelProto], tensor: NDArray[np.uint8], runs: int = RUNS
) -> dict[str, NDArray[np.float64]]:
    """Seconds of each run of every model.

    Args:
        tensor: the networks' input, 1 × H × W × 3.
    """
    engines = {name: OnnxRuntimeEngine(model.SerializeToString()) for name, model in models.items()}
    seconds = {name: np.empty(runs) for name in engines}
    for run in range(-WARM_UP_RUNS, runs):
        for name, engine in engines.items():
            began = time.perf_counter()
            engine.run(tensor)
            if run >= 0:
                seconds[name][run] = time.perf_counter() - began
    return seconds


def noise(size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """A network's input of exactly this width and height: 1 × H × W × 3."""
    return np.random.default_rng(0).integers(0, 256, (1, size_wh[1], size_wh[0], 3), np.uint8)


def latency_share(model: onnx.ModelProto, reference: onnx.ModelProto, size_wh: tuple[int, int]) -> float:
    """The model's time over the reference's: the median over all turns of their ratio."""
    seconds = take_turns({"model": model, "reference": reference}, noise(size_wh))
    return float(np.median(seconds["model"] / seconds["reference"]))
