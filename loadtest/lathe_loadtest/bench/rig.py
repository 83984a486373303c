"""The machine of a benchmark: the server on one core, whoever drives it on another, raw taking turns with it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from lathe.client import AsyncClient
from lathe.demo.footage import load_footage
from lathe.demo.workspace import fresh_folder
from lathe.errors import Refused
from lathe.repository import Repository
from lathe.scrape import scrape
from lathe.server_process import ServerProcess
from lathe_loadtest.camera import Camera, Tally

MODEL = "face"
STREAMS = 16
FRAME_WH, JPEG_QUALITY, FRAMES = (640, 480), 95, 60
RATES_SPREAD = 0.1
"""Of the cameras' rates, as a share of the mean one."""
GOLDEN_RATIO = 0.618034
TWIN = "twin"
"""The same file as the variant that is measured, under another name: a swap between them changes no service time."""


@dataclass(frozen=True)
class Raw:
    """Decode → infer → postprocess in a loop, without a server.

    Attributes:
        frame_ms: median time of a frame.
        infer_ms: of it the network's.
    """

    frames_per_second: float
    cpu_ms_per_frame: float
    frame_ms: float
    infer_ms: float


@dataclass(frozen=True)
class Served:
    """The same frames through the server, which is never idle."""

    frames_per_second: float
    cpu_ms_per_frame: float


class Rig:
    """Args:
    source: repository that has the variants.
    folder: for frames, logs and a repository with the twin.
    seconds: of each single measurement.
    rounds: how often each is repeated; figures are medians.

    Raises:
        Refused: there is one core only.
    """

    def __init__(self, source: Path, folder: Path, *, seconds: float, rounds: int) -> None:
        self.folder = folder
        self.seconds = seconds
        self.rounds = rounds
        self._source = Repository(source)
        self._frames = _write_frames(fresh_folder(folder / "frames"))
        self.jpegs = [path.read_bytes() for path in sorted(self._frames.glob("*.jpg"))]
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise Refused("a benchmark needs two cores: one for the server, one for who drives it")
        server_core, client_core = cores[:2]
        self._one, self._two = {server_core}, {server_core, client_core}
        os.sched_setaffinity(0, {client_core})

    def pinned(self, workers: int) -> Callable[[], None]:
        """For a child process, before it begins: keeps it to the cores of so many workers."""
        return lambda: os.sched_setaffinity(0, self.cores(workers))

    def cores(self, workers: int) -> set[int]:
        """Where so many workers run: one has a core for itself, two share theirs with who drives them."""
        return self._one if workers == 1 else self._two

    @contextmanager
    def server(
        self, weights: dict[str, int], *, twin_of: str = "", workers: int = 1, flags: Sequence[str] = ()
    ) -> Iterator[ServerProcess]:
        """A server on its cores.

        Args:
            weights: of the route; variants of weight 0 are published and not loaded.
            twin_of: publish this variant's twin beside it.
            workers: 1 or 2.
            flags: more for the server.
        """
        root = self._copy({*weights, *([twin_of] if twin_of else [])} - {TWIN}, twin_of)
        with ServerProcess(root, self.folder / "server.log", ("--workers", str(workers), *flags)) as running:
            self.place(running, workers)
            asyncio.run(_set_route(running, weights))
            yield running
            running.stop()

    def place(self, server: ServerProcess, workers: int) -> None:
        """Keeps a server to the cores of so many workers."""
        for thread in Path(f"/proc/{server.process.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), self.cores(workers))

    def has(self, variant: str) -> bool:
        return variant in self._source.variants(MODEL)

    def version(self, variant: str) -> Path:
        """The folder of its model and its card."""
        return self._source.folder(self._source.newest(MODEL, variant))

    @property
    def picture(self) -> Path:
        """The first of the frames."""
        return min(self._frames.glob("*.jpg"))

    def _copy(self, variants: set[str], twin_of: str) -> Path:
        """A repository of these variants alone."""
        copy = Repository(fresh_folder(self.folder / "models"))
        names = {name: name for name in sorted(variants)} | ({TWIN: twin_of} if twin_of else {})
        for name, source in names.items():
            ref = self._source.newest(MODEL, source)
            card = self._source.card(ref)
            card.variant = name
            copy.publish(card, self._source.model_bytes(ref))
        return copy.root

    def raw(self, variant: str, *, workers: int = 1, pictures: int = FRAMES, engine: str = "onnxruntime") -> Raw:
        """The bare loop, in a process of its own on the server's cores.

        Args:
            workers: threads.
            pictures: how many of the frames it takes, in turn.
        """
        command = [sys.executable, "-m", "lathe_server.raw", str(self._source.root), MODEL, variant, str(self._frames)]
        command += ["--seconds", str(self.seconds), "--threads", str(workers), "--pictures", str(pictures)]
        command += ["--engine", engine]
        done = subprocess.run(
            command,
            check=True,
            capture_output=True,
            text=True,
            preexec_fn=self.pinned(workers),
        )
        return Raw(**json.loads(done.stdout))

    def saturate(self, server: ServerProcess, seconds: float = 0.0) -> Served:
        """Streams that keep all frames, as fast as the server takes them."""
        return asyncio.run(self._saturate(server, seconds or self.seconds))

    async def _saturate(self, server: ServerProcess, seconds: float) -> Served:
        end = time.monotonic() + seconds

        async def pictures(number: int) -> AsyncIterator[tuple[bytes, float]]:
            index = number * len(self.jpegs) // STREAMS  # so that all streams together play what raw plays
            while time.monotonic() < end:
                yield self.jpegs[index % len(self.jpegs)], 0.0
                index += 1

        async def one(client: AsyncClient, number: int) -> int:
            results = client.detect_stream(MODEL, pictures(number), stream_id=f"bench-{number}")
            return sum([result.answered async for result in results])

        before = await asyncio.to_thread(_cpu_seconds, server)
        began = time.monotonic()
        async with server.async_client() as client:
            answered = sum(await asyncio.gather(*(one(client, number) for number in range(STREAMS))))
        elapsed = time.monotonic() - began
        cpu = await asyncio.to_thread(_cpu_seconds, server) - before
        return Served(answered / elapsed, cpu / answered * 1e3)

    def cameras(self, count: int, frames_per_second: float, *, max_age_seconds: float = 0.0) -> list[Camera]:
        """Cameras that together send so many frames a second.

        No two have quite the same rate, as no two clocks have: so they drift past each other, and all that two
        cameras can do to each other happens in a run. Which has which is in no order, or all would meet at once.
        """
        mean = frames_per_second / count
        return [
            Camera(
                f"camera-{number}",
                MODEL,
                self.jpegs,
                mean * (1 + RATES_SPREAD * (number * GOLDEN_RATIO % 1 - 0.5)),
                phase=number / count,
                max_age_seconds=max_age_seconds,
            )
            for number in range(count)
        ]


async def play(server: ServerProcess, cameras: Sequence[Camera], seconds: float) -> list[Tally]:
    """Open loop: each camera at its own pace, whatever the server does."""
    tallies = [Tally() for _ in cameras]
    async with server.async_client() as client:
        plays = (camera.play(client, seconds, tally) for camera, tally in zip(cameras, tallies, strict=True))
        await asyncio.gather(*plays)
    return tallies


def latencies(tallies: Sequence[Tally]) -> np.ndarray:
    """Seconds from when a frame was due to its answer, of all answered frames."""
    return np.array([sample.latency_seconds for tally in tallies for sample in tally.samples])


def answered(tallies: Sequence[Tally]) -> int:
    return sum(tally.outcomes["answered"] for tally in tallies)


def unanswered(tallies: Sequence[Tally]) -> int:
    """Frames that were sent and not answered, for whatever reason."""
    return sum(tally.sent for tally in tallies) - answered(tallies)


async def _set_route(server: ServerProcess, weights: dict[str, int]) -> None:
    async with server.async_client() as client:
        await client.set_route(MODEL, weights, author="bench")


def _cpu_seconds(server: ServerProcess) -> float:
    return scrape(server.http).total("process_cpu_seconds_total")


def _write_frames(folder: Path) -> Path:
    """Frames as a network camera sends them: VGA, some 50 KB."""
    videos = load_footage([])
    for number in range(FRAMES):
        video = videos[number % len(videos)]
        frame = video.frames[number * len(video.frames) // FRAMES]
        pixels = cv2.resize(simplejpeg.decode_jpeg(frame, "RGB"), FRAME_WH, interpolation=cv2.INTER_CUBIC)
        (folder / f"{number:04}.jpg").write_bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), JPEG_QUALITY))
    return folder
