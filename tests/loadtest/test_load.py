"""`lathe load`: whatever happens there is a clear line, an exit code, and what was seen until then."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from lathe.cli import main
from lathe.cli.load import EXIT_INTERRUPTED, EXIT_INVALID
from lathe.connection import Connection
from lathe.errors import InvalidInput, Refused, Unavailable
from lathe.repository import Repository
from lathe_loadtest.drive import drive
from lathe_loadtest.fault_proxy import Proxy
from lathe_loadtest.play import play
from lathe_loadtest.result import LoadResult, read_result, write_result
from lathe_loadtest.scenario import Action, Cameras, Scenario, Shape
from lathe_loadtest.stage import Stage, Target
from lathe_server.access.tokens import new_token
from tests.certificates import Authority
from tests.conftest import RunningServer, start_server
from tests.loadtest.synthetic import synthetic_result
from tests.loadtest.truth import ROOT, truth_server

SMALL = Cameras(count=4, fps=20.0, size_wh=(160, 120), fps_spread=0.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = ", "bad.toml is not valid TOML"),
        ('model = "face"', 'the key "cameras" is missing'),
        ('model = "face"\ncameras = []', '"cameras" is empty'),
        ('model = "face"\n[[cameras]]\nfsp = 9', 'line 3: unknown key "fsp"; did you mean "fps"?'),
        ('model = "face"\n[[cameras]]\nfps = 0', '"fps" must be above 0'),
        ('model = "face"\n[[cameras]]\ncount = "9"', 'line 3: "count" must be a whole number'),
        ('model = "face"\n[[cameras]]\n[[cameras]]', "two groups of cameras have the same name"),
        ('model = "face"\n[[cameras]]\nnetwork = { loss = 2 }', '"loss" must be from 0 to 1'),
        ('model = "face"\n[[cameras]]\n[shape]\nkind = "rmap"', 'did you mean "ramp"?'),
        ('model = "face"\n[[cameras]]\n[[actions]]\nat_seconds = 99\ndo = "rollback"', "comes after the end"),
        ('model = "face"\n[[cameras]]\n[[actions]]\nat_seconds = 1\ndo = "swap"', '"swap" needs "weights"'),
        (
            'model = "face"\n[[cameras]]\n[[actions]]\nat_seconds = 1\ndo = "route"\nweights = 3',
            '"weights" must be a table',
        ),
        ('model = "face"\nwarmup_seconds = 30\n[[cameras]]', '"warmup_seconds" must be below "seconds"'),
        ('model = "face"\nwarmup_seconds = 2.5\n[[cameras]]', '"warmup_seconds" must be whole seconds'),
        ('model = "face"\nprotocol = "unary"\n[[cameras]]\nread_seconds = 1.0', '"read_seconds" and'),
        ('model = "face"\nprotocol = "tensors"\n[[cameras]]\nmax_age_seconds = 1.0', "are of streams"),
        ('model = "face"\nprotocol = "tensors"\n[[cameras]]\npriority = "high"', 'knows no "priority"'),
        ('model = "face"\n[[cameras]]\njoins_seconds = 30.0', '"joins_seconds" of camera must be below "seconds"'),
        ('model = "face"\n[[cameras]]\ndeadline_seconds = 0.0001', '"deadline_seconds" must be from 0.001'),
        ('model = "face"\n[[cameras]]\n[shape]\nkind = "spike"\nat_seconds = 30', '"at_seconds" of the shape'),
        ('model = "face"\n[[cameras]]\n[[expect]]\nof = "camra"', "no cameras are called so"),
        ('model = "face"\n[[cameras]]\n[faults]\nstalls_per_second = 1\nstall_seconds = 0', "needs stall_seconds"),
        (
            'model = "face"\n[[cameras]]\n[[actions]]\nat_seconds = 1\ndo = "route"\nweights = { a = -1 }',
            '"weights" must be 0 or above',
        ),
        ('model = "$modle"\n[[cameras]]', "$modle is no model"),
        ('model = "$model"\n[[cameras]]\nvariant = "$0"', "$0 is no place of a variant"),
    ],
)
def test_a_bad_scenario_is_told_by_its_line(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.toml").write_text(text)
    assert main(["load", str(tmp_path / "bad.toml")]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert message in line


def test_flags_that_make_no_sense(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flags, message in [
        (["--fps", "-1"], '"fps" must be above 0'),
        (["--processes", "-1"], "--processes must not be negative"),
        (["--output", str(tmp_path / "none/r.json")], "there is no folder"),
        (["--output", str(tmp_path)], "is a folder"),
        (["--like", "r.json", "steady"], "--like takes the place of a scenario"),
        (["nosuch.toml"], "there is no file nosuch.toml"),
        (["--server", "cam.example"], "cam.example is not HOST:PORT"),
        (["--http", "cam.example:"], "cam.example: is not HOST:PORT"),
        (["--seconds", "1e15"], "frames are more than a run can have"),
    ]:
        assert main(["load", "--model", "any", *flags]) == 1
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["load", "--size", "640"])
    assert "640 is not WIDTHxHEIGHT" in capsys.readouterr().err


def test_an_earlier_runs_load_comes_again_and_what_was_seen_is_kept_when_nobody_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = synthetic_result(fps=13)
    write_result(replace(before, of_capacity=0.5), tmp_path / "before.json")
    played: list[Scenario] = []

    def play(scenario: Scenario, *_: object, **__: object) -> LoadResult:
        played.append(scenario)
        return before

    monkeypatch.setattr("lathe_loadtest.play.play", play)
    monkeypatch.setattr("lathe.cli.load.tell", Mock(side_effect=[0, BrokenPipeError]))
    words = ["load", "--like", str(tmp_path / "before.json"), "--variant", "int8", "--output", str(tmp_path / "r.json")]
    assert main(words) == 0
    assert [(one.fps, one.count, one.variant) for one in played[0].cameras] == [(13.0, 4, "int8")]
    assert replace(played[0], cameras=before.scenario.cameras) == before.scenario
    (tmp_path / "r.json").unlink()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert main(words) == 1
    assert read_result(tmp_path / "r.json") == before


def test_no_server() -> None:
    with pytest.raises(Unavailable, match=r"no server answers at 127\.0\.0\.1:9"):
        drive(Scenario("any", (SMALL,), seconds=1.0), Target("127.0.0.1:9", "", ""))


def test_no_server_for_cameras_that_come_later() -> None:
    later = replace(SMALL, joins_seconds=0.5)
    with pytest.raises(Unavailable, match=r"no server answers at 127\.0\.0\.1:9"):
        drive(Scenario("any", (later,), seconds=1.0), Target("127.0.0.1:9", "", ""))


def test_a_run_without_a_frame_is_refused(tmp_path: Path) -> None:
    with truth_server(tmp_path, kind="none") as truth, pytest.raises(InvalidInput, match="sends no frame"):
        drive(Scenario("any", (SMALL,), shape=Shape("ramp", low=0.0, high=0.0), seconds=1.0), truth.target)


@pytest.mark.parametrize("target", [Target("192.0.2.1:8500"), Target("127.0.0.1:9", behind="192.0.2.1:8500")])
def test_a_token_does_not_cross_the_network_in_plain_text(target: Target) -> None:
    with pytest.raises(InvalidInput, match="in plain text"):
        drive(Scenario("any", (SMALL,)), replace(target, connection=Connection(token="secret")))


def test_a_certificate_that_there_is_not(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LATHE_CA", "/nosuch.pem")
    assert main(["load", "--model", "any"]) == 1
    assert capsys.readouterr().err == "lathe: the file /nosuch.pem cannot be read\n"


def test_a_real_server_and_its_own_figures(shared_server: RunningServer, tmp_path: Path) -> None:
    flags = ["--server", shared_server.grpc, "--http", shared_server.http, "--control", shared_server.control]
    flags += ["--cameras", "3", "--fps", "20", "--seconds", "2", "--output", str(tmp_path / "r.json")]
    for protocol in ("stream", "unary", "tensors"):
        assert main(["load", *flags, "--protocol", protocol]) in (0, EXIT_INVALID)  # where others have the cores
        result = read_result(tmp_path / "r.json")
        assert result.outcomes["answered"] > 100
        assert not result.outcomes["lost"] + result.outcomes["failed"]
        assert result.variants == ("a",)
        first, last = result.server[0], result.server[-1]
        told = last.frames["answered"] - first.frames.get("answered", 0)
        assert told == pytest.approx(result.outcomes["answered"], abs=6)  # the first reading is a moment late
        assert last.cpu_seconds > first.cpu_seconds


def test_a_model_that_there_is_not(shared_server: RunningServer) -> None:
    with pytest.raises(Refused, match="NOT_FOUND"):
        drive(Scenario("nosuch", (SMALL,), seconds=2.0), Target(shared_server.grpc, "", ""))


def test_a_server_without_the_protocol_is_told_however_short_the_run(tmp_path: Path) -> None:
    with truth_server(tmp_path, kind="none") as truth:
        result = drive(Scenario("any", (SMALL,), protocol="tensors", seconds=0.5), truth.target)
    assert result.ended == "server_lost"
    assert "the server refuses the cameras: UNIMPLEMENTED" in result.error


def test_tls_and_tokens(repository: Repository, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("server")
    token, sha256 = new_token()
    (tmp_path / "tokens").write_text(f'[[tokens]]\nname = "cameras"\nrole = "infer"\nsha256 = "{sha256}"\n')
    flags = ("--tls-certificate", str(pair.certificate), "--tls-key", str(pair.key))
    with start_server(repository.root, tmp_path / "log", *flags, "--tokens", str(tmp_path / "tokens")) as server:
        scenario = Scenario("spots", (SMALL,), seconds=1.0)
        known = Connection(token=token, ca=str(authority.file))
        result = drive(scenario, Target(server.grpc, server.http, server.control, known))
        assert result.outcomes["answered"] > 60
        assert not result.outcomes["failed"] + result.outcomes["lost"]
        with pytest.raises(Refused, match="UNAUTHENTICATED"):
            drive(scenario, Target(server.grpc, "", "", replace(known, token="another")))
        with pytest.raises(Unavailable, match="no server answers"):
            drive(scenario, Target(server.grpc, "", "", Connection()))


def test_a_server_that_dies_in_mid_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.toml").write_text('model = "any"\nseconds = 20\ngive_up_seconds = 0.5\n[[cameras]]\ncount = 4\n')
    with truth_server(tmp_path, kind="constant", seconds=0.01, die_at=60) as truth:
        flags = ["--server", truth.address, "--http", "", "--output", str(tmp_path / "r.json")]
        assert main(["load", str(tmp_path / "s.toml"), *flags]) == 1
    assert "lathe: the server is gone: given up after" in capsys.readouterr().err
    result = read_result(tmp_path / "r.json")
    assert result.ended == "server_lost"
    assert 1 < result.seconds < 10
    assert 50 <= result.outcomes["answered"] < 60
    assert result.outcomes["dropped_disconnected"] > 10


def test_a_server_that_dies_shortly_before_the_end(tmp_path: Path) -> None:
    with truth_server(tmp_path, kind="constant", seconds=0.01, die_at=130) as truth:
        result = drive(Scenario("any", (SMALL,), seconds=2.0), truth.target)
    assert result.ended == "server_lost"


def test_a_server_that_dies_when_there_is_no_time_left_to_give_up(tmp_path: Path) -> None:
    with truth_server(tmp_path, kind="constant", seconds=0.01, die_at=20) as truth:
        result = drive(Scenario("any", (SMALL,), seconds=4.0), truth.target)
    assert (result.ended, result.seconds) == ("server_lost", 4.0)
    assert "the server is gone: nobody had a connection for the last" in result.error


def test_a_server_that_dies_before_cameras_that_came_later(tmp_path: Path) -> None:
    later = replace(SMALL, joins_seconds=0.5)
    with truth_server(tmp_path, kind="constant", seconds=0.01, die_at=40) as truth:
        result = drive(Scenario("any", (later,), seconds=20.0, give_up_seconds=0.5), truth.target)
    assert result.ended == "server_lost"
    assert result.seconds < 15.0


def test_a_server_that_is_frozen_is_given_up(tmp_path: Path) -> None:
    scenario = Scenario("any", (SMALL,), seconds=60.0, give_up_seconds=0.5)
    with truth_server(tmp_path, kind="constant", seconds=0.01, tell_at=40) as truth:

        def freeze() -> None:
            truth.told()
            os.kill(truth.pid, signal.SIGSTOP)

        freezing = threading.Thread(target=freeze)
        freezing.start()
        try:
            result = drive(scenario, truth.target)
        finally:
            freezing.join()
            os.kill(truth.pid, signal.SIGCONT)
    assert "the server is gone: given up after" in result.error
    assert result.seconds < 40.0
    assert set(result.outcomes) <= {"answered", "dropped_disconnected"}
    assert result.outcomes["dropped_disconnected"] > 40


def test_a_server_that_is_only_slow_is_not_given_up(tmp_path: Path) -> None:
    with truth_server(tmp_path, kind="constant", seconds=0.01, stall_at=20, stall_seconds=6.0) as truth:
        result = drive(Scenario("any", (SMALL,), seconds=7.0), truth.target)
    assert [camera.connections for camera in result.cameras] == [1] * 4
    assert set(result.outcomes) == {"answered"}


def test_cameras_that_are_cut_off_silently_come_back(tmp_path: Path) -> None:
    scenario = Scenario("any", (SMALL,), seconds=10.0, actions=(Action(0.5, "cut", how="silence"),))
    with truth_server(tmp_path, kind="constant", seconds=0.01) as truth, Proxy(truth.address) as proxy:
        target = replace(truth.target, grpc=proxy.address, behind=truth.address)
        result = drive(scenario, target, do=lambda _: proxy.cut("silence"))
    assert result.ended == "completed"
    assert result.address == truth.address
    assert all(camera.connections >= 2 for camera in result.cameras)
    assert set(result.outcomes) == {"answered", "dropped_disconnected"}
    assert result.per_second[-1].outcomes["answered"] > 0


def test_ctrl_c_before_the_first_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    def play(*_: object, stop: threading.Event, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(10)
        raise Unavailable("stopped before it began")

    monkeypatch.setattr("lathe_loadtest.play.play", play)
    assert main(["load", "--model", "any"]) == EXIT_INTERRUPTED


def test_a_run_that_was_stopped_before_it_began(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with truth_server(tmp_path, kind="none") as truth:
        with pytest.raises(Unavailable, match="stopped before it began"):
            drive(Scenario("any", (SMALL,)), truth.target, stop=stop)
        with pytest.raises(Unavailable, match="stopped before it began"):
            play(Scenario("any", (SMALL,), of_capacity=0.5), Stage(truth.target), stop=stop)


def test_ctrl_c_keeps_what_there_is(tmp_path: Path) -> None:
    with truth_server(tmp_path, kind="constant", seconds=0.01, tell_at=60) as truth:
        flags = ["--server", truth.address, "--http", "", "--model", "any", "--seconds", "60", "--fps", "50"]
        command = [sys.executable, "-m", "lathe", "load", *flags, "--output", str(tmp_path / "r.json")]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
        assert truth.told() == "60\n"
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
        _, errors = process.communicate(timeout=20)
    assert process.returncode == EXIT_INTERRUPTED
    assert "lathe: interrupted after" in errors
    result = read_result(tmp_path / "r.json")
    assert result.ended == "interrupted"
    assert 55 < result.outcomes["answered"] < 600
    assert result.outcomes.total() == result.outcomes["answered"]


def test_cameras_whose_connections_are_cut_come_back(tmp_path: Path) -> None:
    wild: dict[str, Any] = {"reconnect_every_seconds": 0.7, "away_every_seconds": 1.5, "away_seconds": 0.3}
    kinds = (Cameras(count=6, fps=20.0, size_wh=(160, 120), **wild),)
    with truth_server(tmp_path, kind="constant", seconds=0.02) as truth:
        result = drive(Scenario("any", kinds, seconds=4.0), truth.target)
    assert set(result.outcomes) <= {"answered", "dropped_disconnected"}
    assert 0 < result.outcomes["dropped_disconnected"] < 0.4 * sum(one.due for one in result.per_second)
    assert sum(camera.connections for camera in result.cameras) > 15
