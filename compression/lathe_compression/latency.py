"""What a graph takes on this machine, against another one: both take turns on one thread."""

from __future__ import annotations

import time

import numpy as np
import onnx
import onnxruntime

from lathe_compression.export import INPUT_NAME

RUNS, WARM_UP_RUNS = 30, 3


def latency_share(model: onnx.ModelProto, reference: onnx.ModelProto, size_wh: tuple[int, int]) -> float:
    """The model's time over the reference's: the median over `RUNS` turns of their ratio."""
    sessions = [_session(one) for one in (model, reference)]
    pixels = np.random.default_rng(0).integers(0, 256, (1, size_wh[1], size_wh[0], 3), np.uint8)
    ratios = []
    for run in range(WARM_UP_RUNS + RUNS):
        seconds = []
        for session in sessions:
            began = time.perf_counter()
            session.run(None, {INPUT_NAME: pixels})
            seconds.append(time.perf_counter() - began)
        if run >= WARM_UP_RUNS:
            ratios.append(seconds[0] / seconds[1])
    return float(np.median(ratios))


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
