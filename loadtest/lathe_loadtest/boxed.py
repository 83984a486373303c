"""The scenarios in the box, and how those that name no model of anybody's fit the server that they meet.

Such a scenario says `$model` for the server's model that detects, and `$1`, `$2`, … for its variants, the dearest
first. Its rates may be shares of what the server can do (`of_capacity`), and its times stretch with its length.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path

from lathe.config import nearest
from lathe.errors import InvalidInput, NotFound
from lathe.v1 import card_pb2, control_pb2
from lathe_loadtest.scenario import Action, Cameras, Scenario, load_scenario

MODEL = "$model"
_PLACE = re.compile(r"\$([1-9][0-9]?)")
SHORTEST_STAY_SECONDS = 2.0
"""Below which no mean time is made shorter in which cameras stay or keep their connections."""
_FOLDER = files("lathe_loadtest") / "scenarios"


def names() -> tuple[str, ...]:
    """Of the scenarios in the box."""
    return tuple(sorted(one.name.removesuffix(".toml") for one in _FOLDER.iterdir() if one.name.endswith(".toml")))


def find(name: str) -> Scenario:
    """A scenario of the box by its name, or one of a file.

    Raises:
        NotFound: it is neither.
        InvalidInput: the file is no scenario.
    """
    if name in names():
        with as_file(_FOLDER / f"{name}.toml") as path:
            return _checked(load_scenario(path))
    if not Path(name).is_file() and "/" not in name and not name.endswith(".toml"):
        hint = nearest(name, names())
        raise NotFound(f"there is no scenario or file {name}{hint or '; there are ' + ', '.join(names())}")
    return _checked(load_scenario(Path(name)))


def _checked(scenario: Scenario) -> Scenario:
    for name in _variants(scenario):
        if name.startswith("$") and not _PLACE.fullmatch(name):
            raise InvalidInput(f"{scenario.name}: {name} is no place of a variant: those are $1 to $99")
    if scenario.model.startswith("$") and scenario.model != MODEL:
        raise InvalidInput(f"{scenario.name}: {scenario.model} is no model; {MODEL} is the server's own")
    return scenario


def stretched(scenario: Scenario, seconds: float) -> Scenario:
    """The same in another time: what happens half way still does, and as often. The warm-up stays one of whole
    seconds.

    Cameras go, and lose their connections, as often too, but not after less than `SHORTEST_STAY_SECONDS` on average.
    What a network is like stays: bursts, losses, stalls and the cuts of `faults` are so many a second.
    """
    by = seconds / scenario.seconds

    def of_cameras(cameras: Cameras) -> Cameras:
        stay = _often(cameras.away_every_seconds, by)
        return replace(
            cameras,
            away_every_seconds=stay,
            away_seconds=cameras.away_seconds * (stay / cameras.away_every_seconds if stay else by),
            reconnect_every_seconds=_often(cameras.reconnect_every_seconds, by),
            joins_seconds=cameras.joins_seconds * by,
            joins_over_seconds=cameras.joins_over_seconds * by,
            leaves_seconds=cameras.leaves_seconds * by,
        )

    def of_action(action: Action) -> Action:
        return replace(action, at_seconds=action.at_seconds * by, every_seconds=action.every_seconds * by)

    shape = replace(
        scenario.shape, at_seconds=scenario.shape.at_seconds * by, for_seconds=scenario.shape.for_seconds * by
    )
    return replace(
        scenario,
        seconds=seconds,
        warmup_seconds=float(min(round(scenario.warmup_seconds * by), math.ceil(seconds) - 1)),
        shape=shape,
        cameras=tuple(map(of_cameras, scenario.cameras)),
        actions=tuple(map(of_action, scenario.actions)),
    )


def _often(every_seconds: float, by: float) -> float:
    return max(every_seconds * by, min(every_seconds, SHORTEST_STAY_SECONDS))


def fitted(scenario: Scenario, served: Sequence[control_pb2.VariantStatus]) -> Scenario:
    """With the names of a server's model and variants where the scenario leaves them open.

    Args:
        served: variants of all models.

    Raises:
        InvalidInput: the scenario does not say which of the server's models it means, that one detects nothing, or
            there are too few variants.
    """
    model = scenario.model
    if model == MODEL:
        model = _only_model(served, detects=scenario.protocol != "tensors")
    macs = {status.card.variant: status.card.macs for status in served if status.card.model == model}
    variants = sorted(macs, key=lambda name: (-macs[name], name))

    def fit(name: str) -> str:
        place = _PLACE.fullmatch(name)
        if not place:
            return name
        if int(place[1]) > len(variants):
            raise InvalidInput(f"the scenario needs {place[1]} variants; of {model} the server has {len(variants)}")
        return variants[int(place[1]) - 1]

    def keys(table: Mapping[str, int]) -> dict[str, int]:
        return {fit(name): value for name, value in table.items()}

    return replace(
        scenario,
        model=model,
        cameras=tuple(replace(cameras, variant=fit(cameras.variant)) for cameras in scenario.cameras),
        actions=tuple(
            replace(action, weights=keys(action.weights), degrade=tuple(map(fit, action.degrade)))
            for action in scenario.actions
        ),
        expect=tuple(
            replace(
                one,
                answered_by={fit(name): share for name, share in one.answered_by.items()},
                split=keys(one.split),
            )
            for one in scenario.expect
        ),
    )


def _only_model(served: Sequence[control_pb2.VariantStatus], *, detects: bool) -> str:
    """The server's only model, or, of several, the only one that detects.

    Args:
        detects: it has to, because cameras send frames to be detected in.

    Raises:
        InvalidInput: there are more, or none.
    """
    tasks = {status.card.model: status.card.task for status in served}
    detectors = [model for model, task in tasks.items() if task == card_pb2.TASK_DETECTION]
    if len(tasks) == 1 and not detectors and detects:
        raise InvalidInput(
            f"frames are sent to be detected in, and the server's only model, {min(tasks)}, detects nothing"
        )
    found = list(tasks) if len(tasks) == 1 else detectors
    if len(found) != 1:
        raise InvalidInput(f"say by --model which model: the server has {', '.join(sorted(tasks)) or 'none'}")
    return found[0]


def is_open(scenario: Scenario) -> bool:
    """Whether it leaves names to the server that it meets.

    >>> is_open(Scenario(MODEL, (Cameras(),))), is_open(Scenario("face", (Cameras(),)))
    (True, False)
    """
    return scenario.model == MODEL or any(_PLACE.fullmatch(name) for name in _variants(scenario))


def _variants(scenario: Scenario) -> Iterator[str]:
    """Wherever one is named."""
    for cameras in scenario.cameras:
        yield cameras.variant
    for action in scenario.actions:
        yield from (*action.weights, *action.degrade)
    for one in scenario.expect:
        yield from (*one.answered_by, *one.split)


def scaled(scenario: Scenario, capacity: float) -> Scenario:
    """With rates that are together `of_capacity` times what the server can do.

    Args:
        capacity: frames a second.
    """
    if not scenario.of_capacity:
        return scenario
    return at_rate(scenario, scenario.of_capacity * capacity)


def at_rate(scenario: Scenario, frames_per_second: float) -> Scenario:
    """With the same cameras, whose rates are together so many frames a second, before the shape's factor.

    Raises:
        InvalidInput: one would have to send more than a camera can.
    """
    by = frames_per_second / total_fps(scenario)
    try:
        cameras = tuple(replace(cameras, fps=cameras.fps * by) for cameras in scenario.cameras)
    except ValueError as error:
        raise InvalidInput(
            f"{scenario.name} has too few cameras for {frames_per_second:.0f} frames/s: {error}"
        ) from error
    return replace(scenario, of_capacity=0.0, cameras=cameras)


def with_cameras(scenario: Scenario, count: float) -> Scenario:
    """With another number of cameras of the first group at their rate; parts of one are lower rates of all of them.

    Raises:
        InvalidInput: they are more than a scenario can have.

    >>> one = with_cameras(Scenario("face", (Cameras(count=4, fps=10.0),)), 12.5).cameras[0]
    >>> one.count, round(one.fps, 3)
    (13, 9.615)
    """
    first, *others = scenario.cameras
    whole = max(1, -int(-count // 1))
    try:
        cameras = replace(first, count=whole, fps=first.fps * count / whole)
        return replace(scenario, of_capacity=0.0, cameras=(cameras, *others))
    except ValueError as error:
        raise InvalidInput(f"{scenario.name} cannot have {whole} cameras of {first.name}: {error}") from error


def total_fps(scenario: Scenario) -> float:
    return sum(cameras.count * cameras.fps for cameras in scenario.cameras)
