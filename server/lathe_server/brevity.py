"""Which networks are so quick that handing one to a worker would cost more than running it where it is."""

from __future__ import annotations

BRIEF_SECONDS = 0.0001
MIN_RUNS = 50
FORGETTING = 0.98
"""Of the slowest run so far, at each run after it."""


class Brevity:
    """How long a network takes, by the CPU time of its last runs: a run may be longer for want of a core, and that
    says nothing of the network.

    >>> brevity = Brevity()
    >>> for _ in range(MIN_RUNS): brevity.ran(0.00005)
    >>> brevity.is_brief
    True
    >>> brevity.ran(0.001)
    >>> brevity.is_brief
    False
    """

    __slots__ = ("_runs", "_slowest")

    def __init__(self) -> None:
        self._runs = 0
        self._slowest = 0.0

    def ran(self, cpu_seconds: float) -> None:
        self._runs += 1
        self._slowest = max(cpu_seconds, self._slowest * FORGETTING)

    @property
    def is_brief(self) -> bool:
        return self._runs >= MIN_RUNS and self._slowest < BRIEF_SECONDS
