"""Plays a scenario on its stage: fits it to the server, sets the scene, measures what the server can do, drives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from threading import Event as Flag

from lathe.errors import Unavailable
from lathe.v1 import control_pb2
from lathe_loadtest.actions import Moment, text_of
from lathe_loadtest.boxed import fitted, is_open, scaled
from lathe_loadtest.drive import drive
from lathe_loadtest.footage import jpegs
from lathe_loadtest.result import Event, LoadResult
from lathe_loadtest.scenario import Scenario
from lathe_loadtest.stage import Stage

SATURATE_SECONDS, SATURATING_STREAMS = 3.0, 16


def prepared(
    scenario: Scenario, stage: Stage, capacity: float = 0.0, stop: Flag | None = None
) -> tuple[Scenario, tuple[Event, ...]]:
    """The scenario as it fits the server, with what was done before it begins: its actions at second 0.

    Args:
        capacity: frames a second; 0 measures it where the scenario's rates are shares of it.

    Raises:
        InvalidInput: the scenario does not fit the server.
        Unavailable: it was stopped.
        LatheError: an action did not succeed.
    """
    if is_open(scenario):
        scenario = fitted(scenario, asyncio.run(_variants(stage)))
    events = []
    for action in scenario.actions:
        if not action.at_seconds and not action.every_seconds:
            _check(stop)
            moment = Moment(0.0, action)
            began = time.monotonic()
            stage.do(scenario.model, moment)
            events.append(Event(0.0, action.do, text_of(moment), time.monotonic() - began))
    if scenario.of_capacity:
        scenario = scaled(scenario, capacity or asyncio.run(saturated(scenario, stage, stop=stop)))
    return scenario, tuple(events)


def play(
    scenario: Scenario,
    stage: Stage,
    *,
    capacity: float = 0.0,
    processes: int = 0,
    stop: Flag | None = None,
    on_beat: Callable[[float, int, int], None] = lambda *_: None,
) -> LoadResult:
    """Runs a scenario; see `prepared` and `lathe_loadtest.drive.drive` for arguments and errors."""
    share = scenario.of_capacity
    scenario, before = prepared(scenario, stage, capacity, stop)
    later = tuple(action for action in scenario.actions if action.at_seconds or action.every_seconds)
    result = drive(
        replace(scenario, actions=later),
        stage.target,
        do=partial(stage.do, scenario.model),
        processes=processes,
        stop=stop,
        on_beat=on_beat,
    )
    events = (*before, *result.events)
    return replace(result, scenario=scenario, address=stage.address, events=events, of_capacity=share)


async def saturated(
    scenario: Scenario, stage: Stage, seconds: float = SATURATE_SECONDS, stop: Flag | None = None
) -> float:
    """Frames a second that the server judges when it is never idle, of the first cameras' pictures.

    Raises:
        Unavailable: it judged none, and why, where it told; or it was stopped.
        LatheError: it is not there, or refuses the streams.
    """
    first = scenario.cameras[0]
    pictures = jpegs(scenario.footage, first.size_wh, first.quality)
    end = time.monotonic() + seconds
    reasons: set[str] = set()

    async def frames(number: int) -> AsyncIterator[tuple[bytes, float]]:
        while time.monotonic() < end and not (stop and stop.is_set()):
            yield pictures[number % len(pictures)], 0.0
            number += 1

    async with stage.client() as client:

        async def answered(number: int) -> int:
            name = f"saturating-{number}"
            results = client.detect_stream(scenario.model, frames(number), stream_id=name, variant=first.variant)
            answers = 0
            async for result in results:
                answers += result.answered
                if result.error:
                    reasons.add(result.error)
            return answers

        began = time.monotonic()
        total = sum(await asyncio.gather(*(answered(number) for number in range(SATURATING_STREAMS))))
    _check(stop)
    if not total:
        raise Unavailable(": ".join(["the server has judged no frame", *sorted(reasons)[:1]]))
    return total / (time.monotonic() - began)


def _check(stop: Flag | None) -> None:
    if stop and stop.is_set():
        raise Unavailable("stopped before it began")


async def _variants(stage: Stage) -> list[control_pb2.VariantStatus]:
    async with stage.client() as client:
        return await client.variants()
