"""Four cameras at ten frames a second, watched live, and a swap in the middle of it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

from lathe.client import AsyncClient
from lathe.demo.footage import Footage
from lathe.repository import VariantRef
from lathe.scrape import scrape
from lathe.server_process import ServerProcess

if TYPE_CHECKING:
    from lathe_loadtest.camera import Camera, Sample, Tally

CAMERAS = 4
FPS = 10.0
REFRESH_SECONDS = 0.25
RECENT_SAMPLES = 20


@dataclass(frozen=True)
class Swap:
    """When a new variant was asked for and when the new route served, in seconds from the start."""

    before: str
    after: str
    asked_at: float
    served_at: float
    was_loaded_before: bool


@dataclass(frozen=True)
class LiveRun:
    """What the cameras sent and got.

    Attributes:
        samples: answered frames; `due_at` counts from the start.
    """

    swap: Swap
    sent: int
    outcomes: Counter[str]
    samples: Sequence[Sample]

    @property
    def answered(self) -> int:
        return self.outcomes["answered"]

    @property
    def dropped(self) -> dict[str, int]:
        return {name: count for name, count in self.outcomes.items() if name.startswith("dropped_")}

    @property
    def lost(self) -> int:
        """Frames without any answer: sent − answered − dropped − rejected − failed."""
        return self.sent - self.outcomes.total()

    def latencies(self, variant: str) -> list[float]:
        return [sample.latency_seconds for sample in self.samples if sample.variant == variant]


def four_cameras(model: str, footage: Sequence[Footage]) -> list[Camera]:
    """They play the videos in turn, each a quarter of a frame's time after the other."""
    from lathe_loadtest.camera import Camera

    return [
        Camera(f"camera-{number + 1}", model, footage[number % len(footage)].frames, FPS, number / CAMERAS)
        for number in range(CAMERAS)
    ]


async def watch_cameras(
    server: ServerProcess,
    before: VariantRef,
    after: VariantRef,
    footage: Sequence[Footage],
    seconds: float,
    console: Console,
) -> LiveRun:
    """Plays all cameras for some seconds and swaps the variant at half time."""
    from lathe_loadtest.camera import Tally

    cameras = four_cameras(before.model, footage)
    tallies = [Tally() for _ in cameras]
    async with server.async_client() as client:
        await client.set_route(before.model, {before.variant: 1}, author="demo", reason="live part")
        start = time.time()
        players = [
            asyncio.create_task(camera.play(client, seconds, tally))
            for camera, tally in zip(cameras, tallies, strict=True)
        ]
        swapper = asyncio.create_task(_swap(client, server, before, after, seconds / 2, start))
        with Live(console=console, auto_refresh=False, transient=True) as view:
            while not all(player.done() for player in players):
                view.update(_table(cameras, tallies, swapper, time.time() - start, seconds), refresh=True)
                await asyncio.wait(players, timeout=REFRESH_SECONDS)
        await asyncio.gather(*players)
        swap = await swapper
    outcomes: Counter[str] = sum((tally.outcomes for tally in tallies), Counter())
    samples = [replace(sample, due_at=sample.due_at - start) for tally in tallies for sample in tally.samples]
    return LiveRun(swap, sum(tally.sent for tally in tallies), outcomes, sorted(samples, key=lambda s: s.due_at))


async def _swap(
    client: AsyncClient, server: ServerProcess, before: VariantRef, after: VariantRef, wait_seconds: float, start: float
) -> Swap:
    await asyncio.sleep(wait_seconds)
    metrics = await asyncio.to_thread(scrape, server.http)
    was_loaded = bool(metrics.total("lathe_variant_state", variant=after.variant, state="ready"))
    asked_at = time.time() - start
    await client.set_route(after.model, {after.variant: 1}, author="demo", reason="swap in mid-stream")
    return Swap(before.variant, after.variant, asked_at, time.time() - start, was_loaded)


def _table(
    cameras: Sequence[Camera], tallies: Sequence[Tally], swapper: asyncio.Task[Swap], at: float, seconds: float
) -> Table:
    state = "swapped" if swapper.done() else "before the swap"
    table = Table(title=f"live: {min(at, seconds):.0f} of {seconds:.0f} s, {state}")
    for heading in ("camera", "variant", "faces", "sent", "answered", "dropped", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="left" if heading in ("camera", "variant") else "right")
    for camera, tally in zip(cameras, tallies, strict=True):
        recent = tally.samples[-RECENT_SAMPLES:]
        latencies = [sample.latency_seconds * 1e3 for sample in recent] or [0.0]
        dropped = sum(count for name, count in tally.outcomes.items() if name.startswith("dropped_"))
        table.add_row(
            camera.name,
            recent[-1].variant if recent else "",
            str(recent[-1].faces) if recent else "",
            str(tally.sent),
            str(tally.outcomes["answered"]),
            str(dropped),
            f"{np.quantile(latencies, 0.5):.1f}",
            f"{np.quantile(latencies, 0.99):.1f}",
        )
    return table
