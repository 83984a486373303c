"""When cameras send: by the scenario and its seed alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lathe_loadtest.scenario import Bursts, Cameras, Network, Scenario, Shape
from lathe_loadtest.schedule import CameraPlan, plans


def planned(*, seconds: float = 100.0, shape: Shape | None = None, seed: int = 1, **cameras: Any) -> list[CameraPlan]:
    kinds = (Cameras(**{"fps": 10.0, "fps_spread": 0.0} | cameras),)
    return list(plans(Scenario("any", kinds, seconds=seconds, shape=shape or Shape(), seed=seed)))


@pytest.mark.parametrize(
    ("shape", "frames"),
    [
        (Shape(), 1000),
        (Shape("soak"), 1000),
        (Shape("ramp", low=0, high=2), 1000),
        (Shape("ramp", low=1, high=3, at_seconds=50), 1500),
        (Shape("step", low=1, high=4, steps=4), 2500),
        (Shape("spike", low=1, high=5, at_seconds=20, for_seconds=10), 1400),
    ],
)
def test_a_shape_is_worth_so_many_frames(shape: Shape, frames: int) -> None:
    [plan] = planned(shape=shape)
    assert len(plan.due) == pytest.approx(frames, abs=3)
    assert plan.due[0] >= 0
    assert plan.due[-1] < 100


def test_a_spike_is_where_it_was_said_to_be() -> None:
    [plan] = planned(shape=Shape("spike", low=1, high=5, at_seconds=20, for_seconds=10))
    assert [int(((plan.due >= at) & (plan.due < at + 10)).sum()) for at in (10, 20, 30)] == [100, 500, 100]


def test_the_same_seed_plans_the_same_and_another_one_not() -> None:
    wild = {"jitter_seconds": 0.02, "network": Network(loss=0.1, stall_every_seconds=10), "away_every_seconds": 20.0}
    one, same, other = (planned(seed=seed, **wild)[0] for seed in (1, 1, 2))
    assert np.array_equal(one.due, same.due)
    assert one.stays == same.stays
    assert not np.array_equal(one.due[:100], other.due[:100])


def test_more_cameras_change_nothing_for_the_first() -> None:
    alone, among = planned(count=1, jitter_seconds=0.01)[0], planned(count=50, jitter_seconds=0.01)[0]
    assert np.array_equal(alone.due, among.due)


def test_cameras_do_not_send_all_at_once() -> None:
    first = np.sort([plan.due[0] for plan in planned(count=20)])
    assert np.diff(first).max() < 0.1 / 20 * 2.5
    assert len({len(plan.due) for plan in planned(count=20, fps_spread=0.1)}) > 10


def test_many_slow_cameras_do_not_fall_into_step() -> None:
    due = np.concatenate([plan.due for plan in planned(seconds=40, count=120, fps=0.472, fps_spread=0.05)])
    a_second = np.histogram(due, bins=40, range=(0, 40))[0]
    assert a_second.var() <= 2 * a_second.mean()


def test_frames_are_late_but_in_order_and_never_early() -> None:
    network = Network(loss=0.2, resend_seconds=0.25, stall_every_seconds=5, stall_seconds=1)
    [plan] = planned(jitter_seconds=0.03, network=network, bursts=Bursts(every_seconds=3))
    assert (np.diff(plan.due) >= 0).all()
    assert (np.diff(plan.captured) >= 0).all()
    assert (plan.due >= plan.captured).all()
    assert (plan.due - plan.captured).max() > 0.5


def test_a_stall_ends_with_all_that_it_held_up_at_once() -> None:
    [plan] = planned(network=Network(stall_every_seconds=20, stall_seconds=2))
    times, together = np.unique(plan.due, return_counts=True)
    assert together.max() > 5
    worst = times[together.argmax()]
    held = plan.captured[plan.due == worst]
    assert worst - held[0] == pytest.approx(len(held) / 10, abs=0.11)


def test_a_burst_holds_frames_back_until_its_last_is_due() -> None:
    [plan] = planned(bursts=Bursts(every_seconds=10, frames=4))
    times, together = np.unique(plan.due, return_counts=True)
    bursts = times[together == 4]
    assert len(bursts) > 3
    for at in bursts:
        assert plan.captured[plan.due == at][-1] == at


def test_cameras_come_one_after_another_and_go() -> None:
    found = planned(count=4, joins_seconds=10, joins_over_seconds=40, leaves_seconds=90)
    assert [plan.stays for plan in found] == [((at, 90.0),) for at in (10.0, 20.0, 30.0, 40.0)]
    assert [round(float(plan.due[0])) for plan in found] == [10, 20, 30, 40]
    assert all(plan.due[-1] < 90 for plan in found)


def test_nobody_sends_while_away() -> None:
    [plan] = planned(away_every_seconds=10, away_seconds=3, reconnect_every_seconds=20)
    assert len(plan.stays) > 4
    for (_, leaves), (comes, _) in zip(plan.stays, plan.stays[1:], strict=False):
        assert comes - leaves == pytest.approx(3)
        assert not ((plan.due >= leaves) & (plan.due < comes)).any()
    assert plan.cuts
