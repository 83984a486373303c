"""What it costs to be watched: a frame's observation, a scrape, and many scrapes beside cameras.

As a program (`python -m lathe_loadtest.bench.watching KIND HOST:PORT`) it scrapes so until it is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from statistics import median

from lathe.errors import Unavailable
from lathe_loadtest.bench.rig import STREAMS, Rig, latencies, play, unanswered
from lathe_loadtest.bench.scenarios import Figures, capacity_of, percentile_ms

SCRAPERS = 100
EVERY_SECONDS = 1.0
SLOW_BYTES, SLOW_SECONDS = 256, 0.1


def watched(rig: Rig, variant: str) -> Figures:
    """Half load, in turns alone and beside scrapers."""
    counting = [_counting(rig) for _ in range(rig.rounds)]
    figures = {name: median(one[name] for one in counting) for name in counting[0]}
    figures["dropped"] = 0.0
    with rig.server({variant: 1}) as server:
        cameras = rig.cameras(STREAMS, 0.5 * capacity_of(rig, server))
        asyncio.run(play(server, cameras, rig.seconds))
        for kind in KINDS:
            ratios = []
            for _ in range(rig.rounds):
                without = asyncio.run(play(server, cameras, rig.seconds))
                command = [sys.executable, "-m", __spec__.name, kind, server.http]
                scraper = subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=lambda: os.nice(19) and None)
                try:
                    assert scraper.stdout
                    scraper.stdout.readline()
                    beside = asyncio.run(play(server, cameras, rig.seconds))
                    if scraper.poll() is not None:
                        raise Unavailable(f"not all scrapers were answered ({kind})")
                finally:
                    scraper.kill()
                    scraper.communicate()
                ratios.append(percentile_ms(latencies(beside), 99) / percentile_ms(latencies(without), 99))
                figures["dropped"] += unanswered(beside)
            figures[f"{kind}_p99_ratio"] = median(ratios)
    return figures


def _counting(rig: Rig) -> dict[str, float]:
    """In a process of its own on the server's core."""
    command = [sys.executable, "-m", "lathe_server.counting"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, preexec_fn=rig.pinned(1))
    found: dict[str, float] = json.loads(done.stdout)
    return found


async def _scrape(address: str, *, slowly: bool) -> None:
    host, _, port = address.rpartition(":")
    connection = socket.socket()
    connection.setblocking(False)
    if slowly:  # or the system takes in what the program has not asked for
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_BYTES)
    await asyncio.get_running_loop().sock_connect(connection, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=connection, limit=SLOW_BYTES)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: lathe\r\nConnection: close\r\n\r\n")
    try:
        if b" 200 " not in await reader.readline():
            raise OSError("it was not answered")
        while await reader.read(SLOW_BYTES if slowly else 1 << 20):
            if slowly:
                await asyncio.sleep(SLOW_SECONDS)
    finally:
        writer.close()


async def _together(address: str) -> None:
    """All at once, again and again."""
    while True:
        await asyncio.gather(*(_scrape(address, slowly=False) for _ in range(SCRAPERS)))
        print("go", flush=True)
        await asyncio.sleep(EVERY_SECONDS)


async def _slow(address: str) -> None:
    """As many that take little at a time."""

    async def one() -> None:
        while True:
            with contextlib.suppress(OSError):  # it is thrown out, and comes back
                await _scrape(address, slowly=True)

    print("go", flush=True)
    await asyncio.gather(*(one() for _ in range(SCRAPERS)))


KINDS = {"together": _together, "slow": _slow}


if __name__ == "__main__":
    asyncio.run(KINDS[sys.argv[1]](sys.argv[2]))
