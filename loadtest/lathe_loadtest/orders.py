"""What the driver and its processes say to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lathe.connection import Connection
from lathe_loadtest.notes import Rows
from lathe_loadtest.presence import Presence
from lathe_loadtest.scenario import Scenario


@dataclass(frozen=True)
class Task:
    """What a process is to do.

    Attributes:
        address: HOST:PORT to connect to.
        server: HOST:PORT of the server itself.
        part: it has every `parts`-th camera, from this one on.
        pictures: files of JPEGs, by the cameras' group; each is a length of four bytes and so many bytes, repeated.
    """

    scenario: Scenario
    address: str
    server: str
    connection: Connection
    part: int
    parts: int
    pictures: dict[str, Path]


@dataclass(frozen=True)
class Ready:
    """Attributes:
    connected: cameras that are there from the start; where none is to be, 1 if there is a server.
    frames: that are to be sent.
    """

    connected: int
    frames: int
    problem: str


@dataclass(frozen=True)
class Begin:
    """At a time of the monotonic clock, which is the same for all processes of a machine, and as Unix time."""

    at: float
    at_unix: float


@dataclass(frozen=True)
class Stop:
    """Frames that were due later than this are none; answers to the others are waited for, where `drain` says so."""

    seconds: float
    drain: bool = True


@dataclass(frozen=True)
class Beat:
    seconds: float
    rows: int
    presence: Presence
    problem: str


@dataclass(frozen=True)
class Done:
    """Attributes:
    presence, problem: at the end of sending, before the cameras went.
    own_limits: cameras that could not be connected, by what this machine had too little of.
    strange: see `Link`.
    """

    rows: Rows
    presence: Presence
    problem: str
    own_limits: Mapping[str, int]
    strange: Mapping[str, int]
