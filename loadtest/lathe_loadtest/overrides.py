"""What flags say beside a scenario's file, or instead of one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from lathe.errors import InvalidInput
from lathe_loadtest.boxed import stretched
from lathe_loadtest.scenario import Cameras, Protocol, Scenario


@dataclass(frozen=True)
class Overrides:
    """None leaves what the scenario says.

    Attributes:
        seconds: what happens half way still does.
        cameras: how many; of the first kind, where there are several.
        fps, size_wh, quality, variant, max_age_seconds: of all cameras.
    """

    model: str | None = None
    protocol: Protocol | None = None
    seconds: float | None = None
    seed: int | None = None
    footage: tuple[str, ...] | None = None
    cameras: int | None = None
    fps: float | None = None
    size_wh: tuple[int, int] | None = None
    quality: int | None = None
    variant: str | None = None
    max_age_seconds: float | None = None


def overridden(scenario: Scenario, said: Overrides) -> Scenario:
    """
    Raises:
        InvalidInput: what they say together makes no sense.
    """
    try:
        if said.seconds is not None:
            scenario = stretched(scenario, said.seconds)
        kinds = [
            dataclasses.replace(cameras, **_given(said, "fps", "size_wh", "quality", "variant", "max_age_seconds"))
            for cameras in scenario.cameras
        ]
        if said.cameras is not None:
            kinds[0] = dataclasses.replace(kinds[0], count=said.cameras)
        whole = _given(said, "model", "protocol", "seed", "footage")
        if said.fps is not None:
            whole["of_capacity"] = 0.0
        return dataclasses.replace(scenario, cameras=tuple(kinds), **whole)
    except ValueError as error:
        raise InvalidInput(str(error)) from error


def without_file(said: Overrides) -> Scenario:
    """A steady scenario of flags alone.

    Raises:
        InvalidInput: see `overridden`.
    """
    return overridden(Scenario(said.model or "$model", (Cameras(),), name="load"), said)


def _given(said: Overrides, *names: str) -> dict[str, Any]:
    return {name: getattr(said, name) for name in names if getattr(said, name) is not None}
