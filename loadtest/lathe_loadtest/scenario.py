"""What a load test does: cameras, their networks, the shape of the load over time, and what is done to the server.

    model = "face"
    seconds = 60

    [[cameras]]
    count = 8
    fps = 10

A camera's rate times the shape's factor is what it sends. All that is random comes from `seed`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lathe import config
from lathe_loadtest.expect import Expect
from lathe_loadtest.faults import CutHow, Faults

Protocol = Literal["stream", "unary", "tensors"]
MAX_CAMERAS, MAX_FPS = 10_000, 1_000.0
MAX_ELEMENTS = 1 << 24
MIN_DEADLINE_SECONDS, MAX_DEADLINE_SECONDS = 0.001, 99_999.0
"""That gRPC can say in whole milliseconds."""


@dataclass(frozen=True)
class Bursts:
    """Now and then a camera sends some frames at once, as after a key frame or a hiccup of its encoder.

    Attributes:
        every_seconds: mean time between two of a camera.
        frames: how many come together, the last of them when it is due and the others kept until then.
    """

    every_seconds: float
    frames: int = 5

    def __post_init__(self) -> None:
        _above_zero(self, "every_seconds")
        if self.frames < 2:
            raise ValueError('"frames" of a burst must be 2 or more')


@dataclass(frozen=True)
class Network:
    """A camera's way to the server, as Wi-Fi would be. TCP loses nothing: what is lost comes later, and holds up what
    is behind it.

    Attributes:
        loss: share of the frames of which a part is sent again.
        resend_seconds: how much later such a frame comes.
        stall_every_seconds: mean time between two stalls of a camera; 0 for none.
        stall_seconds: mean length of one; what is due in it comes at once at its end.
    """

    loss: float = 0.0
    resend_seconds: float = 0.2
    stall_every_seconds: float = 0.0
    stall_seconds: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.loss <= 1:
            raise ValueError('"loss" must be from 0 to 1')
        _not_below_zero(self, "resend_seconds", "stall_every_seconds", "stall_seconds")


@dataclass(frozen=True)
class Cameras:
    """Cameras of one kind.

    Attributes:
        name: cameras are called name-0, name-1, …
        fps_spread: of their rates, as a share of the mean: no two clocks are equal.
        size_wh: pixels of the pictures.
        quality: of their JPEG files.
        jitter_seconds: standard deviation of the time at which a frame is sent, later only.
        joins_seconds, leaves_seconds: when they come and go, since the start; 0 stays to the end.
        joins_over_seconds: they come one after another, spread over so long.
        away_every_seconds, away_seconds: mean time that a camera stays before it closes its stream, and how long it
            is away; 0 never goes.
        reconnect_every_seconds: mean time until a camera's connection is cut without a word, and made anew; 0 never.
        read_seconds: rests so long after each answer before it reads the next: a slow reader.
        max_age_seconds: as of the contract; 0 never drops for age.
        deadline_seconds: of unary calls.
    """

    name: str = "camera"
    count: int = 1
    fps: float = 10.0
    fps_spread: float = 0.05
    size_wh: tuple[int, int] = (640, 480)
    quality: int = 90
    variant: str = ""
    priority: Literal["normal", "high"] = "normal"
    max_age_seconds: float = 0.0
    deadline_seconds: float = 10.0
    jitter_seconds: float = 0.0
    bursts: Bursts | None = None
    network: Network = field(default_factory=Network)
    joins_seconds: float = 0.0
    joins_over_seconds: float = 0.0
    leaves_seconds: float = 0.0
    away_every_seconds: float = 0.0
    away_seconds: float = 2.0
    reconnect_every_seconds: float = 0.0
    read_seconds: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MAX_CAMERAS:
            raise ValueError(f'"count" must be from 1 to {MAX_CAMERAS}')
        if not 0 < self.fps <= MAX_FPS:
            raise ValueError(f'"fps" must be above 0, and {MAX_FPS:g} at most')
        if not 0 <= self.fps_spread < 1:
            raise ValueError('"fps_spread" must be from 0 to below 1')
        if not all(16 <= side <= 8192 for side in self.size_wh):
            raise ValueError('"size_wh" must be of 16 to 8192 pixels')
        if not 1 <= self.quality <= 100:
            raise ValueError('"quality" must be from 1 to 100')
        if not MIN_DEADLINE_SECONDS <= self.deadline_seconds <= MAX_DEADLINE_SECONDS:
            raise ValueError('"deadline_seconds" must be from 0.001 to 99999')
        numbers = ("max_age_seconds", "jitter_seconds", "joins_seconds", "joins_over_seconds", "leaves_seconds")
        _not_below_zero(self, *numbers, "away_every_seconds", "away_seconds", "reconnect_every_seconds", "read_seconds")
        if self.leaves_seconds and self.leaves_seconds <= self.joins_seconds + self.joins_over_seconds:
            raise ValueError('"leaves_seconds" must be after the last of them has come')


@dataclass(frozen=True)
class Shape:
    """What the cameras' rates are multiplied by over time.

    steady, soak: 1 throughout. ramp: from `low` to `high` in a line, from `at_seconds` on for `for_seconds`.
    step: the same in `steps` steps, the first of which is `low` and the last `high`. spike: `low`, but `high` from
    `at_seconds` on for `for_seconds`. 0 seconds are until the end.
    """

    kind: Literal["steady", "ramp", "step", "spike", "soak"] = "steady"
    low: float = 1.0
    high: float = 2.0
    at_seconds: float = 0.0
    for_seconds: float = 0.0
    steps: int = 4

    def __post_init__(self) -> None:
        _not_below_zero(self, "low", "high", "at_seconds", "for_seconds")
        if self.steps < 2:
            raise ValueError('"steps" must be 2 or more')

    @property
    def highest(self) -> float:
        """What rates are multiplied by at most."""
        return 1.0 if self.kind in ("steady", "soak") else max(self.low, self.high)

    def length_seconds(self, seconds: float) -> float:
        """From its beginning to its end, in a run of so many seconds."""
        return self.for_seconds or seconds - self.at_seconds


@dataclass(frozen=True)
class Action:
    """What is done to the server in mid-run.

    Attributes:
        do: `route` gives the model these weights, and variants to `degrade` to when streams wait longer for their turn
            than `degrade_after_seconds`; `swap` gives it to one variant after another of those in `weights`;
            `rollback`. `restart` and `kill` are for who has started the server, which begins anew after it has drained,
            or was killed. `cut` is of the proxy before the server, which there then is.
        how, share: connections are cut, and which share of them.
        every_seconds: again and again; 0 once.
    """

    at_seconds: float
    do: Literal["route", "swap", "rollback", "restart", "kill", "cut"]
    how: CutHow = "reset"
    share: float = 1.0
    weights: Mapping[str, int] = field(default_factory=dict)
    degrade: tuple[str, ...] = ()
    degrade_after_seconds: float = 0.1
    every_seconds: float = 0.0

    def __post_init__(self) -> None:
        _not_below_zero(self, "at_seconds", "every_seconds")
        _above_zero(self, "degrade_after_seconds")
        if not 0 < self.share <= 1:
            raise ValueError('"share" must be above 0, and 1 at most')
        if self.do in ("route", "swap") and not self.weights:
            raise ValueError(f'"{self.do}" needs "weights", such as {{ int8 = 1 }}')
        if any(weight < 0 for weight in self.weights.values()):
            raise ValueError('"weights" must be 0 or above')


@dataclass(frozen=True)
class Tensor:
    """An input of a network, filled with random numbers once."""

    name: str
    datatype: Literal[
        "BOOL",
        "UINT8",
        "UINT16",
        "UINT32",
        "UINT64",
        "INT8",
        "INT16",
        "INT32",
        "INT64",
        "FP16",
        "FP32",
        "FP64",
        "BYTES",
    ]
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if not all(side > 0 for side in self.shape) or math.prod(self.shape) > MAX_ELEMENTS:
            raise ValueError(f'"shape" must be of sides above 0, and of {MAX_ELEMENTS} elements at most')


@dataclass(frozen=True)
class Scenario:
    """Attributes:
    expect: what must hold of the run.
    faults: of a network between all cameras and the server; none is there without them.
    of_capacity: rates are multiplied so that all cameras together send so many times what the server can judge, which
        is measured before; 0 leaves them as they are.
    protocol: `stream` and `unary` are Lathe's own, `tensors` the Open Inference Protocol, unary too.
    tensors: what that protocol sends; none sends the pictures, as its input `image`.
    give_up_seconds: after so long without any connection of any camera the run ends.
    warmup_seconds: whole ones, at the start: sent, and in no figure.
    drain_seconds: how long answers are waited for after the last frame.
    footage: videos, pictures or folders of them, beside the scenario's file; none takes packages' videos.
    """

    model: str
    cameras: tuple[Cameras, ...]
    name: str = ""
    about: str = ""
    expect: tuple[Expect, ...] = ()
    faults: Faults | None = None
    of_capacity: float = 0.0
    protocol: Protocol = "stream"
    seconds: float = 30.0
    warmup_seconds: float = 0.0
    drain_seconds: float = 5.0
    give_up_seconds: float = 10.0
    seed: int = 1
    footage: tuple[str, ...] = ()
    shape: Shape = field(default_factory=Shape)
    actions: tuple[Action, ...] = ()
    tensors: tuple[Tensor, ...] = ()

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError('"model" is empty')
        _not_below_zero(self, "of_capacity")
        if not self.cameras:
            raise ValueError('"cameras" is empty')
        names = [cameras.name for cameras in self.cameras]
        if len(set(names)) < len(names):
            raise ValueError("two groups of cameras have the same name")
        _above_zero(self, "seconds", "give_up_seconds")
        if self.tensors and self.protocol != "tensors":
            raise ValueError('"tensors" go with the protocol "tensors"')
        if any(tensor.datatype == "BYTES" for tensor in self.tensors):
            raise ValueError('tensors of the datatype BYTES are pictures: leave "tensors" out')
        _not_below_zero(self, "warmup_seconds", "drain_seconds", "seed")
        if self.warmup_seconds >= self.seconds:
            raise ValueError('"warmup_seconds" must be below "seconds"')
        if self.warmup_seconds % 1:
            raise ValueError('"warmup_seconds" must be whole seconds, as figures are by the second')
        for action in self.actions:
            if action.at_seconds >= self.seconds:
                raise ValueError(f'an action at {action.at_seconds:g} s comes after the end, "seconds"')
        if self.shape.kind in ("ramp", "step", "spike") and self.shape.at_seconds >= self.seconds:
            raise ValueError('"at_seconds" of the shape must be below "seconds"')
        for one in self.expect:
            if one.of and one.of not in names:
                raise ValueError(f'something is expected of "{one.of}", and no cameras are called so')
        for cameras in self.cameras:
            self._check_cameras(cameras)

    def _check_cameras(self, cameras: Cameras) -> None:
        if cameras.joins_seconds >= self.seconds:
            raise ValueError(f'"joins_seconds" of {cameras.name} must be below "seconds"')
        if self.protocol != "stream" and (cameras.read_seconds or cameras.max_age_seconds):
            raise ValueError('"read_seconds" and "max_age_seconds" are of streams: they go with the protocol "stream"')
        if self.protocol == "tensors" and cameras.priority != "normal":
            raise ValueError('the protocol "tensors" knows no "priority"')

    @property
    def max_frames(self) -> float:
        """That may be sent at most, by the shape at its height."""
        return self.seconds * self.shape.highest * sum(cameras.count * cameras.fps for cameras in self.cameras)

    @property
    def camera_names(self) -> tuple[str, ...]:
        return tuple(self.groups)

    @property
    def groups(self) -> dict[str, str]:
        """The group's name by each camera's."""
        return {f"{cameras.name}-{number}": cameras.name for cameras in self.cameras for number in range(cameras.count)}


def load_scenario(path: Path) -> Scenario:
    """Reads a scenario's file; without a name of its own it has the file's. Footage is found beside it.

    Raises:
        NotFound: there is no such file.
        InvalidInput: not TOML, or not a scenario.
    """
    scenario = config.load(Scenario, path)
    footage = tuple(str(path.parent / name) for name in scenario.footage)
    return dataclasses.replace(scenario, name=scenario.name or path.stem, footage=footage)


def _above_zero(table: Any, *names: str) -> None:
    for name in names:
        if not 0 < getattr(table, name) < math.inf:
            raise ValueError(f'"{name}" must be above 0')


def _not_below_zero(table: Any, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(table, name) < math.inf:
            raise ValueError(f'"{name}" must be 0 or above')
