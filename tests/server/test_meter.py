"""Time of a device is never given twice, and runs are told of with their frames."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping
from time import monotonic
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lathe.repository import VariantRef
from lathe_server.engines import OnnxRuntimeEngine, default_engine, metered
from lathe_server.engines.meter import Device, MeteredEngine, gpu_seconds
from lathe_server.frames import Frame, Outcome, Result
from lathe_server.metrics import Metrics
from lathe_server.vision import EncodedPicture
from tests.models import bright_spots


class OnGpu(OnnxRuntimeEngine):
    """The processor in the part of a graphics processor."""

    on_gpu = True

    def __init__(self, model: bytes) -> None:
        super().__init__(model)
        self.on_gpu = True

    def infer(self, tensors: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        raise RuntimeError("out of memory")


def test_whatever_overlaps_the_parts_come_to_the_time_in_which_somebody_had_it() -> None:
    now, busy, given = 0.0, 0.0, 0.0
    device, dice = Device(lambda: now), random.Random(7)
    running: list[object] = []
    for _ in range(1000):
        if running and dice.random() < 0.5:
            given += device.leave(running.pop(dice.randrange(len(running))))
        else:
            running.append(device.enter())
        passed = dice.random()
        now += passed
        busy += passed if running else 0.0
    given += sum(device.leave(run) for run in running)
    assert given == pytest.approx(busy)


def test_runs_of_several_threads_never_have_more_than_the_time_that_passed() -> None:
    engine = MeteredEngine(OnGpu(bright_spots()))
    told: list[int] = []
    engine.meter.told = told.append
    took: list[float] = []
    tensor = np.zeros((2, 64, 96, 3), np.uint8)

    def work() -> None:
        for _ in range(20):
            engine.run(tensor)
        took.append(gpu_seconds())

    threads = [threading.Thread(target=work) for _ in range(3)]
    began = monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == [2] * 60
    assert min(took) > 0
    assert sum(took) <= monotonic() - began


def test_a_run_that_fails_has_taken_its_time_and_judged_no_frame() -> None:
    engine = MeteredEngine(OnGpu(bright_spots()))
    told: list[int] = []
    engine.meter.told = told.append
    before = gpu_seconds()
    with pytest.raises(RuntimeError):
        engine.infer({})
    assert gpu_seconds() > before
    assert told == []


def test_a_frames_result_has_its_seconds_of_the_graphics_processor() -> None:
    metrics = Metrics(price_per_gpu_hour=3600.0, on_gpu=True)
    frame = Frame("face", "camera", "", 0, EncodedPicture(b""), captured=1.0, arrived=1.0)
    ref = VariantRef("face", "a", 1)
    outcomes: tuple[Outcome, ...] = ("answered", "failed")
    for outcome in outcomes:
        metrics.observe(Result(frame, outcome, ref, gpu_seconds=0.25))
    labels = {"model": "face", "variant": "a", "version": "1"}
    assert metrics.registry.get_sample_value("lathe_gpu_seconds_total", labels) == 0.5
    paid = metrics.registry.get_sample_value("lathe_cost_usage_total", {**labels, "currency": "USD"})
    assert paid == pytest.approx(0.5)


def test_on_a_processor_only_batches_have_a_meter() -> None:
    model, size_wh = bright_spots(), (96, 64)
    assert metered(default_engine, in_batches=False)(model, size_wh).meter is None
    assert metered(default_engine, in_batches=True)(model, size_wh).meter
    assert metered(lambda model, size: OnGpu(model), in_batches=False)(model, size_wh).meter
