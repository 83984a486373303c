"""The demo's A/B test: the recommended variant beside the reference, on the cameras' frames, to its verdict."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from lathe.experiment import verdict_word
from lathe.repository import VariantRef
from lathe.server_process import ServerProcess
from lathe.v1 import experiment_pb2
from lathe.v1.experiment_pb2 import EXPERIMENT_STATE_ENDED

if TYPE_CHECKING:
    from lathe_loadtest.camera import Camera

BLOCK_SECONDS, SHADOW_ROUNDS = 1.5, 7
MAX_SECONDS = 300.0
LOOK_SECONDS = 0.5


async def decide(
    server: ServerProcess,
    before: VariantRef,
    after: VariantRef,
    cameras: Sequence[Camera],
    console: Console,
) -> experiment_pb2.Experiment:
    """Shadow first, then blocks, until there is a verdict; where it is `promote`, the candidate takes the route."""
    from lathe_loadtest.camera import Tally

    spec = experiment_pb2.ExperimentSpec(
        model=before.model,
        block_seconds=BLOCK_SECONDS,
        max_seconds=MAX_SECONDS,
        shadow_rounds=SHADOW_ROUNDS,
        promote=True,
    )
    for side, ref in ((spec.baseline, before), (spec.candidate, after)):
        side.variant, side.version = ref.variant, ref.version
    async with server.async_client() as client:
        await client.set_route(before.model, {f"{before.variant}/{before.version}": 1}, author="demo")
        playing = [asyncio.create_task(camera.play(client, math.inf, Tally())) for camera in cameras]
        begun = await client.start_experiment(spec, author="demo")
        seen = 0
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = await client.experiment(before.model, begun.id)
            if len(now.rounds) > seen:
                seen = len(now.rounds)
                console.print(f"round {seen}, {now.rounds[-1].ended_seconds:.0f} s: {now.reason}", highlight=False)
            if now.state == EXPERIMENT_STATE_ENDED and now.route_revision:
                break
        for player in playing:
            player.cancel()
        await asyncio.gather(*playing, return_exceptions=True)
        route = await client.route(before.model)
    serves = ", ".join(weight.variant for weight in route.weights if weight.weight)
    console.print(f"verdict: {verdict_word(now)}; {serves} serves: revision {route.revision} of the route")
    return now
