"""What a network does to what passes, as arithmetic: when bytes that come now arrive on the other side."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Literal

PACKET_BYTES = 1448
"""That a TCP segment carries over Ethernet."""
BUFFER_SECONDS, LEAST_BUFFER_BYTES, UNLIMITED_BUFFER_BYTES = 0.25, 2**16, 2**24
"""What a router holds of a line that is full, before senders feel it."""

CutHow = Literal["reset", "close", "silence"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Faults:
    """How a network treats connections; without arguments it does nothing to them.

    Attributes:
        delay_seconds: that everything takes, each way.
        jitter_seconds: up to so much more. Order is kept, as TCP keeps it.
        loss: share of the packets that get lost. TCP sends them once more, and what comes behind them waits: a program
            sees a stall.
        retransmit_seconds: how long that takes; twice as long where the second is lost too, and so on.
        stalls_per_second, stall_seconds: when nothing passes at all, as where Wi-Fi fades: at random moments, for
            lengths of this mean.
        bytes_per_second: each way, of all connections together; 0 is no limit.
        cuts_per_second: at random moments one connection is cut.
        cut_how: reset or closed; or nothing is passed on any more, and nobody told.
        seed: of all that is random.
    """

    delay_seconds: float = 0.0
    jitter_seconds: float = 0.0
    loss: float = 0.0
    retransmit_seconds: float = 0.2
    stalls_per_second: float = 0.0
    stall_seconds: float = 0.0
    bytes_per_second: float = 0.0
    cuts_per_second: float = 0.0
    cut_how: CutHow = "reset"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.loss < 1:
            raise ValueError("loss is a share, from 0 to below 1")
        for name in (
            "delay_seconds",
            "jitter_seconds",
            "retransmit_seconds",
            "stalls_per_second",
            "stall_seconds",
            "bytes_per_second",
            "cuts_per_second",
        ):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must not be negative or infinite")
        if self.stalls_per_second and not self.stall_seconds:
            raise ValueError("stalls_per_second needs stall_seconds, their mean length")

    @property
    def buffer_bytes(self) -> int:
        """On their way in one direction of a connection before its sender is held back."""
        if not self.bytes_per_second:
            return UNLIMITED_BUFFER_BYTES
        return max(LEAST_BUFFER_BYTES, round(self.bytes_per_second * BUFFER_SECONDS))


class Line:
    """One direction of the line that all connections share: it has the bandwidth and the stalls.

    Args:
        start: a time, by the clock of all calls.

    >>> line = Line(Faults(bytes_per_second=1000.0), start=0.0, name="up")
    >>> [line.through(0.0, 500), line.through(0.1, 500), line.through(9.0, 500)]
    [0.5, 1.0, 9.5]
    """

    def __init__(self, faults: Faults, start: float, name: str) -> None:
        self._faults = faults
        self._random = random.Random(f"{faults.seed} {name}")
        self._free_at = start
        self._stall_at = start + self._until_stall()

    def through(self, now: float, size: int) -> float:
        """When so many bytes, which come now, are through."""
        at = max(now, self._free_at)
        while self._stall_at <= at:
            end = self._stall_at + self._random.expovariate(1 / self._faults.stall_seconds)
            at = max(at, end)
            self._stall_at = end + self._until_stall()
        if self._faults.bytes_per_second:
            at += size / self._faults.bytes_per_second
        self._free_at = at
        return at

    def _until_stall(self) -> float:
        per_second = self._faults.stalls_per_second
        return self._random.expovariate(per_second) if per_second else math.inf


class Lane:
    """One direction of one connection on a line: it has the delay, the losses and the order."""

    def __init__(self, faults: Faults, line: Line, name: str) -> None:
        self._faults = faults
        self._line = line
        self._random = random.Random(f"{faults.seed} {name}")
        self._last = -math.inf

    def arrives(self, now: float, size: int) -> float:
        """When so many bytes, which come now, arrive; never before those that came earlier."""
        late = self._faults.delay_seconds + self._random.random() * self._faults.jitter_seconds
        self._last = max(self._last, self._line.through(now, size) + late + self._resending_seconds(size))
        return self._last

    def _resending_seconds(self, size: int) -> float:
        loss, wait = self._faults.loss, self._faults.retransmit_seconds
        if not loss or self._random.random() < (1 - loss) ** math.ceil(size / PACKET_BYTES):
            return 0.0
        seconds = wait
        while self._random.random() < loss:
            wait *= 2
            seconds += wait
        return seconds
