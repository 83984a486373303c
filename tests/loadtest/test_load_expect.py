"""lathe load: what a scenario expects decides the exit code, and the search for the capacity tells its answer."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lathe.cli import main
from lathe.cli.load_capacity import EXIT_NOT_FOUND, sentence
from lathe.errors import Unavailable
from lathe_loadtest import capacity_file, find
from lathe_loadtest.capacity import Capacity, Run
from lathe_loadtest.find import Demand
from lathe_loadtest.result import LoadResult, read_result
from lathe_loadtest.scenario import Cameras, Scenario
from lathe_loadtest.stage import Stage, Target
from tests.conftest import RunningServer
from tests.loadtest.synthetic import synthetic_result

FILE = """
model = "spots"
seconds = 1.0
[[cameras]]
count = 2
fps = 20
[[expect]]
answered_share = 0.5
"""


def load(server: RunningServer, *arguments: str | Path) -> int:
    where = ("--server", server.grpc, "--http", server.http, "--control", server.control)
    return main(["load", *map(str, arguments), *where])


@pytest.mark.parametrize(("more", "word", "codes"), [("", "ok", {0, 3}), ("p50_seconds = 1e-6\n", "NO", {4, 3})])
def test_a_run_that_is_not_as_expected_has_an_exit_code_of_its_own(
    more: str,
    word: str,
    codes: set[int],
    shared_server: RunningServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "mine.toml").write_text(FILE + more, "utf-8")
    report, output = tmp_path / "mine.html", tmp_path / "mine.json"
    code = load(shared_server, tmp_path / "mine.toml", "--report", report, "--output", output)
    result = read_result(output)
    assert code in codes
    assert (code == 3) is not result.is_valid  # who sends is late where other tests run, too
    shown = capsys.readouterr().out
    assert "expected and measured" in shown
    if more:
        assert word in shown.split("p50 latency")[0].splitlines()[-1]
    assert ("Not met: p50 latency" in report.read_text("utf-8")) is bool(more)
    assert result.scenario.expect[0].answered_share == 0.5


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--p99", "50ms"], "--p99, --drops and --searches go with --find-capacity"),
        (["--find-capacity", "--drops", "1.5"], "--drops is a share of the frames"),
        (["--find-capacity", "--searches", "0"], "--searches must be 1 or more"),
        (["--find-capacity", "--report", "x.html"], "do not go with --find-capacity"),
    ],
)
def test_flags_of_a_search_that_make_no_sense(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["load", "steady", *flags]) == 1
    assert message in capsys.readouterr().err


def test_a_time_that_is_none_is_a_wrong_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["load", "steady", "--find-capacity", "--p99", "fast"])
    assert caught.value.code == 2
    assert "fast is not a time such as 50ms" in capsys.readouterr().err


SCENARIO = Scenario("face", (Cameras(fps=10.0),))
STAGE = Stage(Target())


class Server:
    """Stands for runs against a server that carries so many cameras."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cameras: float) -> None:
        self.cameras = cameras
        self.played: list[Scenario] = []
        self.ended: dict[int, Any] = {}
        monkeypatch.setattr(find, "play", self._play)
        monkeypatch.setattr(find, "saturated", self._saturated)

    def _play(self, scenario: Scenario, stage: Stage, **_: object) -> LoadResult:
        self.played.append(scenario)
        count = scenario.cameras[0].count * scenario.cameras[0].fps / 10.0
        result = synthetic_result(drops=0.0 if count <= self.cameras else 0.2, seconds=2)
        return replace(result, **self.ended.get(len(self.played), {}))

    async def _saturated(self, *_: object) -> float:
        return 10.0 * max(self.cameras, 1.0) * 1.3


def test_a_search_finds_the_cameras_that_are_carried(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, 37.4)
    told: list[Run] = []
    [found] = find.search(SCENARIO, STAGE, Demand(0.1), on_run=lambda run, _: told.append(run))
    assert found.load == pytest.approx(37.4, rel=0.02)
    assert tuple(told) == found.runs
    assert server.played[0].cameras[0].count == 25  # half of what it can do when it is never idle: 24.3
    assert max(one.cameras[0].fps for one in server.played) <= 10.0


def test_a_search_whose_server_goes_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, 37.4)
    server.ended[3] = {"ended": "server_lost", "error": "the server is gone"}
    with pytest.raises(Unavailable, match="the server is gone"):
        find.search(SCENARIO, STAGE, Demand(0.1), stop=threading.Event())
    assert len(server.played) == 3


def test_the_answer_says_what_was_asked_and_how_sure_it_is() -> None:
    found = Capacity(38.25, 37.9, 38.8, (Run(20.0, True), Run(40.0, False)))
    assert sentence(found, SCENARIO, Demand(0.05, 0.001)) == (
        "38.2 cameras at 10 fps, 382 frames/s; between 37.9 and 38.8 by 2 runs (p99 ≤ 50 ms, at most 0.10% unanswered)"
    )
    bound = Capacity(20.0, 20.0, float("inf"), found.runs, "who sends was the limit, not the server")
    assert sentence(bound, SCENARIO, Demand(0.05)).startswith("not found after 2 runs: who sends was the limit")


def test_a_search_is_written_as_json(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Server(monkeypatch, 12.0)
    (tmp_path / "mine.toml").write_text('model = "face"\n[[cameras]]\nfps = 10\n', "utf-8")
    output = tmp_path / "capacity.json"
    flags = ["--find-capacity", "--p99", "80ms", "--searches", "2", "--output", str(output)]
    assert main(["load", str(tmp_path / "mine.toml"), *flags]) == 0
    found = capacity_file.from_json(output.read_text("utf-8"), output.name)
    assert (found.p99_seconds, found.fps, len(found.searches)) == (0.08, 10.0, 2)
    assert (found.model, found.variants, found.workers) == ("face", ("int8",), 2)
    assert found.frames_per_second == pytest.approx(120.0, rel=0.03)
    assert "2 searches: 1" in capsys.readouterr().out


def test_searches_without_a_capacity_are_written_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is the same with --output and without."""
    Server(monkeypatch, 0.0)
    (tmp_path / "mine.toml").write_text('model = "face"\n[[cameras]]\nfps = 10\n', "utf-8")
    words = ["load", str(tmp_path / "mine.toml"), "--find-capacity", "--searches", "2"]
    assert main(words) == main([*words, "--output", str(tmp_path / "c.json")]) == EXIT_NOT_FOUND
    assert "apart" not in capsys.readouterr().out
    found = capacity_file.from_json((tmp_path / "c.json").read_text("utf-8"), "c.json")
    assert [one.why_not for one in found.searches] == ["no load was carried, however small"] * 2
    assert found.frames_per_second == 0.0


def test_a_bound_that_is_not_known_is_null(tmp_path: Path) -> None:
    bound = Capacity(20.0, 20.0, float("inf"), (Run(20.0, None),), "who sends was the limit, not the server")
    scenario = replace(SCENARIO, cameras=(*SCENARIO.cameras, Cameras(name="others", count=3, fps=5.0)))
    capacity_file.write_capacity(capacity_file.of_searches([bound], scenario, Demand(0.1), []), tmp_path / "c.json")
    found = capacity_file.from_json((tmp_path / "c.json").read_text("utf-8"), "c.json")
    assert (found.searches[0].high, found.searches[0].runs, found.other_fps) == (None, bound.runs, 15.0)
