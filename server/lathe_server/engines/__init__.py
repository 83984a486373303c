"""Runtimes that execute a variant, behind one small interface."""

from lathe_server.engines.choose import Build, default_engine, engine_builder, in_batches, metered
from lathe_server.engines.engine import FREE, Engine, TensorSpec
from lathe_server.engines.onnx_runtime import RUNTIME, OnnxRuntimeEngine

__all__ = [
    "FREE",
    "RUNTIME",
    "Build",
    "Engine",
    "OnnxRuntimeEngine",
    "TensorSpec",
    "default_engine",
    "engine_builder",
    "in_batches",
    "metered",
]
