"""Whose frame is next, with jobs that end when the test says so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from time import monotonic

import pytest

from lathe_server.frames import Frame, Outcome
from lathe_server.handover import Handover
from lathe_server.line import Line
from lathe_server.scheduler import BRIEF_AT_ONCE, Lane, Scheduler
from lathe_server.vision import EncodedPicture


class Stage:
    """A scheduler, its lanes by name, and a diary of what happened to each frame."""

    def __init__(self, workers: int = 1, max_waiting: int = 100) -> None:
        self.scheduler = Scheduler(workers, max_waiting=max_waiting)
        self.diary: list[tuple[str, str]] = []
        self.curtain = threading.Event()
        self.begun = threading.Semaphore(0)
        self._lanes: dict[str, Lane] = {}

    def offer(self, name: str, *, deadline: float = float("inf"), brief: bool = False) -> bool:
        """Offers the frame `a1` of the lane `a`; capital letters are lanes of the higher class."""
        now = monotonic()
        frame = Frame("face", name[0], "", int(name[1:]), EncodedPicture(b""), now, now, deadline=deadline)

        def drop(outcome: Outcome) -> None:
            self.diary.append((name, outcome))

        return self.scheduler.offer(self.lane(name[0]), frame, lambda: _Job(self, name, is_brief=brief), drop)

    def hold(self, name: str) -> None:
        """Offers a frame, and waits until a worker has it in hand."""
        assert self.offer(name)
        assert self.begun.acquire(timeout=10)

    def lane(self, name: str) -> Lane:
        return self._lanes.setdefault(name, Lane(high=name.isupper()))


class _Job:
    def __init__(self, stage: Stage, name: str, *, is_brief: bool) -> None:
        self._stage = stage
        self._name = name
        self.is_brief = is_brief

    def run(self) -> None:
        if self.is_brief:
            self._stage.diary.append((self._name, threading.current_thread().name))
            return
        self._stage.begun.release()
        self._stage.curtain.wait(10)

    def done(self, queue_seconds: float, seconds: float, cpu_seconds: float) -> None:
        assert queue_seconds >= 0
        assert seconds >= 0
        assert cpu_seconds >= 0
        self._stage.diary.append((self._name, "done"))


def on_stage(act: Callable[[Stage], Awaitable[None] | None], **how: int) -> list[tuple[str, str]]:
    """Offers what `act` offers while the workers are held, then lets them go, and returns the diary."""

    async def play() -> list[tuple[str, str]]:
        stage = Stage(**how)
        try:
            waiting = act(stage)
            if waiting:
                await waiting
            stage.curtain.set()
            await asyncio.wait_for(stage.scheduler.settled(), 10)
        finally:
            stage.curtain.set()
            stage.scheduler.close()
        return stage.diary

    return asyncio.run(play())


def test_the_newest_frame_of_a_stream_wins() -> None:
    diary = on_stage(lambda stage: [stage.offer(f"a{n}") for n in range(4)] and None)
    assert diary == [("a1", "dropped_superseded"), ("a2", "dropped_superseded"), ("a0", "done"), ("a3", "done")]


def test_a_brief_job_is_done_at_once_where_it_is() -> None:
    async def act(stage: Stage) -> None:
        stage.offer("a0", brief=True)
        assert stage.diary == [("a0", threading.main_thread().name), ("a0", "done")]
        await asyncio.wait_for(stage.scheduler.settled(), 10)

    on_stage(act)


def test_a_brief_job_waits_for_its_turn_as_others_do() -> None:
    def act(stage: Stage) -> None:
        stage.hold("x0")
        stage.offer("a0", brief=True)
        assert not stage.diary

    assert on_stage(act) == [("a0", "MainThread"), ("a0", "done"), ("x0", "done")]


def test_after_a_few_brief_jobs_the_loop_looks_at_something_else() -> None:
    names = [f"{letter}0" for letter in "abcdefghijklmnopqrst"]

    def act(stage: Stage) -> None:
        stage.hold("x0")
        stage.offer("y0")  # given ahead, so that the brief ones wait
        for name in names:
            stage.offer(name, brief=True)
        assert not stage.diary

    done = [name for name, what in on_stage(act) if what == "done"]
    assert done.index("x0") == BRIEF_AT_ONCE
    assert sorted(done) == sorted([*names, "x0", "y0"])


@pytest.mark.fault(73)
def test_a_stream_that_sends_ten_times_as_much_gets_no_second_turn_before_the_others() -> None:
    def act(stage: Stage) -> None:
        for name in "abcx":
            stage.lane(name)
        stage.hold("x0")
        for name in [f"a{n}" for n in range(10)] + ["b0", "c0"] + [f"a{n}" for n in range(10, 20)]:
            stage.offer(name)

    done = [name for name, what in on_stage(act) if what == "done"]
    assert done == ["x0", "a9", "b0", "c0", "a19"]


def test_the_higher_class_goes_first_and_starves_nobody() -> None:
    def act(stage: Stage) -> None:
        stage.hold("x0")
        for name in "abABCDEF":
            stage.offer(f"{name}0")

    done = "".join(name[0] for name, what in on_stage(act) if what == "done")
    assert done[:2] == "xA"
    assert "".join(name for name in done if name.isupper()) == "ABCDEF"
    assert done.index("a") < done.index("b")
    assert done.index("a") < done.index("F"), "a frame that is ready is not passed over for ever either"


def test_a_job_that_is_ready_is_passed_by_a_few_of_the_higher_class_only() -> None:
    jobs: Handover[str] = Handover()
    jobs.put("a", high=False)
    for name in "ABCDEF":
        jobs.put(name, high=True)
    jobs.close(workers=1)
    assert [jobs.take() for _ in range(8)] == [*"ABCDaEF", None]


def test_turns_count_only_while_the_lower_class_waits() -> None:
    line: Line[str] = Line()
    for name in "ABCDEFGHIJ":
        line.append(name, 0.0, high=True)
    assert [line.pop() for _ in range(5)] == list("ABCDE")
    line.append("a", 0.0)
    assert [line.pop() for _ in range(6)] == list("FGHIaJ")


def test_who_had_its_last_turn_the_longest_ago_is_next() -> None:
    line: Line[str] = Line()
    for name, last_turn in {"flood": 9.0, "b": 2.0, "new": 10.0, "a": 1.0, "c": 2.0}.items():
        line.append(name, last_turn)
    line.remove("b")
    assert [line.pop() for _ in range(4)] == ["a", "c", "flood", "new"]
    with pytest.raises(ValueError, match="not in the line"):
        line.remove("b")


@pytest.mark.fault(73)
def test_a_stream_that_has_just_had_its_turn_stands_behind_those_that_come_later() -> None:
    def act(stage: Stage) -> None:
        for name in "bcx":  # the order in which they came
            stage.lane(name)
        for name in ("x0", "x1", "b0", "c0"):  # x0 has the turn, x1 waits first
            stage.offer(name)

    done = [name for name, what in on_stage(act) if what == "done"]
    assert done == ["x0", "b0", "c0", "x1"]


def test_a_lane_of_the_higher_class_gives_up_its_turn_too() -> None:
    def act(stage: Stage) -> None:
        stage.hold("x0")
        stage.offer("A0")
        stage.scheduler.clear(stage.lane("A"), "dropped_cancelled")
        stage.offer("B0")
        assert stage.scheduler.waiting == 1

    assert on_stage(act) == [("A0", "dropped_cancelled"), ("x0", "done"), ("B0", "done")]


def test_a_frame_past_its_deadline_is_dropped_when_its_turn_comes() -> None:
    def act(stage: Stage) -> None:
        stage.hold("x0")
        stage.offer("a0", deadline=monotonic())
        stage.offer("b0")

    assert on_stage(act) == [("a0", "dropped_deadline"), ("x0", "done"), ("b0", "done")]


@pytest.mark.fault(62)
def test_a_cleared_lane_gives_up_its_turn_and_may_be_used_again() -> None:
    def act(stage: Stage) -> None:
        stage.hold("x0")
        stage.offer("a0")
        stage.scheduler.clear(stage.lane("a"), "dropped_cancelled")
        stage.scheduler.clear(stage.lane("a"), "dropped_cancelled")
        assert stage.scheduler.waiting == 0
        stage.offer("a1")
        stage.offer("b0")

    assert on_stage(act) == [("a0", "dropped_cancelled"), ("x0", "done"), ("a1", "done"), ("b0", "done")]


def test_beyond_its_bound_the_line_takes_no_more_lanes_but_newer_frames_of_those_in_it() -> None:
    def act(stage: Stage) -> None:
        stage.hold("x0")
        assert [stage.offer(name) for name in ("a0", "b0", "c0", "d0", "b1")] == [True, True, True, False, True]

    diary = on_stage(act, max_waiting=2)
    assert [name for name, what in diary if what == "done"] == ["x0", "a0", "b1", "c0"]
    assert diary[0] == ("b0", "dropped_superseded")


def test_a_turn_is_given_ahead_only_while_more_streams_wait_than_there_are_workers() -> None:
    def act(stage: Stage) -> None:
        for name, waiting in {"x0": 0, "a0": 1, "a1": 1, "b0": 1, "b1": 1, "c0": 2}.items():
            stage.offer(name)
            assert stage.scheduler.waiting == waiting

    diary = on_stage(act)
    assert [name for name, what in diary if what == "done"] == ["x0", "a1", "b1", "c0"]


def test_as_many_frames_are_judged_at_once_as_there_are_workers() -> None:
    def act(stage: Stage) -> None:
        for name in ("a0", "b0", "c0"):
            stage.offer(name)
        assert stage.scheduler.waiting == 1

    assert len(on_stage(act, workers=2)) == 3


def test_it_is_settled_when_nothing_waits_and_nobody_works() -> None:
    async def act(stage: Stage) -> None:
        await asyncio.wait_for(stage.scheduler.settled(), 1)
        stage.offer("a0")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stage.scheduler.settled(), 0.01)

    assert on_stage(act) == [("a0", "done")]
