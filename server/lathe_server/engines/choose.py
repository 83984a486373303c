"""Which runtime executes a variant: the one that the settings name, or the faster on this machine."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from time import perf_counter

import numpy as np
import onnxruntime

from lathe.errors import BadVariant, Refused
from lathe_server.engine_names import AUTO, DEFAULT, PROVIDERS
from lathe_server.engines.batching import BatchingEngine
from lathe_server.engines.engine import Engine
from lathe_server.engines.meter import MeteredEngine
from lathe_server.engines.onnx_runtime import OnnxRuntimeEngine

log = logging.getLogger(__name__)

ROUNDS, WARM_UP_ROUNDS = 15, 3

Build = Callable[[bytes, tuple[int, int]], Engine]
"""Loads the content of an ONNX file; the second is the width and height that it will mostly be run at, 0 where it takes
no pictures."""


def default_engine(model: bytes, size_wh: tuple[int, int]) -> Engine:
    """ONNX Runtime on the processor, which every installation has."""
    return OnnxRuntimeEngine(model)


def engine_builder(name: str, *, or_default: bool) -> Build:
    """What loads variants with an engine.

    Args:
        name: one of `ENGINES`.
        or_default: take ONNX Runtime on the processor, and say so, where this machine has not the engine.

    Raises:
        Refused: this machine has not the engine.
    """
    if missing := _missing(name):
        if not or_default:
            raise Refused(f"the engine {name} cannot be used: {missing}")
        _say_replaced(name, missing)
        name = DEFAULT
    if name == AUTO:
        return _fastest
    build = _builders()[name]

    def load(model: bytes, size_wh: tuple[int, int]) -> Engine:
        try:
            return build(model)
        except Refused as error:  # the build has it, and the device is missing
            if not or_default:
                raise
            _say_replaced(name, error.message)
            return OnnxRuntimeEngine(model)

    return load


def in_batches(build: Build, largest: int, wait_seconds: float) -> Build:
    """What loads the same engines, running batches of up to so many frames; as they are where that is one."""

    def load(model: bytes, size_wh: tuple[int, int]) -> Engine:
        engine = build(model, size_wh)
        return BatchingEngine(engine, largest, wait_seconds) if all(size_wh) else engine

    return load if largest > 1 else build


def metered(build: Build, *, in_batches: bool) -> Build:
    """What loads the same engines, with a meter where runs have several frames, or need a graphics processor."""

    def load(model: bytes, size_wh: tuple[int, int]) -> Engine:
        engine = build(model, size_wh)
        return MeteredEngine(engine) if in_batches or engine.on_gpu else engine

    return load


def _say_replaced(name: str, why: str) -> None:
    log.error("the engine %s cannot be used: %s; %s on the processor takes its place", name, why, DEFAULT)


def _missing(name: str) -> str:
    """What this machine lacks for an engine; empty where it has everything."""
    if name == "openvino" and not importlib.util.find_spec("openvino"):
        return "OpenVINO is not installed; pip install 'lathe[openvino]'"
    if name in PROVIDERS and PROVIDERS[name] not in onnxruntime.get_available_providers():
        return f"this build of ONNX Runtime has no {PROVIDERS[name]}; install the one for GPUs"
    return ""


def _builders() -> Mapping[str, Callable[[bytes], Engine]]:
    """By name, those that this machine has; a runtime is imported when it is first used."""
    found: dict[str, Callable[[bytes], Engine]] = {DEFAULT: OnnxRuntimeEngine}
    if not _missing("openvino"):
        found["openvino"] = _open_vino
    for name, provider in PROVIDERS.items():
        if not _missing(name):
            found[name] = partial(OnnxRuntimeEngine, provider=provider)
    return found


def _open_vino(model: bytes) -> Engine:
    from lathe_server.engines.open_vino import OpenVinoEngine

    return OpenVinoEngine(model)


def _fastest(model: bytes, size_wh: tuple[int, int]) -> Engine:
    """Of those on the processor that can run the model, the one with the least median time, taking turns at one size;
    the default where there is no size to take turns at.

    Raises:
        BadVariant: none can.
    """
    if not all(size_wh):
        return default_engine(model, size_wh)
    candidates, refusals = [], []
    tensor = np.full((1, size_wh[1], size_wh[0], 3), 127, np.uint8)
    for name, build in _builders().items():
        if name not in PROVIDERS:
            try:
                engine = build(model)
                engine.run(tensor)
                candidates.append(engine)
            except Exception as error:  # noqa: BLE001  runtimes raise what they like; another may run it
                refusals.append(error if isinstance(error, BadVariant) else BadVariant(_FAILS, detail=str(error)))
    if not candidates:
        raise refusals[0]
    if len(candidates) == 1:
        return candidates[0]
    seconds: list[list[float]] = [[] for _ in candidates]
    for _ in range(WARM_UP_ROUNDS + ROUNDS):
        for engine, taken in zip(candidates, seconds, strict=True):
            began = perf_counter()
            engine.run(tensor)
            taken.append(perf_counter() - began)
    medians = [median(taken[WARM_UP_ROUNDS:]) for taken in seconds]
    chosen = candidates[medians.index(min(medians))]
    told = (f"{one.runtime} {each * 1e3:.2f} ms" for one, each in zip(candidates, medians, strict=True))
    log.info("engine: %s; %s is taken", ", ".join(told), chosen.runtime)
    return chosen


_FAILS = "the model fails on what it is tried with"
