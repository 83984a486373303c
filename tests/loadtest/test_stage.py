"""Scenarios of the box played for a moment against real servers of small networks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lathe.client import Client
from lathe.errors import InvalidInput, Refused, Unavailable
from lathe.repository import Repository
from lathe.server_error import ServerError
from lathe_loadtest import boxed
from lathe_loadtest.actions import Moment, Performer, text_of
from lathe_loadtest.assemble import LATE
from lathe_loadtest.find import Demand, carries
from lathe_loadtest.judge import Check, judge
from lathe_loadtest.play import play, prepared
from lathe_loadtest.result import DISCONNECTED, LoadResult
from lathe_loadtest.scenario import Action, Cameras, Scenario
from lathe_loadtest.stage import OwnServer, Stage, Target, staged
from tests.calls import until
from tests.conftest import RunningServer, start_server
from tests.loadtest.synthetic import synthetic_result
from tests.server.faces import publish_faces

OF_TIME: dict[str, Any] = {"p50_seconds": None, "p99_seconds": None, "dropped_share": None, "silent_seconds": None}
"""What a machine that runs other tests, too, may spoil; and who sends may be late on it."""


def played(
    name: str, repository: Repository, folder: Path, seconds: float, fps: float, answered: float = 0.5
) -> LoadResult:
    """A scenario of the box, at a small rate, that nothing is expected of but what no busy machine spoils.

    Args:
        answered: share of the frames, at least, where the scenario expects one.
    """
    scenario = boxed.at_rate(boxed.stretched(boxed.find(name), seconds), fps)
    expect = tuple(
        replace(one, **OF_TIME, answered_share=None if one.answered_share is None else answered)
        for one in scenario.expect
    )
    with staged(scenario, serve=repository.root, folder=folder) as stage:
        return play(replace(scenario, expect=expect), stage)


def failing(result: LoadResult) -> list[Check]:
    return [check for check in judge(result) if not check.holds and check.what != "who sends"]


def test_steady(repository: Repository, tmp_path: Path) -> None:
    result = played("steady", repository, tmp_path, 2.0, 80.0)
    assert failing(result) == []
    assert result.scenario.model == "spots"
    assert result.variants == ("a",)


def test_a_swap_storm_loses_no_frame(repository: Repository, tmp_path: Path) -> None:
    result = played("swap-storm", repository, tmp_path, 5.0, 60.0)
    assert failing(result) == []
    assert result.outcomes["lost"] == 0
    assert set(result.variants) == {"a", "b"}
    assert [event.do for event in result.events][:2] == ["route", "swap"]


def test_an_ab_split_is_of_streams_by_the_weights(repository: Repository, tmp_path: Path) -> None:
    result = played("ab-split", repository, tmp_path, 3.0, 120.0)
    assert failing(result) == []
    rows = {check.what: check for check in judge(result)}
    assert rows["streams answered by several variants"].measured == "0"
    assert int(rows["streams of a"].measured) + int(rows["streams of b"].measured) == 120


def test_network_cuts_lose_no_frame_that_the_server_has_taken(repository: Repository, tmp_path: Path) -> None:
    result = played("network-cuts", repository, tmp_path, 4.0, 80.0)
    assert failing(result) == []
    assert max(camera.connections for camera in result.cameras) >= 3
    assert result.outcomes[DISCONNECTED] > 0


def test_a_restart_and_a_kill_lose_what_was_under_way_and_cameras_come_back(
    repository: Repository, tmp_path: Path
) -> None:
    result = played("restart", repository, tmp_path, 7.0, 80.0, answered=0.1)
    assert failing(result) == []
    assert [event.do for event in result.events] == ["restart", "kill"]
    assert result.per_second[-1].outcomes["answered"] > 0
    assert {path.name for path in tmp_path.glob("server*.log")} == {"server.log", "server-2.log", "server-3.log"}


def test_an_own_server_begins_anew_where_it_was(repository: Repository, tmp_path: Path) -> None:
    own = OwnServer(repository.root, tmp_path)
    try:
        before = own.target
        processes = [own.pid]
        for kill in (False, True):
            own.restart(kill=kill)
            processes.append(own.pid)
            with Client(own.target.grpc, own.target.control, own.target.connection) as client:
                assert {status.card.variant for status in client.variants()} == {"a", "b"}
        assert own.target == before
        assert len(set(processes)) == 3
    finally:
        own.close()


@contextmanager
def on(server: RunningServer, scenario: Scenario, folder: Path) -> Iterator[Stage]:
    with staged(scenario, Target(server.grpc, server.http, server.control), folder=folder) as stage:
        yield stage


def test_what_needs_a_server_of_its_own_is_refused_without_one(shared_server: RunningServer, tmp_path: Path) -> None:
    scenario = boxed.find("restart")
    with on(shared_server, scenario, tmp_path) as stage, pytest.raises(Refused, match="needs --serve REPOSITORY"):
        stage.do("spots", Moment(1.0, scenario.actions[0]))


def test_actions_at_the_beginning_are_done_before_the_first_frame(server: RunningServer, tmp_path: Path) -> None:
    scenario = boxed.at_rate(boxed.find("ab-split"), 60.0)
    with on(server, scenario, tmp_path) as stage:
        fitted, events = prepared(scenario, stage)
    with server.client() as client:
        assert {one.variant: one.weight for one in client.route("spots").weights} == {"a": 7, "b": 3}
    assert [(event.do, event.text, event.error) for event in events] == [("route", "a=7 b=3", "")]
    assert fitted.expect[0].split == {"a": 7, "b": 3}


def test_an_action_that_the_server_refuses_is_told(server: RunningServer, tmp_path: Path) -> None:
    action = Action(0.0, "route", weights={"nobody": 1})
    scenario = Scenario("spots", (Cameras(),), actions=(action,))
    with on(server, scenario, tmp_path) as stage:
        with pytest.raises(ServerError, match="no variant nobody"):
            prepared(scenario, stage)
        later = replace(scenario, actions=(replace(action, at_seconds=0.1),))
        result = play(replace(later, seconds=1.0), stage)
    [event] = result.events
    assert "nobody" in event.error
    assert [check.what for check in failing(result)] == ["actions that failed"]


def test_rates_of_a_share_are_of_what_the_server_was_seen_to_do(server: RunningServer, tmp_path: Path) -> None:
    scenario = replace(boxed.find("steady"), of_capacity=0.25)
    with on(server, scenario, tmp_path) as stage:
        measured, _ = prepared(scenario, stage)
        given, _ = prepared(scenario, stage, capacity=200.0)
        result = play(boxed.stretched(scenario, 0.5), stage, capacity=200.0)
    assert boxed.total_fps(measured) > 10.0
    assert measured.of_capacity == 0.0
    assert boxed.total_fps(given) == pytest.approx(50.0)
    assert (result.of_capacity, result.address) == (0.25, server.grpc), "so that who compares can say why rates differ"


def test_beside_an_embedding_network_the_detector_is_driven(tmp_path: Path) -> None:
    scenario = replace(boxed.find("steady"), of_capacity=0.25)
    with (
        start_server(publish_faces(tmp_path / "models").root, tmp_path / "server.log") as server,
        on(server, scenario, tmp_path) as stage,
    ):
        fitted, _ = prepared(scenario, stage)
        assert fitted.model == "face"
        with pytest.raises(Unavailable, match="judged no frame: model face-embed detects nothing"):
            prepared(replace(scenario, model="face-embed"), stage)


def test_the_driver_does_one_action_after_the_other_and_keeps_their_errors() -> None:
    done: list[str] = []

    def do(moment: Moment) -> None:
        done.append(text_of(moment))
        if moment.turn == 1:
            raise InvalidInput("not now")
        if moment.turn == 3:
            raise KeyError("a")

    swap = Action(0.0, "swap", weights={"a": 1, "b": 1}, every_seconds=0.01)
    late = Action(0.9, "rollback")
    with Performer(Scenario("m", (Cameras(),), seconds=1.0, actions=(late, swap)), do, start=0.0) as performer:
        until(lambda: len(performer.events) == 101)  # all of them are due: the start was long ago
    assert done[:3] == ["b=1", "a=1", "b=1"]
    assert [event.error for event in performer.events][:5] == ["", "not now", "", "KeyError: 'a'", ""]
    assert not any(thread.name == "actions" for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("result", "carried"),
    [
        (synthetic_result(), True),
        (synthetic_result(drops=0.1), False),
        (synthetic_result(latency_ms={"int8": 200.0}), False),
        (synthetic_result(why_invalid=(LATE,)), None),
        (synthetic_result(drops=0.1, why_invalid=(LATE,)), False),
        (synthetic_result(drops=0.1, why_invalid=("a process of the driver used 99 % of a core",)), None),
        (synthetic_result(drops=0.1, why_invalid=(LATE, "one of the driver's processes died")), None),
    ],
)
def test_a_load_is_carried_when_all_is_answered_in_time(result: LoadResult, carried: bool | None) -> None:
    assert carries(result, Demand(p99_seconds=0.08)) is carried


def test_a_share_of_drops_may_be_allowed() -> None:
    result = synthetic_result(drops=0.1)
    assert [carries(result, Demand(0.08, drops)) for drops in (0.05, 0.2)] == [False, True]
