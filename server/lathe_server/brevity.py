"""Which calls of a network are so quick that handing one to a worker would cost more than doing it where it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from numpy.typing import NDArray

BRIEF_SECONDS = 0.0001
MIN_RUNS = 50
FORGETTING = 0.98
"""Of the slowest run so far, at each run after it."""
MAX_SHAPES = 16

Shape: TypeAlias = Sequence[tuple[int, ...]]


class Brevity:
    """How long a network takes, by the CPU time of its last runs with inputs of a shape: a run may be longer for want
    of a core, and that says nothing of the network.

    A network whose time depends on more than shapes must not have one: with branches, loops, or inputs that say how
    large something is to be.

    >>> brevity = Brevity()
    >>> for _ in range(MIN_RUNS): brevity.ran([(1, 16)], 0.00005)
    >>> brevity.is_brief([(1, 16)]), brevity.is_brief([(9, 16)])
    (True, False)
    >>> brevity.ran([(1, 16)], 0.001)
    >>> brevity.is_brief([(1, 16)])
    False
    """

    __slots__ = ("_runs",)

    def __init__(self) -> None:
        self._runs: dict[tuple[tuple[int, ...], ...], _Runs] = {}

    def ran(self, shape: Shape, cpu_seconds: float) -> None:
        """With inputs of these shapes; of more kinds than a few the first ones are remembered."""
        runs = self._runs.get(tuple(shape))
        if runs is None:
            if len(self._runs) >= MAX_SHAPES:
                return
            runs = self._runs[tuple(shape)] = _Runs()
        runs.count += 1
        runs.slowest = max(cpu_seconds, runs.slowest * FORGETTING)

    def is_brief(self, shape: Shape) -> bool:
        runs = self._runs.get(tuple(shape))
        return runs is not None and runs.count >= MIN_RUNS and runs.slowest < BRIEF_SECONDS


class _Runs:
    __slots__ = ("count", "slowest")

    def __init__(self) -> None:
        self.count = 0
        self.slowest = 0.0


def shape_of(inputs: Mapping[str, NDArray[Any]]) -> Shape:
    """Of inputs in the order of their names."""
    if len(inputs) == 1:
        return [value.shape for value in inputs.values()]
    return [inputs[name].shape for name in sorted(inputs)]
