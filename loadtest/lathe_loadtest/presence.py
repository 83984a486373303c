"""Whether the server is lost: nobody who wants to be connected is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Presence:
    """Of the cameras of one process, at one moment; times are seconds since the start.

    Attributes:
        open: cameras that are connected.
        wanted: those that are to be.
        last_open_seconds: when one last was.
        wanted_since_seconds: for how long some have been wanted without a break.
    """

    open: int
    wanted: int
    last_open_seconds: float
    wanted_since_seconds: float


def lost_seconds(presences: Sequence[Presence], now: float) -> float:
    """For how long no camera of any process has been connected though some were to be; 0 where that is not so.

    >>> lost_seconds([Presence(0, 2, 3.0, 0.0), Presence(0, 0, 4.0, 9.0)], now=10.0)
    6.0
    >>> lost_seconds([Presence(0, 2, 3.0, 0.0), Presence(1, 1, 10.0, 0.0)], now=10.0)
    0.0
    """
    wanted = [one.wanted_since_seconds for one in presences if one.wanted]
    if not wanted or any(one.open for one in presences):
        return 0.0
    return now - max(min(wanted), *(one.last_open_seconds for one in presences))
