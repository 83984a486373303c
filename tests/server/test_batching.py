"""Frames of several threads in one run: each gets its own outputs, whatever becomes of the others."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from lathe.errors import BadVariant
from lathe.exchange import Result
from lathe.repository import Repository
from lathe_server.engines import OnnxRuntimeEngine, default_engine, in_batches
from lathe_server.engines.batching import BatchingEngine
from tests.calls import exposition, metric
from tests.conftest import RunningServer, start_server
from tests.models import bright_spots


class Watched(OnnxRuntimeEngine):
    """Notes how many frames each run had; fails on runs that hold a black frame."""

    def __init__(self) -> None:
        super().__init__(bright_spots())
        self.sizes: list[int] = []

    def run(self, tensor: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        self.sizes.append(len(tensor))
        if not tensor.reshape(len(tensor), -1).any(axis=1).all():
            raise RuntimeError("a black frame")
        return super().run(tensor)


def pixels(seed: int, height: int = 64) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(1, 256, (1, height, 96, 3), np.uint8)


def together(engine: BatchingEngine, tensors: list[NDArray[np.uint8]]) -> list[Mapping[str, NDArray[np.float32]] | str]:
    """Runs them at the same time; an error as its text."""
    start = threading.Barrier(len(tensors))

    def run(tensor: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]] | str:
        start.wait(10)
        try:
            return engine.run(tensor)
        except RuntimeError as error:
            return str(error)

    with ThreadPoolExecutor(len(tensors)) as pool:
        return list(pool.map(run, tensors))


def test_each_thread_gets_the_outputs_of_its_own_frame() -> None:
    watched, alone = Watched(), OnnxRuntimeEngine(bright_spots())
    tensors = [pixels(seed) for seed in range(4)]
    found = together(BatchingEngine(watched, 4, wait_seconds=10.0), tensors)
    assert watched.sizes == [4]
    for tensor, outputs in zip(tensors, found, strict=True):
        assert isinstance(outputs, Mapping)
        for name, value in alone.run(tensor).items():
            np.testing.assert_allclose(outputs[name], value, atol=1e-6)


def test_frames_of_other_sizes_run_apart_and_nobody_waits_longer_than_it_may() -> None:
    watched = Watched()
    found = together(BatchingEngine(watched, 4, wait_seconds=0.2), [pixels(0), pixels(1), pixels(2, height=128)])
    assert sorted(watched.sizes) == [1, 2]
    assert {outputs["heatmap"].shape for outputs in found if isinstance(outputs, Mapping)} == {
        (1, 1, 16, 24),
        (1, 1, 32, 24),
    }


def test_more_frames_than_a_batch_holds_make_several() -> None:
    watched = Watched()
    together(BatchingEngine(watched, 2, wait_seconds=10.0), [pixels(seed) for seed in range(6)])
    assert watched.sizes == [2, 2, 2]


def test_a_frame_that_breaks_the_batch_breaks_alone() -> None:
    watched = Watched()
    tensors = [pixels(0), np.zeros_like(pixels(0)), pixels(1)]
    found = together(BatchingEngine(watched, 3, wait_seconds=10.0), tensors)
    assert [isinstance(outputs, Mapping) for outputs in found] == [True, False, True]
    assert found[1] == "a black frame"
    assert sorted(watched.sizes) == [1, 1, 1, 3]


def test_a_model_of_one_picture_at_a_time_is_refused() -> None:
    model = onnx.load_from_string(bright_spots())
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    build = in_batches(default_engine, 4, 0.01)
    with pytest.raises(BadVariant, match="one picture at a time"):
        build(model.SerializeToString(), (96, 64))


def test_without_batches_the_engine_is_as_it_was() -> None:
    assert in_batches(default_engine, 1, 0.01) is default_engine


def test_a_server_answers_the_same_in_batches(
    repository: Repository, shared_server: RunningServer, tmp_path: Path, spot_jpeg: bytes
) -> None:
    flags = ("--workers", "4", "--max-batch", "4", "--batch-wait-seconds", "0.05")
    with start_server(repository.root, tmp_path / "log", *flags) as server:

        def caller(_: int) -> list[Result]:
            with server.client() as client:
                return [client.detect("spots", spot_jpeg) for _ in range(3)]

        with ThreadPoolExecutor(4) as pool:
            found = [result for results in pool.map(caller, range(4)) for result in results]
        with server.client() as client:
            (runtime,) = {one.runtime for one in client.variants() if one.runtime}
        frames = metric(server, "lathe_batch_frames_sum", variant="a")
        assert frames == len(found)  # none of those that warmed it up
        assert metric(server, "lathe_batch_frames_count", variant="a") < frames
        assert "lathe_gpu_seconds_total" not in exposition(server)
    with shared_server.client() as client:
        expected = client.detect("spots", spot_jpeg).detections
    assert runtime.endswith("batches of up to 4")
    for result in found:
        np.testing.assert_allclose(result.detections.xyxy, expected.xyxy, atol=1e-3)
