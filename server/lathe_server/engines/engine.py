"""The one small interface that servables know of a runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from lathe_server.engines.meter import Meter

FREE = -1
"""A dimension that may be of any size."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, element type as NumPy names it, and shape; a free dimension is `FREE`."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class Engine(Protocol):
    """A loaded network that any number of threads may run at the same time, each run on its caller's thread.

    Attributes:
        runtime: what runs it, with its version, for logs, cards and reports.
        runs_alone: a run needs nothing but the thread that asks: no device, no other thread, no turn.
        on_gpu: its runs need a graphics processor.
    """

    runtime: str
    runs_alone: bool
    on_gpu: bool
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def meter(self) -> Meter | None:
        """Of its runs; None where nobody needs one."""

    def run(self, tensor: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        """Runs the network on its only input; outputs by name, the caller's to keep."""

    def infer(self, tensors: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Runs it on all its inputs by name, of whatever types; outputs as of `run`."""
