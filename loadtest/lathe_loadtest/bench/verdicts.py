"""`python -m lathe_loadtest.bench.verdicts`: how often experiments err, and how soon they find what is there.

Simulated ones run on a trace of real frames, so that these follow each other as frames do; real ones on a real server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from lathe.errors import LatheError
from lathe.exchange import Result
from lathe.experiment import completed, said_of, verdict_word, word
from lathe.experiment_page import write
from lathe.machine import cpu_name
from lathe.progress import Progress
from lathe.server_process import ServerProcess
from lathe.v1 import experiment_pb2
from lathe.v1.experiment_pb2 import EXPERIMENT_STATE_ENDED
from lathe_loadtest.bench.heavier import publish_heavier
from lathe_loadtest.bench.replay import Replayed, Trace, replay
from lathe_loadtest.bench.rig import MODEL, STREAMS, TWIN, Rig
from lathe_loadtest.camera import Tally

LOAD = 0.6
"""Of the baseline's capacity, that the cameras ask for."""
FACTOR = 0.9
"""The candidate's service time against the baseline's, in replayed runs; real ones come as near to it as they can."""
HEAVY = "heavy"
MAX_SECONDS, BLOCK_SECONDS = 600.0, 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repository", type=Path)
    parser.add_argument("--variant", default="int8")
    parser.add_argument("--output", type=Path, default=Path("work/verdicts"))
    parser.add_argument("--trace", type=Path, metavar="FILE", help="replay this one, of an earlier run")
    parser.add_argument("--trace-seconds", type=float, default=600.0, help="length of a new one (default %(default)s)")
    parser.add_argument("--aa", type=int, default=1000, help="replayed runs without a difference")
    parser.add_argument("--ab", type=int, default=300, help="replayed runs with one")
    parser.add_argument("--real", type=int, default=10, help="real runs with one; and one without")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the figures as a page")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    rig = Rig(options.repository, options.output, seconds=4.0, rounds=5)
    capacity = rig.raw(options.variant).frames_per_second
    if options.trace:
        trace = Trace.load(options.trace)
    else:
        with Progress().step("record a trace"):
            trace = record(rig, options.variant, LOAD * capacity, options.trace_seconds)
        trace.save(options.output / "trace.npz")
    with Progress().step(f"{options.aa} replayed experiments without a difference"):
        same = _replayed(trace, options.aa, 1.0)
    with Progress().step(f"{options.ab} replayed experiments with one"):
        apart = _replayed(trace, options.ab, FACTOR)
    figures: dict[str, Any] = {
        "frames": len(trace.seconds),
        "correlation": _correlation(trace),
        "aa": _counted(same),
        "ab": _counted(apart),
        "real": [],
    }
    if options.real:
        with Progress().step("a variant with more work in it"):
            publish_heavier(
                rig, options.repository, options.variant, HEAVY, lambda raw: raw.frame_ms, lambda now: now / FACTOR
            )
            pairs = [(rig.raw(options.variant).frame_ms, rig.raw(HEAVY).frame_ms) for _ in range(rig.rounds)]
        figures["ratio"] = median(one / other for one, other in pairs)
        for number in range(options.real):
            with Progress().step(f"real experiment {number + 1} of {options.real}"):
                found = real(rig, HEAVY, options.variant, LOAD * capacity, number, options.output)
            figures["real"].append(_told(found))
            print(json.dumps(figures["real"][-1]), flush=True)
        with Progress().step("a real experiment with one file under two names"):
            figures["real_aa"] = _told(real(rig, options.variant, TWIN, LOAD * capacity, 99, options.output))
            print(json.dumps(figures["real_aa"]), flush=True)
    (options.output / "verdicts.json").write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
    text = _page(figures)
    print(text)
    if options.markdown:
        options.markdown.write_text(text, "utf-8")


def record(rig: Rig, variant: str, frames_per_second: float, seconds: float) -> Trace:
    """What one variant's frames cost, one after the other, under cameras that drift past each other."""
    rows: list[tuple[float, float, float]] = []

    async def film(server: ServerProcess) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()

        def note(result: Result) -> None:
            if result.answered:
                service = sum(took for stage, took in result.stage_seconds.items() if stage != "queue")
                rows.append((loop.time() - began, service, result.age_seconds))

        async with server.async_client() as client:
            cameras = rig.cameras(STREAMS, frames_per_second, max_age_seconds=1.0)
            await asyncio.gather(*(camera.play(client, seconds, Tally(), note) for camera in cameras))

    with rig.server({variant: 1}) as server:
        asyncio.run(film(server))
    columns = np.array(rows).T
    return Trace(columns[0], columns[1], columns[2])


def _spec(seed: str, baseline: str, candidate: str, **how: Any) -> experiment_pb2.ExperimentSpec:
    spec = experiment_pb2.ExperimentSpec(model=MODEL, seed=seed, max_seconds=MAX_SECONDS, **how)
    spec.baseline.variant, spec.candidate.variant = baseline, candidate
    return spec


def _replayed(trace: Trace, runs: int, factor: float) -> list[Replayed]:
    starts = np.random.default_rng(0).uniform(0, trace.length, runs)
    return [
        replay(trace, completed(_spec(str(number), "a", "b", minimum_agreement=-1.0)), float(start), factor)
        for number, start in enumerate(starts)
    ]


def _counted(runs: Sequence[Replayed]) -> dict[str, Any]:
    found = Counter(word(run.judgement.verdict) for run in runs)
    seconds = [run.seconds for run in runs if word(run.judgement.verdict) in ("promote", "rollback")]
    return {
        "runs": len(runs),
        "verdicts": dict(found),
        "median_seconds": median(seconds) if seconds else None,
        "p90_seconds": float(np.quantile(seconds, 0.9)) if seconds else None,
        "naive": sum(run.naive for run in runs) / len(runs),
    }


def _correlation(trace: Trace) -> float:
    """Of the service times of frames that follow each other."""
    return float(np.corrcoef(trace.service_seconds[:-1], trace.service_seconds[1:])[0, 1])


def real(
    rig: Rig, baseline: str, candidate: str, frames_per_second: float, number: int, folder: Path
) -> experiment_pb2.Experiment:
    """One experiment on a server of its own under cameras, to its end; writes its page."""

    async def act(server: ServerProcess) -> experiment_pb2.Experiment:
        async with server.async_client() as client:
            cameras = rig.cameras(STREAMS, frames_per_second, max_age_seconds=1.0)
            playing = [asyncio.create_task(one.play(client, 2 * MAX_SECONDS, Tally())) for one in cameras]
            spec = _spec(f"real {number}", baseline, candidate, block_seconds=BLOCK_SECONDS)
            await client.start_experiment(spec, author="bench")
            while True:
                await asyncio.sleep(1.0)
                now = await client.experiment(MODEL)
                if now.state == EXPERIMENT_STATE_ENDED and now.route_revision:
                    break
            for one in playing:
                one.cancel()
            await asyncio.gather(*playing, return_exceptions=True)
            return now

    twin_of = baseline if candidate == TWIN else ""
    with rig.server({baseline: 1, candidate: 0}, twin_of=twin_of) as server:
        experiment = asyncio.run(act(server))
    write(experiment, folder, f"real-{number}")
    return experiment


def _told(experiment: experiment_pb2.Experiment) -> dict[str, Any]:
    return {
        "verdict": verdict_word(experiment),
        "seconds": experiment.rounds[-1].ended_seconds if experiment.rounds else 0.0,
        "rounds": len(experiment.rounds),
        "reason": experiment.reason,
        "objective": said_of(experiment.estimates[0]) if experiment.estimates else "",
    }


def _page(figures: dict[str, Any]) -> str:
    same, apart = figures["aa"], figures["ab"]
    wrong = sum(count for verdict, count in same["verdicts"].items() if verdict in ("promote", "rollback"))
    right = apart["verdicts"].get("promote", 0)
    lines = [
        "# Experiments, measured",
        "",
        f"Written by `make verdicts` on {cpu_name()}: the server on one core, {STREAMS} cameras that ask for "
        f"{LOAD:.0%} of its capacity on the other. Blocks of {BLOCK_SECONDS:g} s, two a round; a chance of 5 % of a "
        f"wrong verdict, looked at after every round, for at most {MAX_SECONDS:.0f} s; what counts is a difference of "
        "2 %.",
        "",
        f"The trace has {figures['frames']:,} frames of one variant; the service times of neighbours have a "
        f"correlation of {figures['correlation']:.2f}. Replayed experiments begin anywhere in it, and the draw says "
        "whose a block is.",
        "",
        "| | runs | verdicts | to the verdict, median | 90 % within |",
        "|---|---|---|---|---|",
        _row("replayed, no difference", same),
        _row(f"replayed, the candidate's service time × {FACTOR:g}", apart),
        "",
        f"False verdicts: {wrong} of {same['runs']} ({wrong / same['runs']:.1%}). A difference of a tenth was found in "
        f"{right} of {apart['runs']} ({right / apart['runs']:.1%}). A t test on frames, looked at as often, would "
        f"have found a difference in {same['naive']:.0%} of the runs without one: frames are not independent, so they "
        "are not counted.",
        "",
    ]
    if figures["real"]:
        lines += [
            f"Real ones: against a variant with more work in it, the candidate takes {figures['ratio']:.3f} of the "
            "time of a frame in the bare loop, and answers the same.",
            "",
            "| | verdict | after | CPU time of a prediction |",
            "|---|---|---|---|",
            *(
                f"| {name} | {told['verdict']} | {told['seconds']:.0f} s | {told['objective'].partition(': ')[2]} |"
                for name, told in [
                    *((f"real {number}", told) for number, told in enumerate(figures["real"], 1)),
                    ("real, one file under two names", figures["real_aa"]),
                ]
            ),
            "",
        ]
    return "\n".join(lines)


def _row(name: str, told: dict[str, Any]) -> str:
    verdicts = ", ".join(f"{verdict} {count}" for verdict, count in sorted(told["verdicts"].items()))
    times = [f"{told[key]:.0f} s" if told[key] else "–" for key in ("median_seconds", "p90_seconds")]
    return f"| {name} | {told['runs']} | {verdicts} | {' | '.join(times)} |"


if __name__ == "__main__":
    try:
        main()
    except LatheError as error:
        sys.exit(f"verdicts: {error.message}")
