"""The swap on the real face variants, at no more than half of the machine's capacity."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import pytest

from lathe.client import AsyncClient
from lathe.demo.footage import load_footage
from lathe.errors import NotFound
from lathe.scrape import scrape
from lathe_loadtest.camera import Camera, Tally
from tests.conftest import RunningServer, start_server

SECONDS = 5.0


async def play_and_swap(server: RunningServer) -> tuple[list[Tally], float, float]:
    footage = load_footage([])
    cameras = [Camera(f"camera-{n}", "face", footage[n % 2].frames, 10.0, n / 4) for n in range(4)]
    tallies = [Tally() for _ in cameras]
    async with AsyncClient(server.grpc, server.control) as client:
        await client.set_route("face", {"fp32": 1})
        assert not scrape(server.http).total("lathe_variant_state", variant="int8", state="ready")
        playing = [
            asyncio.create_task(camera.play(client, SECONDS, tally))
            for camera, tally in zip(cameras, tallies, strict=True)
        ]
        await asyncio.sleep(SECONDS / 2)
        asked_at = time.time()
        await client.set_route("face", {"int8": 1})
        served_at = time.time()
        await asyncio.gather(*playing)
    return tallies, asked_at, served_at


def test_four_cameras_lose_and_drop_nothing(face_repository: Path, tmp_path: Path) -> None:
    try:
        load_footage([])
    except NotFound as error:
        pytest.skip(error.message)
    with start_server(face_repository, tmp_path / "log") as server:
        tallies, asked_at, served_at = asyncio.run(play_and_swap(server))
        loaded = scrape(server.http)
        assert server.stop() == 0
    outcomes: Counter[str] = sum((tally.outcomes for tally in tallies), Counter())
    samples = [sample for tally in tallies for sample in tally.samples]
    assert sum(tally.lost for tally in tallies) == 0
    assert outcomes == {"answered": sum(tally.sent for tally in tallies)}
    assert {sample.variant for sample in samples} == {"fp32", "int8"}
    assert {s.variant for s in samples if s.due_at + s.latency_seconds < asked_at} == {"fp32"}
    assert {s.variant for s in samples if s.due_at > served_at} == {"int8"}
    assert any(asked_at <= s.due_at + s.latency_seconds and s.due_at <= served_at for s in samples)
    assert not loaded.total("lathe_variant_state", variant="fp32", state="ready"), "the old variant is out of memory"
