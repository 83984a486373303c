"""Which side of an experiment a frame is on, and what the sides did in one round. Told the time, so without a clock."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import fmean

from lathe.experiment import METRICS, candidate_block
from lathe.quantiles import Quantiles
from lathe.v1 import experiment_pb2
from lathe.v1.experiment_pb2 import EXPERIMENT_UNIT_STREAM
from lathe_server.frames import Outcome

FINE = 0.001
"""Accuracy of what sides are compared by to some hundredths."""
FEW = 100
"""Answers of which a 99th percentile says little."""
LATE: frozenset[Outcome] = frozenset({"dropped_superseded", "dropped_too_old", "dropped_deadline"})


class Side:
    """Frames of one unit that one side got in one round."""

    __slots__ = ("age", "answered", "cpu", "dropped", "failed", "latency", "service")

    def __init__(self) -> None:
        self.answered = self.dropped = self.failed = 0
        self.cpu, self.service = Quantiles(FINE), Quantiles(FINE)
        self.latency, self.age = Quantiles(), Quantiles()

    @property
    def frames(self) -> int:
        return self.answered + self.dropped + self.failed

    def figures(self) -> dict[str, float]:
        """By metric; a metric that nothing is known of is left out."""
        if not self.frames:
            return {}
        known = {"dropped_share": self.dropped / self.frames, "failed_share": self.failed / self.frames}
        if self.answered:
            known |= {
                # Medians: what else runs on the machine makes some frames cost several times what the network does.
                "cpu_seconds": self.cpu.quantile(0.5),
                "service_seconds": self.service.quantile(0.5),
                "latency_p50_seconds": self.latency.quantile(0.5),
                "latency_p99_seconds": self.latency.quantile(0.99),
                "age_p99_seconds": self.age.quantile(0.99),
            }
        return known


class OpenRound:
    """The round that runs.

    Args:
        spec: a completed one.
        number: of the round, from 0; decides the draw.
        began: its start, in seconds of the caller's clock.
        with_candidate: otherwise it is a shadow round, and the candidate answers nobody.
    """

    def __init__(
        self, spec: experiment_pb2.ExperimentSpec, number: int, began: float, *, with_candidate: bool = True
    ) -> None:
        self._spec = spec
        self._number = number
        self._began = began
        self._with_candidate = with_candidate
        self._blocks: dict[str, int] = {}
        self._by_stream = spec.unit == EXPERIMENT_UNIT_STREAM
        self._sides: dict[tuple[str, bool], Side] = {}
        self._streams: set[tuple[int, bool, str]] = set()  # block, side, name
        self.ends = began + spec.blocks_per_round * spec.block_seconds
        self.compared_frames = self.matched_boxes = self.found_boxes = self.failed_comparisons = 0

    def is_candidate(self, stream_id: str, now: float) -> bool:
        """Whose the stream's frames are now."""
        if not self._with_candidate:
            return False
        unit = stream_id if self._by_stream else ""
        if unit not in self._blocks:
            self._blocks[unit] = candidate_block(self._spec, self._number, unit)
        return self._blocks[unit] == int((now - self._began) / self._spec.block_seconds)

    def saw(self, stream_id: str, now: float, *, candidate: bool) -> None:
        """A stream has had a frame on a side."""
        block = int((now - self._began) / self._spec.block_seconds)
        self._streams.add((block, candidate, stream_id))

    def is_washout(self, now: float) -> bool:
        return (now - self._began) % self._spec.block_seconds < self._spec.washout_seconds

    def side(self, stream_id: str, *, candidate: bool) -> Side:
        """Where a frame of this stream counts."""
        key = (stream_id if self._by_stream else "", candidate)
        if key not in self._sides:
            self._sides[key] = Side()
        return self._sides[key]

    def compared(self, matched: int, found: int) -> None:
        """Both sides judged one frame."""
        self.compared_frames += 1
        self.matched_boxes += matched
        self.found_boxes += found

    def of_candidate(self) -> tuple[int, int]:
        """Frames that the candidate judged, in the shadow too, and how many of them failed."""
        sides = self._of(candidate=True)
        frames = sum(side.frames for side in sides) + self.compared_frames + self.failed_comparisons
        return frames, sum(side.failed for side in sides) + self.failed_comparisons

    def latency_p99_seconds(self, *, candidate: bool) -> float:
        """NaN while there are few answers; over all streams it would mix sides that share a queue, so by block only."""
        sides = [] if self._by_stream else self._of(candidate=candidate)
        return sides[0].latency.quantile(0.99) if sides and sides[0].answered >= FEW else math.nan

    def closed(self, ended_seconds: float) -> experiment_pb2.Round:
        """What it says in the end.

        Args:
            ended_seconds: since the experiment's start.
        """
        result = experiment_pb2.Round(
            ended_seconds=ended_seconds,
            baseline_frames=sum(side.frames for side in self._of(candidate=False)),
            candidate_frames=sum(side.frames for side in self._of(candidate=True)),
            baseline_streams=sum(not candidate for _, candidate, _ in self._streams),
            candidate_streams=sum(candidate for _, candidate, _ in self._streams),
            compared_frames=self.compared_frames,
            matched_boxes=self.matched_boxes,
            found_boxes=self.found_boxes,
        )
        units = {unit for unit, _ in self._sides}
        both = [(self.side(unit, candidate=False), self.side(unit, candidate=True)) for unit in sorted(units)]
        figures = [(before.figures(), after.figures()) for before, after in both]
        for name, metric in METRICS.items():
            if metric.is_shared and self._by_stream:
                continue
            pairs = [(before[name], after[name]) for before, after in figures if name in before and name in after]
            if pairs and not (metric.is_time and any(min(pair) <= 0 for pair in pairs)):
                result.effects.add(
                    metric=name,
                    baseline=fmean(before for before, _ in pairs),
                    candidate=fmean(after for _, after in pairs),
                    effect=fmean(_effect(before, after, is_time=metric.is_time) for before, after in pairs),
                )
        return result

    def _of(self, *, candidate: bool) -> list[Side]:
        return [side for (_, is_candidate), side in self._sides.items() if is_candidate == candidate]


def _effect(baseline: float, candidate: float, *, is_time: bool) -> float:
    return math.log(candidate / baseline) if is_time else candidate - baseline


def worst(rounds: Iterable[experiment_pb2.Round], metric: str) -> float:
    """The baseline's highest figure in some rounds; NaN where none has one."""
    figures = [effect.baseline for one in rounds for effect in one.effects if effect.metric == metric]
    return max(figures, default=math.nan)
