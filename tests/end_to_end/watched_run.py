"""Cameras on the shipped variants while a real Prometheus looks: a quiet time, two experiments with swaps between, a
restart, and too much load."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import Counter
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lathe.client import AsyncClient
from lathe.demo.footage import load_footage
from lathe.errors import LatheError
from lathe.scrape import scrape
from lathe.v1 import experiment_pb2
from lathe_loadtest.camera import Camera, Tally
from tests.conftest import ROOT, RunningServer, start_server
from tests.prometheus import Prometheus, free_port

MODEL = "face"
SHARED, TRIED = 1 / 3, 1 / 2
"""Parts of a trial in which the route is shared, and then an experiment is on."""
RULES = ROOT / "deploy/prometheus/rules.yml"
CANDIDATES = {"first trial": "student-int8", "second trial": "pruned-int8"}
PRICE_PER_CORE_HOUR = 0.05
FLAGS = (
    *("--price-per-core-hour", str(PRICE_PER_CORE_HOUR), "--carbon-grams-per-kwh", "380"),
    *("--stream-labels", "gate-*,hall-*", "--objective-seconds", "0.05", "--server-name", "watched"),
)


@dataclass(frozen=True)
class Load:
    """Attributes:
    joining: share of its phase in which the cameras come one after the other; all are there at once with 0.
    """

    cameras: int
    fps: float
    joining: float = 0.0


LOADS: Mapping[str, Load] = {
    "quiet": Load(4, 10.0),
    "first trial": Load(6, 12.0),
    "second trial": Load(12, 60.0),
    "busy": Load(24, 60.0),
}
"""Of the phases; the busy one's is more than two cores can do."""


@dataclass(frozen=True)
class Phase:
    """A time of one kind of load.

    Attributes:
        began, ended: Unix time; all of it was scraped by then.
        tallies: of its cameras, by their names.
        calls: outcomes of single calls.
    """

    began: float
    ended: float
    tallies: dict[str, Tally]
    calls: Counter[str]

    @property
    def outcomes(self) -> Counter[str]:
        return sum((tally.outcomes for tally in self.tallies.values()), Counter()) + self.calls

    @property
    def latencies(self) -> list[float]:
        return sorted(sample.latency_seconds for tally in self.tallies.values() for sample in tally.samples)


@dataclass
class WatchedRun:
    """Attributes:
    server: as it is after its restart.
    began: Unix time of the first.
    """

    prometheus: Prometheus
    server: RunningServer
    began: float
    phases: dict[str, Phase] = field(default_factory=dict)

    @property
    def outcomes(self) -> Counter[str]:
        return sum((phase.outcomes for phase in self.phases.values()), Counter())

    @property
    def ended(self) -> float:
        return max(phase.ended for phase in self.phases.values())


@contextmanager
def watched_run(
    folder: Path, seconds: float, scrape_seconds: float = 1.0, loads: Mapping[str, Load] = LOADS
) -> Iterator[WatchedRun]:
    """
    Args:
        seconds: of each phase.
    """
    frames = [frame for video in load_footage(()) for frame in video.frames[:40]]
    shutil.copytree(ROOT / "models", folder / "models")
    flags = (*FLAGS, "--http", f"127.0.0.1:{free_port()}")
    http = flags[-1]
    with Prometheus(folder / "prometheus", {"lathe": [http]}, RULES, scrape_seconds) as prometheus:
        began = time.time()
        with start_server(folder / "models", folder / "first.log", *flags) as server:
            run = WatchedRun(prometheus, server, began)
            prometheus.has_scraped('up{job="lathe"}', 1)
            run.phases["quiet"] = asyncio.run(_quiet(run, frames, seconds, loads["quiet"]))
            for name, candidate in CANDIDATES.items():
                run.phases[name] = asyncio.run(_trial(run, frames, seconds, loads[name], candidate))
            assert server.stop() == 0
        with start_server(folder / "models", folder / "second.log", *flags) as server:
            run.server = server
            prometheus.has_scraped("sum(lathe_frames_total)", 0)
            run.phases["busy"] = asyncio.run(_busy(run, frames, seconds, loads["busy"]))
            yield run


async def _quiet(run: WatchedRun, frames: Sequence[bytes], seconds: float, load: Load) -> Phase:
    """A few cameras, and now and then a call; one of its pictures is none."""
    async with run.server.async_client() as client:
        calls: Counter[str] = Counter()

        async def call() -> None:
            for picture in (frames[0], b"no picture", frames[-1]):
                await asyncio.sleep(seconds / 4)
                try:
                    calls[(await client.detect(MODEL, picture)).outcome] += 1
                except LatheError:
                    calls["rejected"] += 1

        cameras = _cameras(["gate"], frames, load)
        return await _phase(run, client, cameras, seconds, load, call(), calls)


async def _trial(run: WatchedRun, frames: Sequence[bytes], seconds: float, load: Load, candidate: str) -> Phase:
    """The route is shared while another variant sees frames in the shadow; then there is an experiment."""
    async with run.server.async_client() as client:

        async def change() -> None:
            shadow = ({*CANDIDATES.values()} - {candidate}).pop()
            await client.set_route(MODEL, {"int8": 1, candidate: 1}, shadow=shadow, shadow_share=0.5)
            await asyncio.sleep(seconds * SHARED)
            try:
                await client.set_route(MODEL, {"int8": 1}, expected_revision=77)
            except LatheError:
                await client.set_route(MODEL, {"int8": 1})
            await client.start_experiment(_spec(candidate, seconds / 24))
            await asyncio.sleep(seconds * TRIED)
            await client.stop_experiment(MODEL, "seen enough")

        return await _phase(run, client, _cameras(["hall"], frames, load), seconds, load, change(), Counter())


def _spec(candidate: str, block_seconds: float) -> experiment_pb2.ExperimentSpec:
    """With bounds so wide that it goes on until it is stopped."""
    spec = experiment_pb2.ExperimentSpec(
        model=MODEL,
        block_seconds=block_seconds,
        max_seconds=600.0,
        minimum_effect=0.001,
        minimum_agreement=0.1,
        shadow_share=0.5,
        max_latency_ratio=1e6,
    )
    spec.baseline.variant, spec.candidate.variant = "int8", candidate
    return spec


async def _busy(run: WatchedRun, frames: Sequence[bytes], seconds: float, load: Load) -> Phase:
    """Too much load, of cameras that nobody has named, too; the dearer variant gives way."""
    async with run.server.async_client() as client:
        await client.set_route(MODEL, {"int8": 1}, degrade=["student-int8"], degrade_after_seconds=0.03)
        cameras = _cameras(["street", "gate"], frames, load)
        return await _phase(run, client, cameras, seconds, load, asyncio.sleep(0), Counter())


def _cameras(places: Sequence[str], frames: Sequence[bytes], load: Load) -> list[Camera]:
    return [
        Camera(f"{places[number % len(places)]}-{number}", MODEL, frames, load.fps, number / load.cameras)
        for number in range(load.cameras)
    ]


async def _phase(
    run: WatchedRun,
    client: AsyncClient,
    cameras: Sequence[Camera],
    seconds: float,
    load: Load,
    beside: Awaitable[None],
    calls: Counter[str],
) -> Phase:
    """Plays, and waits until Prometheus knows all that the server knows."""
    began = time.time()
    tallies = {camera.name: Tally() for camera in cameras}

    async def play(number: int, camera: Camera) -> None:
        late_seconds = seconds * load.joining * number / load.cameras
        await asyncio.sleep(late_seconds)
        await camera.play(client, seconds - late_seconds, tallies[camera.name])

    await asyncio.gather(beside, *(play(number, camera) for number, camera in enumerate(cameras)))
    answered = scrape(run.server.http).total("lathe_frames_total")
    await asyncio.to_thread(run.prometheus.has_scraped, "sum(lathe_frames_total)", answered)
    return Phase(began, time.time(), tallies, calls)
