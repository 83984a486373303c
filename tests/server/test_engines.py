"""The runtimes behind their interface, and which of them is taken."""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from time import process_time, thread_time

import numpy as np
import pytest

from lathe.errors import BadVariant, Refused, Unavailable
from lathe.repository import Repository
from lathe_server.engine_names import ENGINES, PROVIDERS
from lathe_server.engines import Engine, OnnxRuntimeEngine, choose, engine_builder
from tests.conftest import RunningServer, start_server
from tests.models import bright_spots

needs_openvino = pytest.mark.skipif(not importlib.util.find_spec("openvino"), reason="OpenVINO is not installed")
SIZE_WH = (160, 128)


def openvino_engine(model: bytes) -> Engine:
    return engine_builder("openvino", or_default=False)(model, SIZE_WH)


BOTH = [
    pytest.param(OnnxRuntimeEngine, id="onnxruntime"),
    pytest.param(openvino_engine, id="openvino", marks=needs_openvino),
]


def pixels(seed: int = 0, size_wh: tuple[int, int] = SIZE_WH) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (1, size_wh[1], size_wh[0], 3), np.uint8)


@pytest.mark.parametrize("build", BOTH)
def test_engine_says_what_goes_in_and_out(build: Callable[[bytes], Engine]) -> None:
    engine = build(bright_spots())
    (spec,) = engine.inputs
    assert (spec.name, spec.dtype, spec.shape) == ("pixels", "uint8", (-1, -1, -1, 3))
    assert {one.name: one.dtype for one in engine.outputs} == dict.fromkeys(
        ("heatmap", "scale", "offset", "landmarks"), "float32"
    )


@pytest.mark.parametrize("build", BOTH)
def test_engine_runs_any_size_and_its_outputs_stay_as_they_were(build: Callable[[bytes], Engine]) -> None:
    engine = build(bright_spots())
    first = engine.run(pixels())
    before = {name: value.copy() for name, value in first.items()}
    assert first["heatmap"].shape == (1, 1, 32, 40)
    assert engine.run(pixels(1, (96, 64)))["heatmap"].shape == (1, 1, 16, 24)
    engine.run(pixels(2))
    assert all(np.array_equal(before[name], value) for name, value in first.items())


@pytest.mark.parametrize("build", BOTH)
def test_any_number_of_threads_run_one_engine(build: Callable[[bytes], Engine]) -> None:
    engine = build(bright_spots(work=2))
    expected = [engine.run(pixels(seed))["heatmap"] for seed in range(4)]
    wrong: list[int] = []

    def work(seed: int) -> None:
        answers = [engine.run(pixels(seed))["heatmap"] for _ in range(10)]
        wrong.extend(seed for answer in answers if not np.allclose(answer, expected[seed], atol=1e-5))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("build", BOTH)
def test_a_frames_cpu_time_is_that_of_the_thread_that_runs_it(build: Callable[[bytes], Engine]) -> None:
    """It is what cost and energy are counted by."""
    engine = build(bright_spots(work=8))
    engine.run(pixels())
    own, all_threads = thread_time(), process_time()
    for _ in range(20):
        engine.run(pixels())
    assert thread_time() - own > 0.8 * (process_time() - all_threads)


@needs_openvino
def test_both_runtimes_answer_alike() -> None:
    answers = [build(bright_spots(work=1)).run(pixels()) for build in (OnnxRuntimeEngine, openvino_engine)]
    for name, value in answers[0].items():
        np.testing.assert_allclose(answers[1][name], value, atol=1e-4)


@pytest.mark.parametrize("build", BOTH)
def test_what_is_no_model_is_refused(build: Callable[[bytes], Engine]) -> None:
    with pytest.raises(BadVariant, match="cannot load the model"):
        build(b"no model")


@needs_openvino
def test_auto_takes_the_one_that_needs_less_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(OnnxRuntimeEngine):
        def run(self, tensor: np.ndarray) -> dict[str, np.ndarray]:
            pause.wait(0.02)
            return dict(super().run(tensor))

    pause = threading.Event()
    for slow, expected in {"openvino": OnnxRuntimeEngine, "onnxruntime": None}.items():
        builders = dict(choose._builders()) | {slow: Slow}
        monkeypatch.setattr(choose, "_builders", lambda builders=builders: builders)
        taken = engine_builder("auto", or_default=False)(bright_spots(), SIZE_WH)
        assert type(taken) is (expected or type(openvino_engine(bright_spots())))
        monkeypatch.undo()


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_is_built_or_its_lack_is_told(name: str) -> None:
    lacking = name in PROVIDERS or (name == "openvino" and not importlib.util.find_spec("openvino"))
    if lacking:
        with pytest.raises(Refused, match=f"the engine {name} cannot be used: .*install"):
            engine_builder(name, or_default=False)
    else:
        assert engine_builder(name, or_default=False)(bright_spots(), SIZE_WH).run(pixels())


@pytest.mark.fault(78)
@pytest.mark.parametrize("name", PROVIDERS)
def test_missing_provider_is_said_loudly_and_replaced_where_settings_allow_it(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    build = engine_builder(name, or_default=True)
    assert caplog.records[-1].levelno == logging.ERROR
    assert f"the engine {name} cannot be used" in caplog.text
    assert PROVIDERS[name] in caplog.text
    assert "onnxruntime on the processor takes its place" in caplog.text
    assert build(bright_spots(), SIZE_WH).runtime.startswith("onnxruntime")


@pytest.mark.fault(78)
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_provider_whose_device_is_missing_is_found_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The runtime lists it, and starts without it, as a build for GPUs does on a machine that has none."""
    monkeypatch.setattr(choose, "_missing", lambda name: "")
    with pytest.raises(Refused, match="CUDAExecutionProvider does not start on this machine"):
        engine_builder("cuda", or_default=False)(bright_spots(), SIZE_WH)
    assert engine_builder("cuda", or_default=True)(bright_spots(), SIZE_WH).run(pixels())
    assert "takes its place" in caplog.text


@pytest.mark.fault(78)
def test_server_without_its_engine_does_not_start_unless_it_may_fall_back(
    repository: Repository, tmp_path: Path
) -> None:
    log = tmp_path / "server.log"
    with pytest.raises(Unavailable, match=r"the engine cuda cannot be used.*CUDAExecutionProvider"):
        RunningServer(repository.root, log, ["--engine", "cuda"])
    with start_server(repository.root, log, "--engine", "cuda", "--engine-missing", "fall-back"):
        assert "cannot be used" in log.read_text()


@needs_openvino
def test_server_says_which_runtime_executes_a_variant(repository: Repository, tmp_path: Path) -> None:
    with (
        start_server(repository.root, tmp_path / "server.log", "--engine", "openvino") as running,
        running.client() as client,
    ):
        assert {one.card.variant: one.runtime.split()[:1] for one in client.variants()} == {"a": ["openvino"], "b": []}
