"""Frames that workers bring at the same time, run as one batch.

For accelerators, which take eight pictures in little more time than one. On a processor a batch of a convolutional
network costs as much a frame as the frames one by one, or more (design: 0.96 to 1.93 times), so it is off by default.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lathe.errors import BadVariant
from lathe_server.engines.engine import FREE, Engine


@dataclass(eq=False)
class _Batch:
    """Tensors of one shape. Who opened it runs it; the others wait for `ran`."""

    tensors: list[NDArray[np.uint8]] = field(default_factory=list)
    full: threading.Event = field(default_factory=threading.Event)
    ran: threading.Event = field(default_factory=threading.Event)
    outputs: Mapping[str, NDArray[np.float32]] | None = None  # None too where the run failed


class BatchingEngine:
    """An engine that runs what several threads bring together.

    Args:
        engine: what executes the network.
        largest: frames in a batch, at most.
        wait_seconds: how long the first frame of a batch waits for others.

    Raises:
        BadVariant: the model takes one picture at a time.
    """

    def __init__(self, engine: Engine, largest: int, wait_seconds: float) -> None:
        if any(spec.shape[:1] != (FREE,) for spec in (*engine.inputs, *engine.outputs)):
            raise BadVariant("the model takes one picture at a time; batches need a free first dimension")
        self.runs_alone = False
        self.on_gpu, self.meter = engine.on_gpu, engine.meter
        self.runtime = f"{engine.runtime}, batches of up to {largest}"
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self._engine = engine
        self._largest = largest
        self._wait_seconds = wait_seconds
        self._lock = threading.Lock()  # of what is open, and of the tensors in it
        self._open: dict[tuple[int, ...], _Batch] = {}

    def run(self, tensor: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        with self._lock:
            batch = self._open.get(tensor.shape)
            leads = batch is None
            if batch is None:
                batch = self._open[tensor.shape] = _Batch()
            place = len(batch.tensors)
            batch.tensors.append(tensor)
            if len(batch.tensors) == self._largest:
                del self._open[tensor.shape]
                batch.full.set()
        if leads:
            self._lead(batch, tensor.shape)
        else:
            batch.ran.wait()
        if batch.outputs is None:  # one frame must not spoil the others: each has its own run, and its own error
            return self._engine.run(tensor)
        return {name: value[place : place + 1] for name, value in batch.outputs.items()}

    def infer(self, tensors: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """One by one: whoever sends tensors can batch them."""
        return self._engine.infer(tensors)

    def _lead(self, batch: _Batch, shape: tuple[int, ...]) -> None:
        try:
            batch.full.wait(self._wait_seconds)
            with self._lock:
                if self._open.get(shape) is batch:
                    del self._open[shape]
            if len(batch.tensors) > 1:
                batch.outputs = self._engine.run(np.concatenate(batch.tensors))
        except Exception:  # noqa: BLE001  told by the run of whose fault it is
            batch.outputs = None
        finally:
            batch.ran.set()
