"""A server of one's own has the variables that it is given, and no others of Lathe's."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from lathe.errors import Unavailable
from lathe.repository import Repository
from lathe.server_process import ServerProcess


def test_variables_reach_it(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="gallery_fmr must be above 0 and below 1"):
        ServerProcess(repository.root, tmp_path / "log", (), {"LATHE_GALLERY_FMR": "2"})


def test_those_of_the_surroundings_do_not(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATHE_GALLERY_FMR", "2")
    with ServerProcess(repository.root, tmp_path / "log") as server:
        assert server.stop() == 0


def test_it_ends_where_its_start_is_interrupted(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    start = subprocess.Popen

    def remember(*command: Any, **how: Any) -> Any:
        started.append(start(*command, **how))
        return started[-1]

    def interrupt(server: ServerProcess) -> dict[str, str]:
        raise KeyboardInterrupt

    monkeypatch.setattr("lathe.server_process.subprocess.Popen", remember)
    monkeypatch.setattr(ServerProcess, "_wait_until_ready", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ServerProcess(repository.root, tmp_path / "log")
    assert [one.returncode is not None for one in started] == [True]
