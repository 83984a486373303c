"""When a frame was taken, and whether it is still worth judging: two tables."""

from __future__ import annotations

import math

import pytest

from lathe_server.frames import CREDIBLE_AGE_SECONDS, Frame, capture_on_monotonic, fate
from lathe_server.vision import EncodedPicture

NOW_UNIX = 1_800_000_000 * 10**9
NOW = 5000.0
SECOND = 10**9


@pytest.mark.fault(14, 80)
@pytest.mark.parametrize(
    ("capture", "expected", "clamped"),
    [
        (0, NOW, False),
        (NOW_UNIX, NOW, False),
        (NOW_UNIX - SECOND, NOW - 1, False),
        (NOW_UNIX - int(CREDIBLE_AGE_SECONDS) * SECOND, NOW - CREDIBLE_AGE_SECONDS, False),
        (NOW_UNIX - int(CREDIBLE_AGE_SECONDS) * SECOND - 1000, NOW, True),
        (NOW_UNIX + 1000, NOW, True),
        (NOW_UNIX + 3600 * SECOND, NOW, True),
        (NOW_UNIX - 3600 * SECOND, NOW, True),
        (1, NOW, True),
        (-1, NOW, True),
        (-(2**63), NOW, True),
        (2**63 - 1, NOW, True),
    ],
    ids=[
        "missing means the arrival",
        "now",
        "a second ago",
        "as old as can be believed",
        "a little older",
        "in the future by a moment",
        "the camera's clock is an hour ahead",
        "the camera's clock is an hour behind",
        "1970",
        "before 1970",
        "the least number",
        "the greatest number",
    ],
)
def test_a_capture_time_is_believed_or_clamped_to_the_arrival(capture: int, expected: float, clamped: bool) -> None:
    assert capture_on_monotonic(capture, NOW_UNIX, NOW) == (pytest.approx(expected), clamped)


@pytest.mark.fault(68)
@pytest.mark.parametrize(
    ("captured", "max_age", "deadline", "expected"),
    [
        (NOW, math.inf, math.inf, None),
        (NOW - 1e6, math.inf, math.inf, None),
        (NOW - 1, 2.0, math.inf, None),
        (NOW - 2, 2.0, math.inf, None),
        (NOW - 2.1, 2.0, math.inf, "dropped_too_old"),
        (NOW, math.inf, NOW + 0.1, None),
        (NOW, math.inf, NOW, "dropped_deadline"),
        (NOW - 9, 2.0, NOW - 1, "dropped_deadline"),
    ],
    ids=[
        "fresh",
        "old, without a limit",
        "within its limit",
        "at its limit",
        "over its limit",
        "before its deadline",
        "at its deadline",
        "over both: nobody waits for it any more",
    ],
)
def test_a_frame_is_judged_or_dropped(captured: float, max_age: float, deadline: float, expected: str | None) -> None:
    frame = Frame("face", "", "", 0, EncodedPicture(b""), captured, captured, max_age, deadline)
    assert fate(frame, NOW) == expected
