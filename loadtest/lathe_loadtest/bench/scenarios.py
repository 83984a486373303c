"""What is measured. Each returns figures by name; ratios are within one run, medians over its rounds."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from lathe.errors import Unavailable
from lathe.scrape import scrape
from lathe.server_process import ServerProcess
from lathe.v1 import inference_pb2
from lathe_loadtest.bench.h2load import Calls, drive, grpc_message
from lathe_loadtest.bench.peers import Peer, installed, running
from lathe_loadtest.bench.rig import (
    MODEL,
    STREAMS,
    TWIN,
    Rig,
    answered,
    latencies,
    play,
    unanswered,
)
from lathe_loadtest.camera import Camera, Tally

Figures = Mapping[str, float]

CROWD, CROWD_MAX_AGE = 64, 1.0
FLOOD_FPS = 120.0
SWAP_SECONDS = 1.0
SHADOW_SHARE = 0.1
RAMP, DEGRADE_AFTER = (0.8, 3.0, 0.8), 0.05
CALLERS = (2, 4, 16)
DETECT = "lathe.v1.InferenceService/Detect"


def throughput(rig: Rig, variant: str) -> Figures:
    """Streams through the server against the bare loop, taking turns."""
    with rig.server({variant: 1}) as server:
        turns = [(rig.raw(variant), rig.saturate(server)) for _ in range(rig.rounds)]
    return {
        "network_ms": median(raw.infer_ms for raw, _ in turns),
        "raw_fps": median(raw.frames_per_second for raw, _ in turns),
        "server_fps": median(served.frames_per_second for _, served in turns),
        "share_of_raw": median(served.frames_per_second / raw.frames_per_second for raw, served in turns),
        "cpu_over_raw_ms": median(served.cpu_ms_per_frame - raw.cpu_ms_per_frame for raw, served in turns),
    }


def engines(rig: Rig, variant: str) -> Figures:
    """One file on ONNX Runtime and on OpenVINO, each taking turns in the bare loop."""
    turns = [(rig.raw(variant), rig.raw(variant, engine="openvino")) for _ in range(rig.rounds)]
    return {
        "onnxruntime_ms": median(one.infer_ms for one, _ in turns),
        "openvino_ms": median(other.infer_ms for _, other in turns),
        "openvino_speed": median(one.infer_ms / other.infer_ms for one, other in turns),
    }


def one_caller(rig: Rig, variant: str) -> Figures:
    """What a single caller's call takes beside the bare loop, both on the same picture."""
    turns = []
    with rig.server({variant: 1}) as server:
        for _ in range(rig.rounds):
            raw = rig.raw(variant, pictures=1)
            turns.append((raw.frame_ms, _unary(rig, server, 1).median_ms))
    return {
        "raw_ms": median(raw for raw, _ in turns),
        "call_ms": median(call for _, call in turns),
        "added_ms": median(call - raw for raw, call in turns),
    }


def unary(rig: Rig, variant: str, environments: Path) -> Figures:
    """Calls on two cores, beside the bare loop in two threads and beside other servers, all taking turns.

    Of each server the throughput with as many callers as suit it best, and what it adds to a single caller's call.

    Args:
        environments: of the peers; one that has none is left out.
    """
    workers, names = 2, installed(environments)
    shares: dict[str, list[float]] = {name: [] for name in ("lathe", *names)}
    added: dict[str, list[float]] = {name: [] for name in shares}
    raws = []
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(rig.server({variant: 1}, workers=workers))
        asked: dict[str, Callable[[int], Calls]] = {"lathe": partial(_unary, rig, server)}
        for name in names:
            peer = stack.enter_context(
                running(
                    name,
                    environments,
                    rig.version(variant),
                    rig.picture,
                    rig.folder / f"{name}.log",
                    workers=workers,
                    cores=rig.cores(workers),
                )
            )
            asked[name] = partial(ask_peer, rig, peer)
        for _ in range(rig.rounds):
            raws.append(raw := rig.raw(variant, workers=workers, pictures=1))
            one = rig.raw(variant, pictures=1)
            for name, ask in asked.items():
                best = max(ask(callers).per_second for callers in CALLERS)
                shares[name].append(best / raw.frames_per_second)
                added[name].append(ask(1).median_ms - one.frame_ms)
    figures = {f"{name}_share": median(found) for name, found in shares.items()}
    figures |= {f"{name}_added_ms": median(found) for name, found in added.items()}
    if "mosec" in shares:
        pairs = zip(shares["lathe"], shares["mosec"], strict=True)
        figures["over_mosec"] = median(own / mosec for own, mosec in pairs)
    return {
        "network_ms": median(raw.infer_ms for raw in raws),
        "raw_fps": median(raw.frames_per_second for raw in raws),
        **figures,
    }


def _unary(rig: Rig, server: ServerProcess, callers: int) -> Calls:
    """Counted by the server itself: an error of gRPC hides behind HTTP's 200.

    Raises:
        Unavailable: not all were answered.
    """

    def counted() -> tuple[float, float]:
        seen = scrape(server.http)
        return seen.total("lathe_frames_total"), seen.total("lathe_frames_total", outcome="answered")

    request = inference_pb2.DetectRequest(model=MODEL, frame=inference_pb2.Frame(encoded=rig.picture.read_bytes()))
    before = counted()
    calls = drive(
        f"http://{server.grpc}/{DETECT}",
        grpc_message(request.SerializeToString()),
        rig.folder,
        seconds=rig.seconds,
        clients=callers,
    )
    frames, answered = (after - earlier for after, earlier in zip(counted(), before, strict=True))
    # h2load hangs up in the middle of its last calls, and counts none of its first.
    if answered < calls.count or frames > answered + callers:
        raise Unavailable(f"of {frames:.0f} calls {answered:.0f} were answered")
    return calls


def ask_peer(rig: Rig, peer: Peer, callers: int) -> Calls:
    peer.ask()
    calls = drive(
        peer.url,
        peer.body,
        rig.folder,
        seconds=rig.seconds,
        clients=callers,
        headers=peer.headers,
        http1=peer.http1,
    )
    peer.ask()
    return calls


def steady(rig: Rig, variant: str) -> Figures:
    """Cameras at a fixed rate, together four fifths of what the server can do."""
    with rig.server({variant: 1}) as server:
        raw, capacity = rig.raw(variant), capacity_of(rig, server)
        rounds = [
            asyncio.run(play(server, rig.cameras(STREAMS, 0.8 * capacity), rig.seconds)) for _ in range(rig.rounds)
        ]
    return {
        "service_ms": raw.frame_ms,
        "p50_ms": median(percentile_ms(one, 50) for one in map(latencies, rounds)),
        "p99_ms": median(percentile_ms(one, 99) for one in map(latencies, rounds)),
        "p99_over_service": median(percentile_ms(one, 99) for one in map(latencies, rounds)) / raw.frame_ms,
        "dropped": sum(map(unanswered, rounds)),
    }


def load(rig: Rig, variant: str, share: float) -> Figures:
    """Cameras at a fixed rate, together a share of what the server can do."""
    with rig.server({variant: 1}) as server:
        capacity = capacity_of(rig, server)
        found = asyncio.run(play(server, rig.cameras(STREAMS, share * capacity), rig.seconds))
    return {
        "p50_ms": percentile_ms(latencies(found), 50),
        "p99_ms": percentile_ms(latencies(found), 99),
        "answered_share": answered(found) / (answered(found) + unanswered(found)),
    }


def overload(rig: Rig, variant: str) -> Figures:
    """Twice as many frames as can be judged, with a limit of age."""
    with rig.server({variant: 1}) as server:
        capacity = capacity_of(rig, server)
        cameras = rig.cameras(CROWD, 2 * capacity, max_age_seconds=CROWD_MAX_AGE)
        rounds = [asyncio.run(play(server, cameras, rig.seconds)) for _ in range(rig.rounds)]
    return {
        "served_over_capacity": median(answered(one) / rig.seconds / capacity for one in rounds),
        "p99_ms": median(percentile_ms(one, 99) for one in map(latencies, rounds)),
        "max_age_ms": CROWD_MAX_AGE * 1e3,
    }


def flood(rig: Rig, variant: str) -> Figures:
    """Cameras at a fixed rate, together four fifths of what the server can do; then one of them sends far too much."""
    with rig.server({variant: 1}) as server:
        cameras = rig.cameras(STREAMS, 0.8 * capacity_of(rig, server))
        flooding = Camera("flood", MODEL, rig.jpegs, FLOOD_FPS)
        ratios, dropped = [], 0
        for _ in range(rig.rounds):
            without = asyncio.run(play(server, cameras, rig.seconds))[:-1]
            beside = asyncio.run(play(server, [*cameras[:-1], flooding], rig.seconds))[:-1]
            ratios.append(percentile_ms(latencies(beside), 99) / percentile_ms(latencies(without), 99))
            dropped += unanswered(beside)
    return {"p99_ratio": median(ratios), "others_dropped": dropped}


def swaps(rig: Rig, variant: str) -> Figures:
    """A swap a second between a variant and its twin."""

    turns = itertools.cycle([TWIN, variant])

    async def swapping(server: ServerProcess) -> None:
        async with server.async_client() as client:
            while True:
                await asyncio.sleep(min(SWAP_SECONDS, rig.seconds / 4))
                await client.set_route(MODEL, {next(turns): 1}, author="bench")

    async def swapped(server: ServerProcess) -> list[Tally]:
        swapper = asyncio.create_task(swapping(server))
        try:
            return await play(server, cameras, rig.seconds)
        finally:
            swapper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await swapper

    with rig.server({variant: 1}, twin_of=variant) as server:
        cameras = rig.cameras(STREAMS, 0.5 * capacity_of(rig, server))
        ratios, failed = [], 0
        for _ in range(rig.rounds):
            without = asyncio.run(play(server, cameras, rig.seconds))
            beside = asyncio.run(swapped(server))
            ratios.append(percentile_ms(latencies(beside), 99) / percentile_ms(latencies(without), 99))
            failed += unanswered(beside)
        done = scrape(server.http).total("lathe_swaps_total", result="done")
    return {"swaps": done, "failed": failed, "p99_ratio": median(ratios)}


def shadow(rig: Rig, variant: str) -> Figures:
    """Half load, with a tenth of the frames judged by the variant's twin too, in turns with none."""

    async def route(server: ServerProcess, beside: str) -> None:
        async with server.async_client() as client:
            await client.set_route(MODEL, {variant: 1}, author="bench", shadow=beside, shadow_share=SHADOW_SHARE)

    with rig.server({variant: 1}, twin_of=variant) as server:
        cameras = rig.cameras(STREAMS, 0.5 * capacity_of(rig, server))
        ratios, frames = [], 0
        for _ in range(rig.rounds):
            found = []
            for beside in ("", TWIN):
                asyncio.run(route(server, beside))
                tallies = asyncio.run(play(server, cameras, rig.seconds))
                found.append(percentile_ms(latencies(tallies), 99))
            frames += answered(tallies)
            ratios.append(found[1] / found[0])
        compared = scrape(server.http).total("lathe_shadow_frames_total", outcome="compared")
    return {"p99_ratio": median(ratios), "share": compared / frames}


def degrade(rig: Rig, variant: str, cheaper: Sequence[str]) -> Figures:
    """Once, three times and once the load that can be carried, with and without cheaper variants to move to."""

    async def ramp(server: ServerProcess, capacity: float, cheaper: Sequence[str]) -> list[int]:
        async with server.async_client() as client:
            await client.set_route(MODEL, {variant: 1}, degrade=cheaper, degrade_after_seconds=DEGRADE_AFTER)
        return [answered(await play(server, rig.cameras(STREAMS, load * capacity), 2 * rig.seconds)) for load in RAMP]

    with rig.server({variant: 1, **dict.fromkeys(cheaper, 0)}) as server:
        capacity = capacity_of(rig, server)
        turns = [
            (asyncio.run(ramp(server, capacity, cheaper)), asyncio.run(ramp(server, capacity, [])))
            for _ in range(max(1, rig.rounds // 2))
        ]
    return {
        "answered_ratio": median(sum(degrading) / sum(dropping) for degrading, dropping in turns),
        "answered_ratio_at_peak": median(degrading[1] / dropping[1] for degrading, dropping in turns),
    }


def footprint(rig: Rig, variants: list[str]) -> Figures:
    """Memory with two variants loaded, and the time from the start of the process until frames are taken."""
    ready, resident = [], []
    for _ in range(rig.rounds):
        with rig.server(dict.fromkeys(variants, 1)) as server:
            ready.append(server.ready_seconds)
            rig.saturate(server)
            resident.append(scrape(server.http).total("process_resident_memory_bytes") / 1e6)
    return {"ready_seconds": median(ready), "resident_mb": median(resident)}


def capacity_of(rig: Rig, server: ServerProcess, seconds: float = 0.0) -> float:
    """Frames a second that the server can do; over the rig's time where none is given."""
    return rig.saturate(server, seconds).frames_per_second


def percentile_ms(values: np.ndarray, percent: float) -> float:
    return float(np.percentile(values, percent)) * 1e3
