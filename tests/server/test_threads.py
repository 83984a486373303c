"""Which class of the system's scheduler each thread of a real server belongs to, and which cores."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lathe.machine import allowed_cores
from lathe.repository import Repository
from tests.conftest import RunningServer, start_server

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="this system has no such classes")


def threads(server: RunningServer) -> dict[str, list[int]]:
    """Ids of the server's workers, and of all its other threads."""
    found: dict[str, list[int]] = {"workers": [], "others": []}
    for task in Path(f"/proc/{server.process.pid}/task").iterdir():
        is_worker = os.sched_getscheduler(int(task.name)) == os.SCHED_OTHER
        found["workers" if is_worker else "others"].append(int(task.name))
    return found


def test_only_workers_are_of_the_class_that_pushes_others_aside(repository: Repository, tmp_path: Path) -> None:
    with start_server(repository.root, tmp_path / "log", "--workers", "3") as server:
        found = threads(server)
        assert len(found["workers"]) == 3
        assert server.process.pid in found["others"]  # the event loop's
        assert {os.sched_getscheduler(thread) for thread in found["others"]} == {os.SCHED_BATCH}


def test_workers_that_have_their_own_cores_keep_to_them(repository: Repository, tmp_path: Path) -> None:
    cores = allowed_cores()
    flags = ("--workers", str(len(cores) + 1), "--worker-cores", "own")
    with start_server(repository.root, tmp_path / "log", *flags) as server:
        found = threads(server)
        own = [os.sched_getaffinity(thread) for thread in found["workers"]]
        assert all(len(one) == 1 for one in own)
        assert {core for one in own for core in one} == set(cores)
        assert os.sched_getaffinity(server.process.pid) == set(cores)
