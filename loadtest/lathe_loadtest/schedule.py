"""When cameras send: a pure function of the scenario and its seed, whatever the server does.

A frame is captured, and then due: when it is to be sent, after the camera's jitter and bursts and what its network does
to it. Latency counts from when it was due; its age, as the server sees it, from its capture.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lathe_loadtest.scenario import Cameras, Scenario, Shape

GOLDEN_RATIO, PLASTIC_RATIO = 0.618034, 0.569840
"""Spread phases and rates evenly, and in no order, over any number of cameras. They are two, so that cameras which
begin early are not the slower ones too, and all fall into step."""
_GRID_SECONDS = 0.05

Times = NDArray[np.float64]


@dataclass(frozen=True)
class CameraPlan:
    """What one camera does, in seconds since the start.

    Attributes:
        captured, due: of its frames, in order; neither ever goes back.
        stays: from when until when it has a stream.
        cuts: when its connection is cut.
    """

    name: str
    cameras: Cameras
    captured: Times
    due: Times
    stays: tuple[tuple[float, float], ...]
    cuts: tuple[float, ...]


def plans(scenario: Scenario) -> Iterator[CameraPlan]:
    """Of all cameras, in the order of `scenario.camera_names`. A camera's plan depends on its name, not on the others'.

    >>> from lathe_loadtest.scenario import Cameras, Scenario
    >>> [plan] = plans(Scenario("face", (Cameras(fps=4, fps_spread=0),), seconds=1))
    >>> [round(float(time - plan.due[0]), 3) for time in plan.due]
    [0.0, 0.25, 0.5, 0.75]
    """
    for cameras in scenario.cameras:
        for number in range(cameras.count):
            yield _plan(scenario, cameras, number)


def factor(shape: Shape, seconds: float, times: Times) -> Times:
    """By what the rates are multiplied at some times of a run of so many seconds.

    >>> step = Shape("step", low=1, high=3, steps=3)
    >>> factor(step, 30, np.array([0.0, 9.0, 11.0, 29.0])).tolist()
    [1.0, 1.0, 2.0, 3.0]
    """
    if shape.kind in ("steady", "soak"):
        return np.ones_like(times)
    length = shape.length_seconds(seconds)
    passed = np.clip((times - shape.at_seconds) / length, 0, 1)
    if shape.kind == "spike":
        is_high = (times >= shape.at_seconds) & (times < shape.at_seconds + length)
        return np.where(is_high, shape.high, shape.low)
    if shape.kind == "step":
        passed = np.minimum(np.floor(passed * shape.steps), shape.steps - 1) / (shape.steps - 1)
    return np.asarray(shape.low + (shape.high - shape.low) * passed, np.float64)


def _plan(scenario: Scenario, cameras: Cameras, number: int) -> CameraPlan:
    name = f"{cameras.name}-{number}"
    random = np.random.default_rng([scenario.seed, zlib.crc32(name.encode())])
    rate = cameras.fps * (1 + cameras.fps_spread * ((number + 1) * PLASTIC_RATIO % 1 - 0.5))
    joins = cameras.joins_seconds + cameras.joins_over_seconds * number / cameras.count
    stays = _stays(random, cameras, joins, min(cameras.leaves_seconds or scenario.seconds, scenario.seconds))
    captured = _captured(scenario, rate, phase=(number + 1) * GOLDEN_RATIO % 1)
    due = _late(random, cameras, rate, captured)
    is_there = np.zeros(len(captured), bool)
    for begin, end in stays:
        is_there |= (captured >= begin) & (due < end)
    cuts = tuple(_moments(random, cameras.reconnect_every_seconds, scenario.seconds))
    return CameraPlan(name, cameras, captured[is_there], due[is_there], stays, cuts)


def _captured(scenario: Scenario, rate: float, phase: float) -> Times:
    """The times at which the rate, summed up over time, passes a whole number."""
    if scenario.shape.kind in ("steady", "soak"):
        count = int(np.ceil(scenario.seconds * rate - phase))
        return np.asarray((np.arange(count) + phase) / rate, np.float64)
    grid = np.arange(0, scenario.seconds + _GRID_SECONDS, _GRID_SECONDS)
    middles = (grid[1:] + grid[:-1]) / 2
    total = np.concatenate([[0.0], np.cumsum(factor(scenario.shape, scenario.seconds, middles) * rate * np.diff(grid))])
    frames = np.arange(int(np.ceil(total[-1] - phase))) + phase
    times = np.interp(frames, total, grid)
    return np.asarray(times[times < scenario.seconds], np.float64)


def _late(random: np.random.Generator, cameras: Cameras, rate: float, captured: Times) -> Times:
    """When frames are due that were captured then: none overtakes another."""
    due = captured.copy()
    if not len(due):
        return due
    network = cameras.network
    if cameras.jitter_seconds:
        due += np.abs(random.normal(0, cameras.jitter_seconds, len(due)))
    if cameras.bursts:
        for end in _moments(random, cameras.bursts.every_seconds, float(captured[-1])):
            last = int(np.searchsorted(captured, end))
            first = max(0, last - cameras.bursts.frames + 1)
            due[first : last + 1] = np.maximum(due[first : last + 1], captured[min(last, len(due) - 1)])
    if network.loss:
        due += network.resend_seconds * (random.random(len(due)) < network.loss)
    for begin in _moments(random, network.stall_every_seconds, float(captured[-1])):
        end = begin + random.exponential(network.stall_seconds)
        due[(due >= begin) & (due < end)] = end
    return np.maximum.accumulate(due)


def _stays(random: np.random.Generator, cameras: Cameras, begin: float, end: float) -> tuple[tuple[float, float], ...]:
    found, at = [], begin
    for leaves in _moments(random, cameras.away_every_seconds, end - begin):
        if begin + leaves > at:  # otherwise it is still away
            found.append((at, begin + leaves))
            at = begin + leaves + cameras.away_seconds
    return (*found, (at, end)) if at < end else tuple(found)


def _moments(random: np.random.Generator, every_seconds: float, end: float) -> Iterator[float]:
    """As of a Poisson process; none where `every_seconds` is 0."""
    at = 0.0
    while every_seconds and (at := at + random.exponential(every_seconds)) < end:
        yield at
