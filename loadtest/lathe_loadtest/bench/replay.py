"""Experiments on a recorded trace: frames as they really follow each other, sides as the draw gives them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lathe.experiment import Judgement, candidate_block, judge
from lathe.v1 import experiment_pb2

FEW_FRAMES = 10


@dataclass(frozen=True)
class Trace:
    """Answered frames of one variant under steady traffic, in the order of their answers.

    Attributes:
        seconds: when each was answered, from 0 up.
        service_seconds: that it took of a worker.
        age_seconds: from capture to answer.
    """

    seconds: NDArray[np.float64]
    service_seconds: NDArray[np.float64]
    age_seconds: NDArray[np.float64]

    @staticmethod
    def load(path: Path) -> Trace:
        columns = np.load(path)
        return Trace(columns["seconds"], columns["service_seconds"], columns["age_seconds"])

    def save(self, path: Path) -> None:
        np.savez_compressed(
            path, seconds=self.seconds, service_seconds=self.service_seconds, age_seconds=self.age_seconds
        )

    @property
    def length(self) -> float:
        return float(self.seconds[-1])

    def between(self, start: float, end: float) -> slice:
        """The frames of a stretch, which begins anew where the trace ends."""
        start %= self.length
        low, high = np.searchsorted(self.seconds, (start, min(start + end, self.length)))
        return slice(int(low), int(high))


@dataclass(frozen=True)
class Replayed:
    """Attributes:
    naive: a t test on frames, looked at after every round, would have found a difference.
    """

    judgement: Judgement
    seconds: float
    naive: bool


def replay(trace: Trace, spec: experiment_pb2.ExperimentSpec, start: float, factor: float) -> Replayed:
    """One experiment, to its verdict.

    Args:
        spec: a completed one, with blocks as unit.
        start: where in the trace it begins, in seconds.
        factor: of the candidate's service time against the trace's.
    """
    rounds: list[experiment_pb2.Round] = []
    frames: tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]] = ([], [])
    round_seconds = spec.blocks_per_round * spec.block_seconds
    naive = False
    while True:
        ended = (len(rounds) + 1) * round_seconds
        drawn = candidate_block(spec, len(rounds), "")
        blocks = []
        for block in range(spec.blocks_per_round):
            began = start + len(rounds) * round_seconds + block * spec.block_seconds
            kept = trace.between(began + spec.washout_seconds, spec.block_seconds - spec.washout_seconds)
            service = trace.service_seconds[kept] * (factor if block == drawn else 1.0)
            frames[block == drawn].append(service)
            blocks.append((service, trace.age_seconds[kept]))
        rounds.append(_round(blocks, drawn, ended))
        naive = naive or _differs(np.concatenate(frames[0]), np.concatenate(frames[1]))
        judgement = judge(spec, rounds, is_over=ended + round_seconds > spec.max_seconds)
        if judgement.verdict:
            return Replayed(judgement, ended, naive)


def _round(
    blocks: list[tuple[NDArray[np.float64], NDArray[np.float64]]], drawn: int, ended: float
) -> experiment_pb2.Round:
    result = experiment_pb2.Round(ended_seconds=ended)
    sides = [[pair for number, pair in enumerate(blocks) if (number == drawn) == side] for side in (False, True)]
    before, after = ([np.concatenate(column) for column in zip(*side, strict=True)] for side in sides)
    result.baseline_frames, result.candidate_frames = len(before[0]), len(after[0])
    result.baseline_streams, result.candidate_streams = len(sides[0]), len(sides[1])
    if min(len(before[0]), len(after[0])) < FEW_FRAMES:
        return result
    figures = {
        "service_seconds": [float(np.median(side[0])) for side in (before, after)],
        "age_p50": [float(np.median(side[1])) for side in (before, after)],
        "age_p99_seconds": [float(np.quantile(side[1], 0.99)) for side in (before, after)],
    }
    figures["cpu_seconds"] = figures["service_seconds"]
    figures["latency_p50_seconds"] = figures.pop("age_p50")
    figures["latency_p99_seconds"] = figures["age_p99_seconds"]
    for metric, (baseline, candidate) in figures.items():
        effect = math.log(candidate / baseline)
        result.effects.add(metric=metric, baseline=baseline, candidate=candidate, effect=effect)
    for metric in ("dropped_share", "failed_share"):
        result.effects.add(metric=metric)
    return result


def _differs(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Welch's test at 5 %, as if frames were independent."""
    if min(len(one), len(other)) < FEW_FRAMES:
        return False
    error = math.sqrt(one.var(ddof=1) / len(one) + other.var(ddof=1) / len(other))
    return bool(abs(one.mean() - other.mean()) > 1.96 * error)
