"""How often a flooding stream gets a turn: windows of half a second, as tables."""

from __future__ import annotations

import asyncio
import gc
from time import monotonic

import pytest

from lathe_server.brake import FLOOD, READS_PER_SECOND, WINDOW_SECONDS, Brake, ReadingPace
from lathe_server.frames import Frame, Outcome
from lathe_server.scheduler import Lane, Scheduler
from lathe_server.vision import EncodedPicture

SERVICE = 0.01  # seconds of a worker: one does 100 frames a second


def braked(
    sent: dict[str, float], served: dict[str | None, float], *, room: float = 0.8, workers: int = 1
) -> dict[str, float]:
    """Turns a second that the brake allows each stream, after a window of so many frames a second; unbraked is 0."""
    brake = Brake(workers, room, 0.0)
    for stream, frames in sent.items():
        for _ in range(round(frames * WINDOW_SECONDS)):
            brake.arrived(stream, 0.1)
    for stream, frames in served.items():
        for _ in range(round(frames * WINDOW_SECONDS)):
            brake.worked(stream, SERVICE)
    brake.arrived("a", WINDOW_SECONDS)
    return {stream: 1 / interval if (interval := brake.interval(stream)) else 0.0 for stream in sent}


CAMERAS = {f"camera-{number}": 4.0 for number in range(10)}


@pytest.mark.fault(73)
def test_a_flooding_stream_fills_the_workers_up_to_the_limit() -> None:
    sent = {**CAMERAS, "flood": 240.0}
    allowed = braked(sent, {**CAMERAS, "flood": 60.0})
    assert allowed.pop("flood") == pytest.approx(80 - 40)
    assert set(allowed.values()) == {0.0}


def test_two_share_what_is_left() -> None:
    flooding = {"flood": 240.0, "deluge": 480.0}
    allowed = braked({**CAMERAS, **flooding}, {**CAMERAS, "flood": 30.0, "deluge": 30.0})
    assert allowed["flood"] == allowed["deluge"] == pytest.approx(20)


def test_it_never_gets_less_than_an_equal_share() -> None:
    cameras = dict.fromkeys(CAMERAS, 9.0)
    allowed = braked({**cameras, "flood": 240.0}, {**cameras, "flood": 10.0})
    assert allowed["flood"] == pytest.approx(100 / 11)


@pytest.mark.parametrize(
    ("sent", "served", "room"),
    [
        pytest.param({"alone": 500.0}, {"alone": 100.0}, 0.8, id="a stream alone has everything"),
        pytest.param({"a": 120.0, "b": 1.0}, {"a": 99.0, "b": 1.0}, 0.8, id="two streams: less than four shares"),
        pytest.param(
            {f"s{n}": 20.0 for n in range(10)}, {f"s{n}": 10.0 for n in range(10)}, 0.8, id="all send twice too much"
        ),
        pytest.param({**CAMERAS, "flood": 240.0}, {**CAMERAS, "flood": 60.0}, 1.0, id="the brake is off"),
        pytest.param({}, {None: 100.0}, 0.8, id="there are calls only"),
        pytest.param({**CAMERAS, "flood": 240.0}, {}, 0.8, id="nothing is known of the frames' cost yet"),
    ],
)
def test_is_not_braked(sent: dict[str, float], served: dict[str | None, float], room: float) -> None:
    assert not any(braked(sent, served, room=room).values())


def test_calls_count_as_load_and_not_as_streams() -> None:
    cameras = {f"camera-{number}": 4.0 for number in range(3)}
    served: dict[str | None, float] = {**cameras, None: 40.0}
    share = 100 / 4
    assert set(braked({**cameras, "fast": FLOOD * share - 4}, {**served, "fast": 40.0}).values()) == {0.0}


def test_it_is_let_go_in_the_window_after_it_has_calmed_down() -> None:
    brake = Brake(1, 0.8, 0.0)
    for begun, frames in ((0.0, 120), (1.0, 1)):
        for number in range(10):
            brake.arrived(number, begun)
            brake.worked(number, SERVICE)
        for _ in range(frames):
            brake.arrived("flood", begun + 0.1)
        brake.arrived(0, begun + WINDOW_SECONDS)
        assert (brake.interval("flood") > 0) == (frames > 1)


def test_reading_goes_on_at_the_pace_after_a_burst() -> None:
    pace, now = ReadingPace(0.0), 5.0
    for _ in range(1000):
        now += pace.pause(now)
    assert now - 5.0 == pytest.approx(1000 / READS_PER_SECOND - 1)


@pytest.mark.fault(62, 73)
@pytest.mark.parametrize("ended", ["let go", "cleared"])
def test_a_braked_slot_keeps_its_newest_frame_until_its_turn(ended: str, monkeypatch: pytest.MonkeyPatch) -> None:
    diary: list[tuple[int, str]] = []

    class Job:
        is_brief = False

        def __init__(self, index: int) -> None:
            self._index = index

        def run(self) -> None:
            pass

        def done(self, queue_seconds: float, seconds: float, cpu_seconds: float) -> None:
            diary.append((self._index, "done"))

    def offer(scheduler: Scheduler, lane: Lane, index: int) -> None:
        def drop(outcome: Outcome) -> None:
            diary.append((index, outcome))

        now = monotonic()
        frame = Frame("face", "a", "", index, EncodedPicture(b""), now, now)
        assert scheduler.offer(lane, frame, lambda: Job(index), drop)

    async def play() -> None:
        monkeypatch.setattr(Brake, "interval", lambda self, stream: 0.05)
        scheduler, lane = Scheduler(1, max_waiting=1), Lane()
        try:
            offer(scheduler, lane, 0)
            offer(scheduler, lane, 1)
            assert scheduler.waiting == 1
            assert diary == [(0, "dropped_superseded")]
            if ended == "cleared":
                scheduler.clear(lane, "dropped_cancelled")
            await asyncio.wait_for(scheduler.settled(), 10)
            assert scheduler.waiting == 0
        finally:
            scheduler.close()

    asyncio.run(play())
    assert diary[1:] == [(1, "done" if ended == "let go" else "dropped_cancelled")]


def test_a_server_of_calls_alone_remembers_none_of_them() -> None:
    class Job:
        is_brief = False

        def run(self) -> None:
            pass

        def done(self, queue_seconds: float, seconds: float, cpu_seconds: float) -> None:
            pass

    async def play() -> int:
        scheduler = Scheduler(1, max_waiting=1)
        try:
            for index in range(50):
                now = monotonic()
                frame = Frame("face", str(index), "", 0, EncodedPicture(b""), now, now)
                scheduler.offer(Lane(once=True), frame, Job, lambda outcome: None)
                await asyncio.wait_for(scheduler.settled(), 10)
            gc.collect()
            return sum(isinstance(one, Lane) for one in gc.get_objects())
        finally:
            scheduler.close()

    before = sum(isinstance(one, Lane) for one in gc.get_objects())
    assert asyncio.run(play()) - before < 5
