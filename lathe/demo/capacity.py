"""How many cameras this machine carries: each variant alone, as many frames as it takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from lathe.client import AsyncClient
from lathe.demo.footage import Footage
from lathe.repository import VariantRef
from lathe.scrape import scrape
from lathe.server_process import ServerProcess

STREAMS = 4
SECONDS = 4.0
CAMERA_FPS = 10.0


@dataclass(frozen=True)
class Capacity:
    """Attributes:
    frames_per_second: answered, with the client on the same machine.
    cpu_ms_per_frame: of the whole server process.
    cost_per_million: predictions, for the worker's CPU time; None without a price.
    """

    frames_per_second: float
    cpu_ms_per_frame: float
    cost_per_million: float | None

    @property
    def cameras(self) -> int:
        return int(self.frames_per_second / CAMERA_FPS)


async def measure_capacity(
    server: ServerProcess, refs: Sequence[VariantRef], footage: Sequence[Footage], advance: Callable[[], None]
) -> dict[str, Capacity]:
    """Puts each variant on the route alone and keeps four streams full for some seconds.

    The last one measured is the first of `refs`, so that the others are out of memory afterwards.

    Args:
        advance: called after each variant.
    """
    found: dict[str, Capacity] = {}
    async with server.async_client() as client:
        for ref in reversed(refs):
            await client.set_route(ref.model, {ref.variant: 1}, author="demo", reason="capacity")
            await _saturate(client, ref, footage, 0.5)  # the first frames pay for threads and arenas
            before = await asyncio.to_thread(scrape, server.http)
            began = monotonic()
            answered = await _saturate(client, ref, footage, SECONDS)
            elapsed = monotonic() - began
            after = await asyncio.to_thread(scrape, server.http)
            cpu = after.total("process_cpu_seconds_total") - before.total("process_cpu_seconds_total")
            cost = after.total("lathe_cost_usage_total", variant=ref.variant) - before.total(
                "lathe_cost_usage_total", variant=ref.variant
            )
            priced = after.has("lathe_cost_usage_total")
            found[ref.variant] = Capacity(
                answered / elapsed, cpu / answered * 1e3, cost / answered * 1e6 if priced else None
            )
            advance()
    return found


async def _saturate(client: AsyncClient, ref: VariantRef, footage: Sequence[Footage], seconds: float) -> int:
    end = monotonic() + seconds
    counts = await asyncio.gather(
        *(_one_stream(client, ref, footage[number % len(footage)], number, end) for number in range(STREAMS))
    )
    return sum(counts)


async def _one_stream(client: AsyncClient, ref: VariantRef, video: Footage, number: int, end: float) -> int:
    async def frames() -> AsyncIterator[tuple[bytes, float]]:
        index = 0
        while monotonic() < end:
            yield video.frames[index % len(video.frames)], 0.0
            index += 1

    answered = 0
    async for result in client.detect_stream(ref.model, frames(), stream_id=f"capacity-{number}"):
        answered += result.answered
    return answered
