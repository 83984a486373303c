"""How many cameras a machine carries with each variant, and what one costs a month: a pure calculation over what cards
and load tests have measured, with every assumption said.

    cameras = cores × speed × utilisation ÷ (CPU time of a frame × frames a second), rounded down
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from lathe.carded_figures import serving_latency
from lathe.errors import InvalidInput
from lathe.evidence import Interval
from lathe.v1 import card_pb2
from lathe_loadtest.figures import figures
from lathe_loadtest.result import LoadResult

OVERHEAD_SECONDS = 0.0007
"""CPU time of a frame beyond its stages, for gRPC, the event loop and colder caches, where no load test says it: the
most that docs/results/serving.md has."""
DECODE_SECONDS = 0.0006
"""At least, of a camera's picture: a JPEG of 640×480 read at half its size. Cards may be measured on smaller ones."""
PROCESS_FRAMES = 2000.0
"""A second that one server process is trusted with: its event loop takes 0.4 ms a frame (docs/results/serving.md)."""
THIS_MACHINE, SERVERS_MACHINE = "this machine", "the server's machine"
"""Where it was measured: here, or behind an address of elsewhere."""


@dataclass(frozen=True)
class Instance:
    """A machine that can be had.

    Attributes:
        cores: counted as on the machine that was measured: hardware threads where those were counted there.
        speed: of one core against that machine's; measure rather than guess it.
        price_per_hour: None where it is not known.
    """

    name: str
    cores: int
    price_per_hour: float | None = None
    speed: float = 1.0

    def __post_init__(self) -> None:
        if self.cores < 1:
            raise ValueError(f'"cores" of {self.name} must be 1 or more')
        if not 0 < self.speed < math.inf:
            raise ValueError(f'"speed" of {self.name} must be above 0')
        if self.price_per_hour is not None and not 0 <= self.price_per_hour < math.inf:
            raise ValueError(f'"price_per_hour" of {self.name} must be 0 or above')


@dataclass(frozen=True)
class Prices:
    """A table of instances, as a TOML file has it."""

    currency: str
    instances: tuple[Instance, ...]
    hours_a_month: float = 730.0

    def __post_init__(self) -> None:
        if not self.currency:
            raise ValueError('"currency" is empty')
        if not 0 < self.hours_a_month <= 744:
            raise ValueError('"hours_a_month" must be above 0, and 744 at most')
        names = [one.name for one in self.instances]
        if len(set(names)) < len(names):
            raise ValueError("two instances have the same name")
        if taken := {THIS_MACHINE, SERVERS_MACHINE} & set(names):
            raise ValueError(f'"{taken.pop()}" is the one that was measured: give the instance another name')


@dataclass(frozen=True)
class Need:
    """What a frame takes of a core.

    Attributes:
        cpu_seconds: of the whole server process; without bounds where it was not measured by a load test.
        source: `card` or `measured`.
    """

    variant: str
    cpu_seconds: Interval
    source: str


@dataclass(frozen=True)
class Row:
    """One variant on one machine.

    Attributes:
        cameras: carried; with its bounds those of the measured CPU time.
        servers: processes that so many frames need.
        camera_month: price; None without one, or where not one camera is carried.
        machines: for the cameras that were asked for; 0 where none were, or not one camera is carried.
    """

    instance: Instance
    need: Need
    utilisation: float
    cameras: int
    fewest_cameras: int
    most_cameras: int
    servers: int
    camera_month: float | None
    machines: int = 0
    month: float | None = None


def cameras_carried(cores: float, utilisation: float, cpu_seconds: float, fps: float) -> int:
    """
    >>> cameras_carried(cores=2, utilisation=0.7, cpu_seconds=0.0035, fps=10)  # 40 × 35 ms are 1.4 s of CPU a second
    40
    """
    return math.floor(cores * utilisation / (cpu_seconds * fps) + 1e-9)


def plan_rows(
    needs: Sequence[Need],
    instances: Sequence[Instance],
    *,
    fps: float,
    utilisations: Mapping[str, float],
    hours_a_month: float = 730.0,
    cameras_wanted: int = 0,
) -> list[Row]:
    """Every variant on every machine, in this order of machines.

    Args:
        utilisations: share of the cores that the server may use, by variant.

    Raises:
        InvalidInput: a number out of range.
    """
    if not 0 < fps <= 1000:
        raise InvalidInput("the frame rate must be above 0, and 1000 at most")
    if cameras_wanted < 0:
        raise InvalidInput("the number of cameras must be 0 or above")
    found = []
    for instance in instances:
        for need in needs:
            cores, utilisation = instance.cores * instance.speed, utilisations[need.variant]

            def carried(cpu_seconds: float, cores: float = cores, utilisation: float = utilisation) -> int:
                return cameras_carried(cores, utilisation, cpu_seconds, fps)

            cpu = need.cpu_seconds
            cameras = carried(cpu.value)
            has_bounds = math.isfinite(cpu.low + cpu.high) and cpu.low > 0
            month = None if instance.price_per_hour is None else instance.price_per_hour * hours_a_month
            machines = math.ceil(cameras_wanted / cameras) if cameras else 0
            found.append(
                Row(
                    instance,
                    need,
                    utilisation,
                    cameras,
                    carried(cpu.high) if has_bounds else cameras,
                    carried(cpu.low) if has_bounds else cameras,
                    max(1, math.ceil(cameras * fps / PROCESS_FRAMES)),
                    month / cameras if month is not None and cameras else None,
                    machines,
                    month * machines if month is not None and machines else None,
                )
            )
    return found


def measured_need(result: LoadResult, name: str = "the result") -> Need:
    """From a run that one variant has answered.

    Raises:
        InvalidInput: the run is invalid or did not come to its end, several variants have answered, or the server told
            no CPU time.
    """
    if not result.is_valid:
        raise InvalidInput(f"{name} is invalid: {', '.join(result.why_invalid)}")
    if result.ended != "completed":
        raise InvalidInput(f"{name} did not come to its end: {result.error or result.ended.replace('_', ' ')}")
    if len(result.variants) != 1:
        answered = ", ".join(result.variants) or "none"
        raise InvalidInput(f"{name} must be of one variant, whose CPU time it then tells; answered by: {answered}")
    server = figures(result).server
    if not server or not server.cpu_ms_per_frame or not server.cpu_ms_per_frame.value > 0:
        raise InvalidInput(f"{name} holds no CPU time of the server: its metrics were not read")
    ms = server.cpu_ms_per_frame
    seconds = Interval(ms.value / 1e3, ms.low / 1e3, ms.high / 1e3, ms.level)
    return Need(result.variants[0], seconds, "measured")


@dataclass(frozen=True)
class Carded:
    """What cards tell.

    Attributes:
        needs: by variant.
        added_seconds: to each card's time.
        is_measured: what was added is the median of what measured variants took beyond their cards.
        untold: variants whose cards hold no latency.
    """

    needs: Mapping[str, Need]
    added_seconds: float
    is_measured: bool
    untold: Sequence[str]


def carded_needs(cards: Mapping[str, card_pb2.Card], measured: Mapping[str, Need]) -> Carded:
    """Of variants that no run has measured."""
    times = {name: seconds for name, card in cards.items() if (seconds := card_seconds(card)) is not None}
    beyond = [max(0.0, need.cpu_seconds.value - times[name]) for name, need in measured.items() if name in times]
    added = median(beyond) if beyond else OVERHEAD_SECONDS
    nowhere = math.nan
    needs = {
        name: Need(name, Interval(seconds + added, nowhere, nowhere, 0.95), "card")
        for name, seconds in times.items()
        if name not in measured
    }
    return Carded(needs, added, bool(beyond), [name for name in cards if name not in {*times, *measured}])


def card_seconds(card: card_pb2.Card) -> float | None:
    """Of one thread for a camera's frame, from bytes to detections; None where the card does not say."""
    latency = serving_latency(card)
    if latency is None:
        return None
    stages = latency.stages
    if not stages.infer > 0:
        return None
    decode = stages.decode if card.task == card_pb2.TASK_TENSORS else max(stages.decode, DECODE_SECONDS)
    return decode + stages.preprocess + stages.infer + stages.postprocess
