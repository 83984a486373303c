"""One experiment against a clock that a test moves: what counts for whom, and what ends it at once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lathe.detections import Detections
from lathe.experiment import candidate_block, completed
from lathe.repository import VariantRef
from lathe.v1 import experiment_pb2
from lathe.v1.experiment_pb2 import EXPERIMENT_STATE_ENDED, EXPERIMENT_STATE_RUNNING, EXPERIMENT_STATE_SHADOW
from lathe_server.frames import Frame, Outcome, Result
from lathe_server.running import Running
from lathe_server.vision import Answer, EncodedPicture
from lathe_server.vision.detector import Stages

BASELINE, CANDIDATE = VariantRef("face", "a", 1), VariantRef("face", "b", 1)
BLOCK = 10.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Stage:
    """An experiment, its clock, and frames for it."""

    def __init__(self, **how: float) -> None:
        spec = experiment_pb2.ExperimentSpec(model="face", seed="s", block_seconds=BLOCK, **how)  # type: ignore[arg-type]
        spec.baseline.variant, spec.candidate.variant = "a", "b"
        spec.baseline.version = spec.candidate.version = 1
        self.message = experiment_pb2.Experiment(id="x", spec=completed(spec))
        self.clock = Clock()
        self.running = Running(self.message, lambda name, _: BASELINE if name.startswith("lobby") else None, self.clock)

    def to_block_of(self, ref: VariantRef) -> None:
        """Moves the clock into the middle of a side's block of the first round."""
        drawn = candidate_block(self.message.spec, 0, "")
        self.clock.now = 1000.0 + BLOCK * (drawn if ref == CANDIDATE else 1 - drawn) + BLOCK / 2

    def frame(
        self,
        ref: VariantRef,
        outcome: Outcome = "answered",
        *,
        latency: float = 0.02,
        name: str = "gate",
        times: int = 1,
    ) -> Result:
        frame = Frame("face", name, "", 0, EncodedPicture(b""), 0.0, 0.0)
        answer = Answer(Detections.none(), Stages(0.001, 0.0, 0.002, 0.0)) if outcome == "answered" else None
        result = Result(frame, outcome, ref, answer, 0.0, 0.003, latency)
        for _ in range(times):
            self.running.observe(result)
        return result

    def breach(self) -> str:
        return self.running.breach(is_short_of_memory=False)

    def close(self) -> experiment_pb2.Round:
        self.clock.now += 2 * BLOCK
        self.running.close_round()
        return self.message.rounds[-1]


def test_frames_count_for_the_side_whose_block_it_is() -> None:
    stage = Stage()
    for ref in (BASELINE, CANDIDATE):
        stage.to_block_of(ref)
        assert stage.running.pick("gate") == ref
        stage.frame(ref, times=3)
    closed = stage.close()
    assert (closed.baseline_frames, closed.candidate_frames) == (3, 3)
    assert (closed.baseline_streams, closed.candidate_streams) == (1, 1)


def test_what_says_nothing_about_the_sides_does_not_count() -> None:
    stage = Stage()
    stage.to_block_of(CANDIDATE)
    stage.frame(BASELINE)  # of the block before
    stage.frame(CANDIDATE, "dropped_cancelled")
    stage.frame(CANDIDATE, "rejected")
    stage.frame(CANDIDATE, name="lobby-1")
    given = stage.frame(CANDIDATE, "dropped_superseded")  # this one does
    stage.running.observe(replace(given, degraded=True))
    stage.running.observe(replace(given, frame=replace(given.frame, variant="b")))
    stage.clock.now = 1000.1 + BLOCK * candidate_block(stage.message.spec, 0, "")  # in the washout
    stage.frame(CANDIDATE)
    stage.clock.now = 1000.0
    closed = stage.close()
    assert (closed.baseline_frames, closed.candidate_frames) == (0, 1)


def test_a_stream_that_a_rule_names_is_in_no_experiment() -> None:
    stage = Stage()
    stage.to_block_of(CANDIDATE)
    assert stage.running.pick("lobby-1") == BASELINE


def test_a_call_is_a_frame_and_no_stream() -> None:
    stage = Stage()
    stage.to_block_of(CANDIDATE)
    given = stage.frame(CANDIDATE)
    stage.running.observe(replace(given, frame=replace(given.frame, stream_id="\n7", is_call=True)))
    stage.clock.now = 1000.0
    closed = stage.close()
    assert (closed.candidate_frames, closed.candidate_streams) == (2, 1)


@pytest.mark.parametrize(
    ("failed", "answered", "is_breach"), [(4, 0, False), (5, 0, True), (5, 300, False), (8, 300, True)]
)
def test_failures_end_it_when_they_are_some_and_more_than_their_share(
    failed: int, answered: int, is_breach: bool
) -> None:
    stage = Stage()
    stage.to_block_of(CANDIDATE)
    stage.frame(CANDIDATE, times=answered)
    stage.frame(CANDIDATE, "failed", times=failed)
    assert bool(stage.breach()) == is_breach


def test_failures_of_the_rounds_before_count_too() -> None:
    stage = Stage()
    stage.to_block_of(CANDIDATE)
    stage.frame(CANDIDATE, "failed", times=4)
    stage.clock.now = 1000.0
    stage.close()
    assert not stage.breach()
    drawn = candidate_block(stage.message.spec, 1, "")
    stage.clock.now = 1000.0 + 2 * BLOCK + BLOCK * drawn + BLOCK / 2
    stage.frame(CANDIDATE, "failed")
    assert stage.breach() == "5 of the candidate's last 5 frames failed"


def test_latency_ends_it_against_the_baselines_worst_block_only() -> None:
    stage = Stage()
    stage.to_block_of(CANDIDATE)
    stage.frame(CANDIDATE, latency=0.5, times=200)
    assert not stage.breach(), "nothing is known of the baseline yet"
    stage.to_block_of(BASELINE)
    stage.frame(BASELINE, latency=0.2, times=200)
    assert not stage.breach()
    stage = Stage()
    stage.to_block_of(BASELINE)
    stage.frame(BASELINE, latency=0.1, times=200)
    stage.to_block_of(CANDIDATE)
    stage.frame(CANDIDATE, latency=0.5, times=99)
    assert not stage.breach(), "a percentile of few frames"
    stage.frame(CANDIDATE, latency=0.5)
    assert "99th percentile of latency" in stage.breach()


def test_memory_ends_it() -> None:
    assert Stage().running.breach(is_short_of_memory=True) == "the server is short of memory"


def test_the_time_of_a_server_that_was_down_does_not_count() -> None:
    stage = Stage()
    stage.close()
    again = Running(stage.message, clock=lambda: 5.0)
    assert again.seconds == pytest.approx(stage.message.rounds[-1].ended_seconds)


def test_first_come_the_shadow_rounds() -> None:
    stage = Stage(shadow_rounds=1)
    assert stage.message.state == EXPERIMENT_STATE_SHADOW
    stage.to_block_of(CANDIDATE)
    assert stage.running.pick("gate") == BASELINE
    assert stage.running.shadow_of(BASELINE) == (CANDIDATE, pytest.approx(0.1))
    assert stage.running.shadow_of(VariantRef("face", "c", 1)) is None
    stage.clock.now = 1000.0
    stage.close()
    assert stage.message.state == EXPERIMENT_STATE_RUNNING


def test_an_ended_one_stays_ended_and_counts_nothing() -> None:
    stage = Stage()
    stage.message.state = EXPERIMENT_STATE_ENDED
    again = Running(stage.message, clock=stage.clock)
    assert again.has_ended
    stage.to_block_of(CANDIDATE)
    stage.frame(CANDIDATE, times=10)
    assert stage.running.breach(is_short_of_memory=False) == ""
