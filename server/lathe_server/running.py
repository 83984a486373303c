"""One experiment in progress: who answers, what the sides did, what ends it at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic

import numpy as np

from lathe.experiment import judge
from lathe.repository import VariantRef
from lathe.v1 import experiment_pb2
from lathe.v1.experiment_pb2 import EXPERIMENT_STATE_ENDED, EXPERIMENT_STATE_RUNNING, EXPERIMENT_STATE_SHADOW
from lathe_server.frames import Result
from lathe_server.origin import Headers
from lathe_server.rounds import LATE, OpenRound, worst
from lathe_server.shadow import Comparison

MEMORY_ROUNDS = 10
"""That the guardrails look back on."""
FEW_FAILURES = 5
"""Fewer are no reason to end at once."""


class Running:
    """As a `Choice` it decides who answers.

    Args:
        message: as it is kept; gets the rounds.
        ruled: who answers a stream whatever experiments say.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        message: experiment_pb2.Experiment,
        ruled: Callable[[str, Headers], VariantRef | None] = lambda stream_id, headers: None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        spec = message.spec
        self.message = message
        self.spec = spec
        self.baseline = VariantRef(spec.model, spec.baseline.variant, spec.baseline.version)
        self.candidate = VariantRef(spec.model, spec.candidate.variant, spec.candidate.version)
        self.is_promoted = False  # by hand
        self._clock = clock
        self._ruled = ruled
        self._counts: deque[tuple[int, int]] = deque(maxlen=MEMORY_ROUNDS)  # the candidate's frames, and failed ones
        before = message.rounds[-1].ended_seconds if message.rounds else 0.0
        self._began = clock() - before  # the time of a server that was down does not count
        self._round = self._next_round()

    def _next_round(self) -> OpenRound:
        number = len(self.message.rounds)
        in_the_shadow = number < self.spec.shadow_rounds
        if not self.has_ended:
            self.message.state = EXPERIMENT_STATE_SHADOW if in_the_shadow else EXPERIMENT_STATE_RUNNING
        return OpenRound(self.spec, number, self._clock(), with_candidate=not in_the_shadow)

    def copy(self) -> experiment_pb2.Experiment:
        """As it is now."""
        copy = experiment_pb2.Experiment()
        copy.CopyFrom(self.message)
        return copy

    @property
    def has_ended(self) -> bool:
        return self.message.state == EXPERIMENT_STATE_ENDED

    def pick(self, stream_id: str, headers: Headers = ()) -> VariantRef:
        """A stream that a rule names is in no experiment."""
        if ruled := self._ruled(stream_id, headers):
            return ruled
        return self.candidate if self._round.is_candidate(stream_id, self._clock()) else self.baseline

    def shadow_of(self, ref: VariantRef) -> tuple[VariantRef, float] | None:
        if self.spec.minimum_agreement < 0 or ref not in (self.baseline, self.candidate):
            return None
        return (self.baseline if ref == self.candidate else self.candidate), self.spec.shadow_share

    def observe(self, result: Result) -> None:
        """A frame of the model has its result; one that says nothing about the sides is passed over."""
        now, frame = self._clock(), result.frame
        if self.has_ended or frame.variant or result.degraded or self._round.is_washout(now):
            return
        if self._ruled(frame.stream_id, frame.origin.headers):
            return
        is_candidate = self._round.is_candidate(frame.stream_id, now)
        if result.ref != (self.candidate if is_candidate else self.baseline):
            return  # of the block before
        if not frame.is_call:
            self._round.saw(frame.stream_id, now, candidate=is_candidate)
        if result.answer:
            side = self._round.side(frame.stream_id, candidate=is_candidate)
            side.answered += 1
            side.cpu.add(result.cpu_seconds)
            side.service.add(result.answer.stages.total)
            side.latency.add(result.age_seconds - (frame.arrived - frame.captured))
            side.age.add(result.age_seconds)
        elif result.outcome in LATE:
            self._round.side(frame.stream_id, candidate=is_candidate).dropped += 1
        elif result.outcome == "failed":
            self._round.side(frame.stream_id, candidate=is_candidate).failed += 1

    def compared(self, comparison: Comparison) -> None:
        """Both sides judged a frame."""
        if {comparison.ref, comparison.given.ref} != {self.baseline, self.candidate}:
            return
        if comparison.failed:
            self._round.failed_comparisons += comparison.ref == self.candidate
        else:
            self._round.compared(comparison.matched, comparison.found)

    def breach(self, *, is_short_of_memory: bool) -> str:
        """Why the candidate must not have another frame, or empty."""
        frames, failed = (sum(counts) for counts in zip(*self._counts, self._round.of_candidate(), strict=True))
        if failed >= FEW_FAILURES and failed > self.spec.max_failed_share * frames:
            return f"{failed} of the candidate's last {frames} frames failed"
        # Percentiles of single blocks differ by more than variants do, so the worst of the baseline's counts.
        before = worst(self.message.rounds[-MEMORY_ROUNDS:], "latency_p99_seconds")
        usual = np.fmax(before, self._round.latency_p99_seconds(candidate=False))
        latency = self._round.latency_p99_seconds(candidate=True)
        if latency > self.spec.max_latency_ratio * usual:
            told = f"{latency * 1e3:.0f} ms, the baseline's {usual * 1e3:.0f}"
            return f"the candidate's 99th percentile of latency is {told}"
        if is_short_of_memory:
            return "the server is short of memory"
        return ""

    @property
    def seconds(self) -> float:
        return self._clock() - self._began

    @property
    def seconds_to_go(self) -> float:
        """Of this round."""
        return self._round.ends - self._clock()

    def close_round(self) -> tuple[experiment_pb2.Verdict.ValueType, str]:
        """Keeps the round, begins the next one, and says the verdict after it, which may be none."""
        self._counts.append(self._round.of_candidate())
        self.message.rounds.append(self._round.closed(self.seconds))
        self._round = self._next_round()
        return self.look(is_over=self.seconds >= self.spec.max_seconds)

    def look(self, *, is_over: bool) -> tuple[experiment_pb2.Verdict.ValueType, str]:
        judgement = judge(self.spec, self.message.rounds, is_over=is_over)
        del self.message.estimates[:]
        self.message.estimates.extend(judgement.estimates)
        self.message.reason = judgement.reason
        return judgement.verdict, judgement.reason
