"""What one process of the driver notes while it sends: columns, a row a frame, in the order of due times."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lathe_loadtest.messages import OUTCOME_NUMBERS
from lathe_loadtest.result import ANSWERED
from lathe_loadtest.schedule import CameraPlan

_ANSWERED = OUTCOME_NUMBERS[ANSWERED]


@dataclass(frozen=True)
class Rows:
    """Notes as they travel from a process to the one that started it.

    Attributes:
        cameras: names, to which `camera` refers; `connections` is of each.
        due: seconds since the start.
        outcome: as of `OUTCOME_NUMBERS`.
        variant: refers to `variants`.
        latency, lateness: seconds.
        cpu_seconds, frames: of all that was sent, in the warm-up too.
    """

    cameras: tuple[str, ...]
    connections: tuple[int, ...]
    variants: tuple[str, ...]
    camera: NDArray[np.int32]
    due: NDArray[np.float64]
    sent: NDArray[np.bool_]
    outcome: NDArray[np.uint8]
    variant: NDArray[np.uint16]
    latency: NDArray[np.float64]
    lateness: NDArray[np.float32]
    cpu_seconds: float
    frames: int

    @property
    def answered(self) -> NDArray[np.bool_]:
        return np.asarray(self.outcome == _ANSWERED, np.bool_)


class Notes:
    """Args:
    plans: of the cameras of this process.
    """

    def __init__(self, plans: Sequence[CameraPlan]) -> None:
        due = np.concatenate([plan.due for plan in plans])
        order = np.argsort(due, kind="stable")
        # Plain arrays: reading and writing single elements of numpy's costs several times as much.
        self.due = array("d", due[order].tobytes())
        self.captured = array("d", np.concatenate([plan.captured for plan in plans])[order].tobytes())
        camera = np.repeat(np.arange(len(plans), dtype=np.int32), [len(plan.due) for plan in plans])
        self.camera = array("i", camera[order].tobytes())
        rows = len(self.due)
        self._names = tuple(plan.name for plan in plans)
        self._sent = bytearray(rows)
        self._outcome = bytearray(rows)
        self._variant = array("H", bytes(2 * rows))
        self._latency = array("d", bytes(8 * rows))
        self.lateness = array("f", bytes(4 * rows))
        self._variants: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.due)

    def sent(self, row: int) -> None:
        self._sent[row] = 1

    def was_sent(self, row: int) -> bool:
        return bool(self._sent[row])

    def settle(self, row: int, outcome: str, variant: str = "", latency_seconds: float = 0.0) -> None:
        """What became of a frame; the first word counts."""
        if self._outcome[row]:
            return
        number = OUTCOME_NUMBERS[outcome]
        self._outcome[row] = number
        if number == _ANSWERED:
            self._latency[row] = latency_seconds
            self._variant[row] = self._variants.setdefault(variant, len(self._variants))

    def rows(self, begin_seconds: float, count: int, connections: Sequence[int], cpu_seconds: float) -> Rows:
        """The first so many, without those that were due before some time."""
        due = np.array(self.due[:count])
        kept = slice(int(np.searchsorted(due, begin_seconds)), count)
        return Rows(
            cameras=self._names,
            connections=tuple(connections),
            variants=tuple(self._variants),
            camera=np.array(self.camera, np.int32)[kept],
            due=due[kept],
            sent=np.frombuffer(bytes(self._sent), np.bool_)[kept],
            outcome=np.frombuffer(bytes(self._outcome), np.uint8)[kept],
            variant=np.array(self._variant, np.uint16)[kept],
            latency=np.array(self._latency)[kept],
            lateness=np.array(self.lateness, np.float32)[kept],
            cpu_seconds=cpu_seconds,
            frames=sum(self._sent[:count]),
        )
