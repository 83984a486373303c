"""Open loop: frames are due by the clock alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from lathe_loadtest import pacer
from lathe_loadtest.pacer import Alarm, due_seconds, ticks


@pytest.mark.parametrize(
    ("index", "fps", "phase", "due"),
    [(0, 10.0, 0.0, 0.0), (1, 10.0, 0.0, 0.1), (1, 10.0, 0.5, 0.15), (30, 30.0, 0.0, 1.0)],
)
def test_due_times(index: int, fps: float, phase: float, due: float) -> None:
    assert due_seconds(index, fps, phase) == pytest.approx(due)


def test_a_slow_consumer_skips_no_tick_and_moves_none() -> None:
    async def consume() -> list[tuple[int, float]]:
        seen = []
        async for tick in ticks(fps=100.0, phase=0.0, seconds=0.2):
            seen.append(tick)
            if tick[0] == 3:
                await asyncio.sleep(0.1)  # a stall of ten frames
        return seen

    seen = asyncio.run(consume())
    assert [index for index, _ in seen] == list(range(20))
    start = seen[0][1]
    assert [due - start for _, due in seen] == pytest.approx([index / 100 for index in range(20)])


@pytest.fixture(params=["the system's timer", "the loop's"])
def rung(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[float]]:
    """When an alarm has rung that was set to some times one after the other, counted from the first setting."""
    if request.param == "the loop's":
        monkeypatch.setattr(pacer, "_timer", lambda: -1)

    def rung(*seconds: float) -> list[float]:
        async def wait() -> list[float]:
            found: list[float] = []
            rings: asyncio.Queue[None] = asyncio.Queue()
            start = time.monotonic()

            def ring() -> None:
                found.append(time.monotonic() - start)
                rings.put_nowait(None)

            alarm = Alarm(ring)
            try:
                for at in seconds:
                    alarm.set(start + at)
                async with asyncio.timeout(10):
                    await rings.get()
            finally:
                alarm.close()
            return found

        return asyncio.run(wait())

    return rung


def test_an_alarm_rings_when_its_time_has_come(rung: Callable[..., list[float]]) -> None:
    [at] = rung(0.03)
    assert at >= 0.029  # loops count in milliseconds


def test_an_alarm_has_one_time_the_newest(rung: Callable[..., list[float]]) -> None:
    [at] = rung(100.0, 0.03)
    assert 0.029 <= at < 9


def test_a_time_that_is_past_rings_at_once(rung: Callable[..., list[float]]) -> None:
    assert len(rung(-1.0)) == 1


@pytest.mark.parametrize("has_timer", [True, False])
def test_an_alarm_that_is_closed_does_not_ring(has_timer: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_timer:
        monkeypatch.setattr(pacer, "_timer", lambda: -1)

    async def wait() -> list[int]:
        rung: list[int] = []
        alarm = Alarm(lambda: rung.append(1))
        alarm.set(time.monotonic() - 1.0)
        alarm.close()
        alarm.close()
        for _ in range(3):
            await asyncio.sleep(0)
        return rung

    assert asyncio.run(wait()) == []
