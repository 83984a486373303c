"""`python -m lathe_server.counting`: what the metrics cost, without a server around them.

Microseconds of a frame's observation, with all that counts it, and milliseconds of CPU time of a scrape, with as many
series as a busy server has.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from statistics import median

from prometheus_client import generate_latest

from lathe.detections import Detections
from lathe.repository import VariantRef
from lathe_server.accounts.accountant import NoJobs
from lathe_server.accounts.books import open_books
from lathe_server.frames import Frame, Result
from lathe_server.metrics import Metrics
from lathe_server.settings import Settings
from lathe_server.stream_metrics import StreamLabels
from lathe_server.vision import Answer, EncodedPicture
from lathe_server.vision.detector import Stages

FRAMES, ROUNDS, SCRAPES = 1000, 100, 20
VARIANTS, STREAMS = 4, 64


def measure() -> dict[str, float]:
    """Medians, with prices, energy, carbon, and streams that have labels of their own."""
    settings = Settings(price_per_core_hour=0.05, carbon_grams_per_kwh=380.0)
    metrics = Metrics(price_per_core_hour=settings.price_per_core_hour, streams=StreamLabels("camera-*"))
    refs = [VariantRef("face", f"variant-{number}", 1) for number in range(VARIANTS)]
    accountant = open_books(settings, metrics.registry, lambda: refs, NoJobs())
    for ref in refs:
        metrics.know(ref)
        accountant.know(ref)
    results = [_result(number, refs[number % VARIANTS]) for number in range(FRAMES)]

    def observe() -> None:
        for result in results:
            metrics.observe(result)
            accountant.used(refs[0], result.cpu_seconds)

    return {
        "observe_us": _median_seconds(observe, ROUNDS) / FRAMES * 1e6,
        "scrape_ms": _median_seconds(lambda: generate_latest(metrics.registry), SCRAPES) * 1e3,
        "series": float(sum(len(family.samples) for family in metrics.registry.collect())),
    }


def _result(number: int, ref: VariantRef) -> Result:
    frame = Frame("face", f"camera-{number % STREAMS}", "", number, EncodedPicture(b""), captured=10.0, arrived=10.01)
    answer = Answer(Detections.none(), Stages(0.001, 0.0001, 0.005 + number * 1e-6, 0.0001))
    return Result(frame, "answered", ref, answer, queue_seconds=0.002, cpu_seconds=0.006, age_seconds=0.03)


def _median_seconds(work: Callable[[], object], rounds: int) -> float:
    seconds = []
    for _ in range(rounds):
        began = time.thread_time()
        work()
        seconds.append(time.thread_time() - began)
    return median(seconds)


if __name__ == "__main__":
    print(json.dumps(measure()))
