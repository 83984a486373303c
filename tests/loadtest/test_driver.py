"""The driver of a load test watches itself: its files, its processes, its own lateness."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lathe.cli.load import EXIT_INVALID, tell
from lathe_loadtest.assemble import sender, why_invalid
from lathe_loadtest.drive import drive
from lathe_loadtest.messages import OUTCOME_NUMBERS
from lathe_loadtest.notes import Notes, Rows
from lathe_loadtest.scenario import Cameras, Scenario
from lathe_loadtest.schedule import plans
from tests.loadtest.synthetic import synthetic_result
from tests.loadtest.truth import truth_server

SMALL = Cameras(count=4, fps=20.0, size_wh=(160, 120), fps_spread=0.0)


def test_a_driver_that_may_have_too_few_files_is_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with truth_server(tmp_path, kind="none") as truth:
        code = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))"
        (tmp_path / "sitecustomize.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
        result = drive(Scenario("any", (replace(SMALL, count=60, fps=2.0),), seconds=1.0), truth.target)
    assert any("Too many open files" in reason for reason in result.why_invalid)


def sending_is(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python that the driver's processes run to send a frame, in the place of `due(self, row)`."""
    lines = ["import os, time", "from lathe_loadtest.link import Link", "due = Link.due"]
    lines += [f"def other(self, row): {code}", "Link.due = other"]
    (folder / "sitecustomize.py").write_text("\n".join(lines))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))


def test_a_process_that_dies_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sending_is("(os._exit(1) if self._plan.name == 'camera-1' and row > 9 else due(self, row))", tmp_path, monkeypatch)
    with truth_server(tmp_path, kind="none") as truth:
        result = drive(Scenario("any", (SMALL,), seconds=2.0), truth.target, processes=2)
    assert any("1 of the driver's processes died" in reason for reason in result.why_invalid)
    assert [camera.name for camera in result.cameras] == ["camera-0", "camera-2"]


def test_several_processes_are_one_run(tmp_path: Path) -> None:
    with truth_server(tmp_path, kind="constant", seconds=0.02) as truth:
        result = drive(Scenario("any", (SMALL,), seconds=2.0), truth.target, processes=2)
    assert result.sender.processes == 2
    assert [camera.name for camera in result.cameras] == ["camera-0", "camera-1", "camera-2", "camera-3"]
    assert result.outcomes == {"answered": 160}
    assert [one.due for one in result.per_second] == [80, 80]


def rows(lateness: float = 0.0, latency: float = 0.02, cpu_seconds: float = 0.1) -> Rows:
    count = 200
    return Rows(
        ("camera-0",),
        (1,),
        ("int8",),
        np.zeros(count, np.int32),
        np.linspace(0, 1, count),
        np.ones(count, np.bool_),
        np.full(count, OUTCOME_NUMBERS["answered"], np.uint8),
        np.zeros(count, np.uint16),
        np.full(count, latency),
        np.full(count, lateness, np.float32),
        cpu_seconds,
        count,
    )


def test_what_the_driver_takes_is_of_all_that_it_sent_and_figures_of_what_was_due_after_the_warm_up() -> None:
    scenario = Scenario("any", (SMALL,), seconds=3.0, warmup_seconds=1.0)
    notes = Notes(list(plans(scenario)))
    for row in range(len(notes)):
        notes.sent(row)
    found = notes.rows(scenario.warmup_seconds, len(notes), [1] * 4, cpu_seconds=0.24)
    assert (len(found.due), sender([found]).frames) == (160, 240)
    assert sender([found]).cpu_us_per_frame == pytest.approx(1000.0)


@pytest.mark.parametrize(
    ("parts", "died", "reason"),
    [
        ([rows()], 0, None),
        ([rows(lateness=0.02)], 0, "sent late: the 99th percentile of its lateness is 20.0 ms"),
        ([rows(lateness=0.02, latency=0.5)], 0, None),  # of which it is a small part
        ([rows(), rows(cpu_seconds=0.95)], 0, "used 95 % of a core"),
        ([rows()], 1, "1 of the driver's processes died"),
    ],
)
def test_a_run_in_which_the_driver_was_the_limit_says_why(parts: list[Rows], died: int, reason: str | None) -> None:
    found = why_invalid(parts, 1.0, died)
    assert len(found) == (reason is not None)
    assert (reason or "") in "".join(found)


def test_an_invalid_run_has_an_exit_code_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert tell(synthetic_result(latency_ms={"int8": 20, "fp32": 60}, drops=0.1), ()) == 0
    assert tell(synthetic_result(why_invalid=("the driver sent late",)), ()) == EXIT_INVALID
    said = capsys.readouterr()
    assert said.err == "lathe: invalid: the driver sent late\n"
    assert "dropped_superseded" in said.out


def test_a_slow_driver_finds_itself_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose sending takes longer than there is time for it."""
    sending_is("time.sleep(0.02); due(self, row)", tmp_path, monkeypatch)
    with truth_server(tmp_path, kind="none") as truth:
        result = drive(Scenario("any", (SMALL,), seconds=2.0), truth.target)
    assert "the driver sent late" in result.why_invalid[0]
