"""What a run takes of its device, and how many frames it has."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lathe_server.engines.engine import Engine


class Device:
    """Time of a device, divided evenly among the runs that have it at the same moment: the parts of all never come to
    more than the time that passed.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._parts: dict[object, float] = {}
        self._at = 0.0

    def enter(self) -> object:
        """A run begins; returns what to leave with."""
        run = object()
        with self._lock:
            self._share_out()
            self._parts[run] = 0.0
        return run

    def leave(self, run: object) -> float:
        """It has ended; returns its seconds of the device.

        >>> now = [0.0]
        >>> device = Device(lambda: now[0])
        >>> first = device.enter(); now[0] = 2.0; second = device.enter(); now[0] = 6.0
        >>> device.leave(first), device.leave(second)
        (4.0, 2.0)
        """
        with self._lock:
            self._share_out()
            return self._parts.pop(run)

    def _share_out(self) -> None:
        now = self._clock()
        if self._parts:
            part = (now - self._at) / len(self._parts)
            for run in self._parts:
                self._parts[run] += part
        self._at = now


GPU = Device()
"""The one graphics processor that a server uses."""


class _Spent(threading.local):
    seconds = 0.0


_spent = _Spent()


def gpu_seconds() -> float:
    """Of the graphics processor, that the calling thread's runs have had since it began: as `thread_time` is of a
    processor. A batch is the run of the thread that brought its first frame."""
    return _spent.seconds


class Meter:
    """Of one variant's runs.

    Args:
        device: that they are on; None for processors, whose time is the thread's own.

    Attributes:
        told: called on the thread of each run that has come to its end, with its frames.
    """

    def __init__(self, device: Device | None) -> None:
        self.device = device
        self.told: Callable[[int], None] = lambda frames: None

    @contextmanager
    def run(self, frames: int) -> Iterator[None]:
        own = self.device.enter() if self.device else None
        try:
            yield
        finally:
            if self.device:
                _spent.seconds += self.device.leave(own)
        self.told(frames)


class MeteredEngine:
    """An engine whose runs are told of."""

    def __init__(self, engine: Engine) -> None:
        self.meter = Meter(GPU if engine.on_gpu else None)
        self.runs_alone, self.on_gpu = engine.runs_alone, engine.on_gpu
        self.runtime, self.inputs, self.outputs = engine.runtime, engine.inputs, engine.outputs
        self._engine = engine

    def run(self, tensor: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        with self.meter.run(len(tensor)):
            return self._engine.run(tensor)

    def infer(self, tensors: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        with self.meter.run(1):
            return self._engine.infer(tensors)
