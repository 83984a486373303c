"""What a load test has seen: all that its figures are computed from, as a JSON file.

Frames belong to the second in which they were to be sent, counted from the start, whenever they were sent or answered.
Every frame that was due has one outcome: that of the contract, or one that only the sender sees. `lost` was sent and
never answered though its call stood, or was passed over. `dropped_disconnected` was due or under way when the
connection was cut. `dropped_unsent` still waited for room at the end. `dropped_unfinished` was on its way at the end,
in a stream whose answers kept coming, such as that of a slow reader or one that the server brakes, or in a unary call
that had time left.
`dropped_overloaded` is a unary call's RESOURCE_EXHAUSTED.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lathe import config
from lathe.errors import InvalidInput
from lathe.v1 import inference_pb2
from lathe_loadtest.histogram import decoded
from lathe_loadtest.json_file import table_of, text_of
from lathe_loadtest.scenario import Scenario

FORMAT = 1
ANSWERED, LOST, OVERLOADED = "answered", "lost", "dropped_overloaded"
DISCONNECTED, UNSENT, UNFINISHED = "dropped_disconnected", "dropped_unsent", "dropped_unfinished"
OUTCOMES = (
    *(name.removeprefix("OUTCOME_").lower() for name, number in inference_pb2.Outcome.items() if number),
    DISCONNECTED,
    UNSENT,
    UNFINISHED,
    OVERLOADED,
    LOST,
)

Ended = Literal["completed", "server_lost", "interrupted"]


@dataclass(frozen=True)
class Second:
    """Attributes:
    due, sent: frames that were to be sent in it, and of them those that were sent, then or later.
    outcomes: how many frames by outcome.
    latencies: by variant a histogram (`lathe_loadtest.histogram`) of the times from when answered frames were to be
        sent until their answers came.
    """

    second: int
    due: int
    sent: int
    outcomes: Mapping[str, int]
    latencies: Mapping[str, str]

    def __post_init__(self) -> None:
        _check_frames(f"second {self.second}", self.due, self.sent, self.outcomes)
        _check_answered(f"second {self.second}", self.outcomes, self.latencies.values())


@dataclass(frozen=True)
class CameraResult:
    """Attributes:
    group: name of the scenario's cameras that it is one of.
    answered_by: frames by variant.
    connections: streams that it has opened.
    """

    name: str
    group: str
    due: int
    sent: int
    outcomes: Mapping[str, int]
    answered_by: Mapping[str, int]
    latencies: str
    connections: int = 1

    def __post_init__(self) -> None:
        _check_frames(self.name, self.due, self.sent, self.outcomes)
        _check_answered(self.name, self.outcomes, [self.latencies])


@dataclass(frozen=True)
class Sender:
    """How the driver itself did.

    Attributes:
        cpu_seconds: of each process, while it sent.
        frames: sent in that time, those of the warm-up too.
        lateness: histogram of how much later than intended judged frames were written, the driver's own fault.
    """

    processes: int
    cpu_seconds: tuple[float, ...]
    frames: int
    lateness: str

    @property
    def cpu_us_per_frame(self) -> float:
        return sum(self.cpu_seconds) / self.frames * 1e6 if self.frames else 0.0


@dataclass(frozen=True)
class ServerReading:
    """The server's own figures at one moment; counters are as they stand, so differences are what counts.

    Attributes:
        at_seconds: since the start.
        frames: by outcome, of the scenario's model.
        cpu_seconds, cost_usage, cost_allocation, joules: None where the server does not tell.
        workers: threads that judge frames; 0 where it does not tell.
    """

    at_seconds: float
    cpu_seconds: float | None
    resident_bytes: int
    streams: int
    waiting_frames: int
    frames: Mapping[str, int]
    cost_usage: float | None = None
    cost_allocation: float | None = None
    currency: str = ""
    joules: float | None = None
    energy_source: str = ""
    workers: int = 0


@dataclass(frozen=True)
class Event:
    """An action of the scenario, as it went.

    Attributes:
        took_seconds: until it was done.
        error: why it was not; empty otherwise.
    """

    at_seconds: float
    do: str
    text: str
    took_seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class Machine:
    """Of the driver."""

    cpu: str
    cores: int


@dataclass(frozen=True)
class LoadResult:
    """Attributes:
    address: of the server.
    seconds: since the start, when it ended; below the scenario's where it has ended early.
    per_second: those after the warm-up in which something was due.
    server: readings of its /metrics, about one a second; none where it has none.
    why_invalid: reasons for which the figures say more of the driver than of the server; empty is valid.
    error: why it has not completed.
    of_capacity: the share of what the server could do that the rates were set to before the run; 0 where they are the
        scenario's own.
    strange: what the server did that none should, such as a second answer, and how often.
    """

    scenario: Scenario
    machine: Machine
    address: str
    started_at_unix: float
    seconds: float
    per_second: tuple[Second, ...]
    cameras: tuple[CameraResult, ...]
    sender: Sender
    server: tuple[ServerReading, ...] = ()
    events: tuple[Event, ...] = ()
    why_invalid: tuple[str, ...] = ()
    ended: Ended = "completed"
    error: str = ""
    strange: Mapping[str, int] = field(default_factory=dict)
    of_capacity: float = 0.0
    format: int = FORMAT

    def __post_init__(self) -> None:
        seconds = [one.second for one in self.per_second]
        if seconds != sorted(set(seconds)):
            raise ValueError('"per_second" is not in order')
        if seconds and seconds[0] < self.scenario.warmup_seconds:
            raise ValueError('"per_second" holds seconds of the warm-up')
        for what in ("due", "sent"):
            if sum(getattr(one, what) for one in self.per_second) != sum(getattr(one, what) for one in self.cameras):
                raise ValueError(f'"{what}" of the seconds and of the cameras differ')
        _count(self.sender.lateness, "the sender's lateness")

    @property
    def is_valid(self) -> bool:
        return not self.why_invalid

    @property
    def is_local(self) -> bool:
        """Whether the server ran on the driver's machine, as far as its address says."""
        host = self.address.rpartition(":")[0].strip("[]")
        return host in ("localhost", "::1") or host.startswith("127.")

    @property
    def outcomes(self) -> Counter[str]:
        """Frames by outcome, of the whole run."""
        total: Counter[str] = Counter()
        for one in self.per_second:
            total.update(one.outcomes)
        return total

    @property
    def variants(self) -> tuple[str, ...]:
        """Those that have answered."""
        return tuple(sorted({variant for one in self.per_second for variant in one.latencies}))

    @property
    def workers(self) -> int:
        """Of the server; 0 where it did not tell."""
        return max((one.workers for one in self.server), default=0)


def write_result(result: LoadResult, path: Path) -> None:
    """Whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(as_json(result), "utf-8")
    partial.replace(path)


def as_json(result: LoadResult) -> str:
    return json.dumps(_plain(result), allow_nan=False, indent=1) + "\n"


def read_result(path: Path) -> LoadResult:
    """
    Raises:
        NotFound: there is no such file.
        InvalidInput: it is not a result, or its parts contradict each other.
    """
    return from_json(text_of(path), path.name)


def from_json(text: str, name: str = "result") -> LoadResult:
    """
    Args:
        name: for messages.

    Raises:
        InvalidInput: see `read_result`.
    """
    table = table_of(text, name)
    if "format" not in table or "kind" in table:  # others of ours have one
        raise InvalidInput(f"{name} is not the result of a load test")
    if table["format"] != FORMAT:
        raise InvalidInput(f"{name} has the format {table['format']!r}; this reads {FORMAT}")
    return config.parse(LoadResult, table, "", name)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple | list) else value


def _check_frames(who: str, due: int, sent: int, outcomes: Mapping[str, int]) -> None:
    unknown = set(outcomes) - set(OUTCOMES)
    if unknown:
        raise ValueError(f'{who}: there is no outcome "{min(unknown)}"')
    if min(0, due, sent, *outcomes.values()) < 0:
        raise ValueError(f"{who}: a number of frames is below 0")
    if sum(outcomes.values()) != due or sent > due:
        raise ValueError(f"{who}: {due} frames were due, {sent} sent, and {sum(outcomes.values())} have an outcome")


def _check_answered(who: str, outcomes: Mapping[str, int], texts: Any) -> None:
    found = sum(_count(text, who) for text in texts)
    if found != outcomes.get(ANSWERED, 0):
        raise ValueError(f"{who}: its histograms hold {found} frames, and {outcomes.get(ANSWERED, 0)} were answered")


def _count(text: str, who: str) -> int:
    try:
        return int(decoded(text).get_total_count())
    except InvalidInput as error:
        raise ValueError(f"{who}: {error.message}") from error
