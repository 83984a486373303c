"""What a scenario expects of a run, as its file says it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Expect:
    """What must hold; what is not said does not matter, but no frame may be lost, rejected or fail.

    Attributes:
        of: the group of cameras that this is of; empty for all of them.
        lost, rejected, failed: frames, at most.
        dropped_share: of the frames that were due, at most, for whatever reason.
        answered_share: of the frames that were due, at least.
        p50_seconds, p99_seconds: from when frames were to be sent until their answers came, at most.
        answered_by: by variant the share of the answered frames, at least.
        split: weights by variant. Each stream is answered by one of them alone, and how many streams each has is
            within the interval in which 99 of 100 draws by these weights are.
        silent_seconds: one after another in which frames were due of which none was answered, then or later; at most.
        grown_bytes: by which the server's resident memory grows from the second fifth of the run to the last, at most.
        actions: done without an error, at least; errors are never expected.
    """

    of: str = ""
    lost: int = 0
    rejected: int = 0
    failed: int = 0
    dropped_share: float | None = None
    answered_share: float | None = None
    p50_seconds: float | None = None
    p99_seconds: float | None = None
    answered_by: Mapping[str, float] = field(default_factory=dict)
    split: Mapping[str, int] = field(default_factory=dict)
    silent_seconds: int | None = None
    grown_bytes: int | None = None
    actions: int = 0

    def __post_init__(self) -> None:
        for name in ("lost", "rejected", "failed", "silent_seconds", "grown_bytes", "actions"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f'"{name}" must be 0 or above')
        shares = {"dropped_share": self.dropped_share, "answered_share": self.answered_share, **self.answered_by}
        for name, share in shares.items():
            if not 0 <= (share or 0.0) <= 1:
                raise ValueError(f'"{name}" is a share, from 0 to 1')
        for name in ("p50_seconds", "p99_seconds"):
            if not 0 < (1.0 if getattr(self, name) is None else getattr(self, name)) < math.inf:
                raise ValueError(f'"{name}" must be above 0')
        if self.split and (min(self.split.values()) < 0 or not sum(self.split.values())):
            raise ValueError('"split" needs weights of 0 or above, one of them above')
        of_all = (self.silent_seconds, self.grown_bytes, self.actions or None)
        if self.of and any(value is not None for value in of_all):
            raise ValueError('"silent_seconds", "grown_bytes" and "actions" are of the whole run: without "of"')
