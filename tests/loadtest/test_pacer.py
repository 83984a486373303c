"""Open loop: frames are due by the clock alone."""

from __future__ import annotations

import asyncio

import pytest

from lathe_loadtest.pacer import due_seconds, ticks


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
