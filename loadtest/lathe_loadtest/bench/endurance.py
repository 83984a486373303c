"""What takes long: hours under load, and a thousand swaps. Run where they are asked for alone."""

from __future__ import annotations

import asyncio
import time
from statistics import median

import numpy as np

from lathe.client import AsyncClient
from lathe.errors import LatheError
from lathe.scrape import scrape
from lathe.server_process import ServerProcess
from lathe_loadtest.bench.rig import MODEL, STREAMS, TWIN, Rig, latencies, play, unanswered
from lathe_loadtest.bench.scenarios import Figures, capacity_of, percentile_ms
from lathe_loadtest.camera import Tally

SOAK_LOOKS, SATURATE_SECONDS = 40, 5.0
SWAPS, TURNS = 1000, 10
SWAP_EACH_SECONDS = 0.4
"""Twice what one takes: some deploy often, nobody without a pause."""
CALLERS = 2


def storm(rig: Rig, variant: str, swaps: int = SWAPS) -> Figures:
    """Swaps at a pace under half load, by streams and by unary calls, in turns with stretches without any.

    Memory is looked at after a tenth of the swaps and after the last one.
    """
    failed, ratios, resident, seconds = 0, [], [], []

    async def call(client: AsyncClient, until: asyncio.Event) -> int:
        wrong = 0
        while not until.is_set():
            try:
                wrong += not (await client.detect(MODEL, rig.jpegs[0])).answered
            except LatheError:
                wrong += 1
            await asyncio.sleep(0.1)
        return wrong

    async def watched(client: AsyncClient, stop: asyncio.Event) -> list[Tally]:
        """Cameras and callers until they are stopped."""
        nonlocal failed
        cameras = rig.cameras(STREAMS, 0.5 * capacity)
        tallies = [Tally() for _ in cameras]
        playing = [
            asyncio.create_task(camera.play(client, 1e6, tally, stop=stop))
            for camera, tally in zip(cameras, tallies, strict=True)
        ]
        failed += sum(await asyncio.gather(*(call(client, stop) for _ in range(CALLERS))))
        await asyncio.gather(*playing)
        failed += unanswered(tallies)
        return tallies

    async def turn(client: AsyncClient, server: ServerProcess) -> None:
        stop = asyncio.Event()
        watching = asyncio.create_task(watched(client, stop))
        began = time.monotonic()
        for swap in range(swaps // TURNS):
            begun = time.monotonic()
            await client.set_route(MODEL, {(TWIN, variant)[swap % 2]: 1}, author="bench")
            seconds.append(time.monotonic() - begun)
            await asyncio.sleep(max(0.0, began + (swap + 1) * SWAP_EACH_SECONDS - time.monotonic()))
        took = time.monotonic() - began
        stop.set()
        beside = await watching
        resident.append(await asyncio.to_thread(_resident_mb, server))
        stop = asyncio.Event()
        watching = asyncio.create_task(watched(client, stop))
        await asyncio.sleep(took)
        stop.set()
        without = await watching
        ratios.append(percentile_ms(latencies(beside), 99) / percentile_ms(latencies(without), 99))

    async def act(server: ServerProcess) -> None:
        async with server.async_client() as client:
            for _ in range(TURNS):
                await turn(client, server)

    with rig.server({variant: 1}, twin_of=variant) as server:
        capacity = capacity_of(rig, server, seconds=SATURATE_SECONDS)
        asyncio.run(act(server))
        done = scrape(server.http).total("lathe_swaps_total", result="done")
    return {
        "swaps": done,
        "failed": failed,
        "p99_ratio": median(ratios),
        "memory_ratio": resident[-1] / resident[0],
        "memory_mb": resident[-1],
        "swap_seconds": median(seconds),
    }


def _resident_mb(server: ServerProcess) -> float:
    return scrape(server.http).total("process_resident_memory_bytes") / 1e6


def soak(rig: Rig, variant: str) -> Figures:
    """Half of what the server can do, with a swap now and then, for as long as one measurement is set to take.

    The first tenth warms up; the slope is that of a straight line through what follows.
    """

    def looks(server: ServerProcess) -> tuple[float, float, float]:
        seen = scrape(server.http)
        return time.monotonic(), seen.total("process_resident_memory_bytes") / 1e6, seen.total("process_open_fds")

    async def live(server: ServerProcess) -> list[tuple[float, float, float]]:
        cameras, part, seen = rig.cameras(STREAMS, 0.5 * capacity), rig.seconds / SOAK_LOOKS, []
        async with server.async_client() as client:
            for number in range(SOAK_LOOKS):
                await client.set_route(MODEL, {(variant, TWIN)[number % 2]: 1}, author="bench")
                found = await play(server, cameras, part)
                lost.append(unanswered(found))
                seen.append(await asyncio.to_thread(looks, server))
        return seen

    lost: list[int] = []
    with rig.server({variant: 1}, twin_of=variant) as server:
        capacity = capacity_of(rig, server, seconds=SATURATE_SECONDS)
        seen = np.array(asyncio.run(live(server))[SOAK_LOOKS // 10 :])
    hours = (seen[:, 0] - seen[0, 0]) / 3600
    return {
        "unanswered": sum(lost),
        "memory_slope_mb_per_hour": float(np.polyfit(hours, seen[:, 1], 1)[0]),
        "memory_mb": float(seen[-1, 1]),
        "descriptors_gained": float(seen[-1, 2] - seen[0, 2]),
    }
