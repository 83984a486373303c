"""`make bench`: frames a second through the server as a share of the raw loop, on one core.

Raw and server take turns, pinned to the same core; the client has another. The streams keep all
frames, so the server is always busy and nothing is dropped. Each figure is the median over the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from lathe.client import AsyncClient
from lathe.demo.footage import evaluation_frames, load_footage
from lathe.errors import LatheError
from lathe.machine import cpu_name
from lathe.progress import Progress
from lathe.scrape import scrape
from lathe.server_process import ServerProcess

MODEL = "face"
STREAMS = 16
SERVER_CORE, CLIENT_CORE = 0, 1


async def saturate(server: ServerProcess, frames: Sequence[bytes], seconds: float) -> dict[str, float]:
    """Keeps all streams full; frames a second and the process's CPU milliseconds a frame."""
    end = time.monotonic() + seconds

    async def pictures(number: int) -> AsyncIterator[tuple[bytes, float]]:
        index = number * len(frames) // STREAMS  # so that all streams together play what raw plays
        while time.monotonic() < end:
            yield frames[index % len(frames)], 0.0
            index += 1

    async def one(client: AsyncClient, number: int) -> int:
        results = client.detect_stream(MODEL, pictures(number), stream_id=f"bench-{number}")
        return sum([result.answered async for result in results])

    before = await asyncio.to_thread(scrape, server.http)
    began = time.monotonic()
    async with AsyncClient(server.grpc, server.control) as client:
        answered = sum(await asyncio.gather(*(one(client, number) for number in range(STREAMS))))
    elapsed = time.monotonic() - began
    after = await asyncio.to_thread(scrape, server.http)
    cpu = after.total("process_cpu_seconds_total") - before.total("process_cpu_seconds_total")
    return {"frames_per_second": answered / elapsed, "cpu_ms_per_frame": cpu / answered * 1e3}


def raw(repository: Path, variant: str, frames: Path, seconds: float) -> dict[str, float]:
    """The raw loop, in a process of its own on the server's core."""
    command = [sys.executable, "-m", "lathe_server.raw", str(repository), MODEL, variant, str(frames)]
    done = subprocess.run(
        [*command, "--seconds", str(seconds)],
        check=True,
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repository", type=Path)
    parser.add_argument("--variants", nargs="+", default=["fp32", "int8"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--output", type=Path, default=Path("work/bench"))
    options = parser.parse_args()
    frames = evaluation_frames(load_footage([]), options.output / "frames")
    jpegs = [path.read_bytes() for path in sorted(frames.glob("*.jpg"))]
    os.sched_setaffinity(0, {CLIENT_CORE})
    table = Table(title=f"{cpu_name()}, one core, {STREAMS} streams, medians of {options.rounds}")
    for heading in ("variant", "network ms", "raw fps", "server fps", "share of raw", "CPU over raw, ms"):
        table.add_column(heading)
    report = {}
    for variant in options.variants:
        rounds = []
        log = options.output / "server.log"
        with ServerProcess(options.repository, log, ("--workers", "1")) as server:
            os.sched_setaffinity(server.process.pid, {SERVER_CORE})
            for thread in Path(f"/proc/{server.process.pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {SERVER_CORE})
            asyncio.run(_route(server, variant))
            with Progress().bar(variant, options.rounds) as advance:
                for _ in range(options.rounds):
                    alone = raw(options.repository, variant, frames, options.seconds)
                    rounds.append((alone, asyncio.run(saturate(server, jpegs, options.seconds))))
                    advance()
            server.stop()
        share = median(served["frames_per_second"] / alone["frames_per_second"] for alone, served in rounds)
        over = median(served["cpu_ms_per_frame"] - alone["cpu_ms_per_frame"] for alone, served in rounds)
        figures = {
            "network_ms": median(alone["infer_ms"] for alone, _ in rounds),
            "raw_fps": median(alone["frames_per_second"] for alone, _ in rounds),
            "server_fps": median(served["frames_per_second"] for _, served in rounds),
            "share_of_raw": share,
            "cpu_ms_over_raw": over,
        }
        report[variant] = figures
        table.add_row(variant, *(f"{value:.2f}" for value in figures.values()))
    Console().print(table)
    (options.output / "bench.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")


async def _route(server: ServerProcess, variant: str) -> None:
    async with AsyncClient(server.grpc, server.control) as client:
        await client.set_route(MODEL, {variant: 1}, author="bench")


if __name__ == "__main__":
    try:
        main()
    except LatheError as error:
        sys.exit(f"bench: {error.message}")
