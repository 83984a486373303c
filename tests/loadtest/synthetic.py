"""Results of load tests that nobody has run: for tests of what reads, compares and draws them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from lathe_loadtest.histogram import encoded
from lathe_loadtest.result import CameraResult, LoadResult, Machine, Second, Sender, ServerReading
from lathe_loadtest.scenario import Cameras, Scenario


def synthetic_result(
    *,
    latency_ms: Mapping[str, float] | None = None,
    weights: Mapping[str, int] | None = None,
    drops: float = 0.0,
    seconds: int = 10,
    warmup: int = 0,
    cameras: int = 4,
    fps: int = 10,
    seed: int = 0,
    price_per_hour: float | None = 0.04,
    why_invalid: tuple[str, ...] = (),
) -> LoadResult:
    """A run with latencies of a gamma distribution, and a server that works a tenth of a core.

    Args:
        latency_ms: mean by variant; by default `int8` of 20 ms.
        weights: by variant, of the frames; equal by default.
        drops: share of the frames that are superseded.
        warmup: seconds of it at the start, of which nothing is kept, as the driver does it.
        price_per_hour: None for a server without a price.
    """
    means = latency_ms or {"int8": 20.0}
    names = tuple(means)
    shares = np.array([(weights or dict.fromkeys(means, 1))[name] for name in names], float)
    random = np.random.default_rng(seed)
    judged = seconds - warmup
    shape = (judged, cameras, fps)
    variant = random.choice(len(names), shape, p=shares / shares.sum())
    latency_us = random.gamma(4.0, np.array(list(means.values()))[variant] / 4) * 1e3
    answered = random.random(shape) >= drops

    def outcomes(part: tuple[object, ...]) -> Counter[str]:
        good = int(answered[part].sum())
        return +Counter({"answered": good, "dropped_superseded": answered[part].size - good})

    per_second = []
    for second in range(judged):
        latencies = {
            name: encoded(latency_us[second][answered[second] & (variant[second] == number)])
            for number, name in enumerate(names)
            if (answered[second] & (variant[second] == number)).any()
        }
        per_second.append(Second(warmup + second, cameras * fps, cameras * fps, outcomes((second,)), latencies))
    of_cameras = []
    for number in range(cameras):
        part = (slice(None), number)
        by = Counter(names[one] for one in variant[part][answered[part]])
        latencies_us = latency_us[part][answered[part]]
        due = judged * fps
        of_cameras.append(
            CameraResult(f"camera-{number}", "camera", due, due, outcomes(part), dict(by), encoded(latencies_us))
        )
    frames = judged * cameras * fps
    scenario = Scenario("face", (Cameras(count=cameras, fps=float(fps)),), name="synthetic", seconds=float(seconds))
    return LoadResult(
        scenario=replace(scenario, warmup_seconds=float(warmup)),
        machine=Machine("A processor AVX2", 2),
        address="127.0.0.1:8500",
        started_at_unix=1.7e9,
        seconds=float(seconds),
        per_second=tuple(per_second),
        cameras=tuple(of_cameras),
        sender=Sender(1, (frames * 120e-6,), frames, encoded(random.exponential(100.0, frames))),
        server=tuple(
            ServerReading(
                at_seconds=float(at),
                cpu_seconds=5.0 + at * 0.1,
                resident_bytes=120_000_000,
                streams=cameras,
                waiting_frames=0,
                frames=dict(sum((Counter(one.outcomes) for one in per_second if one.second < at), Counter[str]())),
                cost_usage=None if price_per_hour is None else at * 0.1 * price_per_hour / 3600,
                cost_allocation=None if price_per_hour is None else at * 2 * price_per_hour / 3600,
                currency="" if price_per_hour is None else "USD",
                joules=at * 0.5,
                energy_source="estimate",
                workers=2,
            )
            for at in range(seconds + 1)
        ),
        why_invalid=why_invalid,
    )
