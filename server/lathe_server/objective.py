"""What a frame's fate says about the server's objective: so many of the frames answered within so many seconds."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from lathe_server.frames import Outcome

Fulfilment = Literal["met", "late", "lost"]
FULFILMENTS: tuple[Fulfilment, ...] = ("met", "late", "lost")

_LOST: Mapping[Outcome, Fulfilment] = MappingProxyType(
    {
        "dropped_superseded": "lost",
        "dropped_too_old": "lost",
        "dropped_deadline": "lost",
        "dropped_draining": "lost",
        "failed": "lost",
    }
)


def fulfilment(outcome: Outcome, seconds: float, objective_seconds: float) -> Fulfilment | None:
    """None for a frame that says nothing about the server: one that could not be judged at all, or whose caller left.

    Args:
        seconds: from its arrival to its answer.

    >>> fulfilment("answered", 0.02, 0.1), fulfilment("answered", 0.2, 0.1), fulfilment("dropped_too_old", 0.02, 0.1)
    ('met', 'late', 'lost')
    >>> fulfilment("rejected", 0.02, 0.1), fulfilment("dropped_cancelled", 0.02, 0.1)
    (None, None)
    """
    if outcome == "answered":
        return "met" if seconds <= objective_seconds else "late"
    return _LOST.get(outcome)
