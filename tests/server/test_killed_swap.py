"""kill -9 in every phase of a swap: a restart serves what the newest revision says, whichever that has come to be."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from lathe.errors import LatheError
from lathe.repository import Repository
from tests.conftest import RunningServer, start_server
from tests.models import bright_spots, card_for

SECONDS = 20.0


def children(server: RunningServer) -> list[str]:
    """Command lines of the server's children."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rsplit(") ", 1)[1].split()[1])
            if parent == server.process.pid:
                found.append((process / "cmdline").read_text())
        except OSError:  # it has just ended
            continue
    return found


def said(server: RunningServer, words: str) -> bool:
    return words in server.log.read_text("utf-8")


PHASES: dict[str, Callable[[RunningServer, Path], bool]] = {
    "before it begins": lambda server, routes: True,
    "while it is tried in a child": lambda server, routes: any(
        "lathe_server.trial" in line for line in children(server)
    ),
    "once it is in memory": lambda server, routes: said(server, "spots: loaded: spots/b"),
    "once the route is written": lambda server, routes: (routes / "2.json").exists(),
    "once it serves": lambda server, routes: said(server, "spots: routed (revision 2)"),
    "once the old one is gone": lambda server, routes: said(server, "spots: unloaded: spots/a"),
}


@contextmanager
def killed_when(server: RunningServer, reached: Callable[[], bool]) -> Iterator[None]:
    """Kills a server at the first moment at which something is so."""

    def watch() -> None:
        end = time.monotonic() + SECONDS
        while not reached() and time.monotonic() < end:
            pass
        server.process.kill()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        watcher.join()
        server.process.wait()


@pytest.mark.fault(60)
@pytest.mark.parametrize("phase", PHASES)
def test_a_restart_serves_what_the_newest_revision_says(
    repository: Repository, tmp_path: Path, spot_jpeg: bytes, phase: str
) -> None:
    routes = repository.root / "spots/routes"
    with start_server(repository.root, tmp_path / "first.log") as first, first.client() as client:
        client.set_route("spots", {"a": 1})
        # A file that no trial has passed yet, and large enough for each phase to take its time.
        repository.publish(card_for("spots", "b"), bright_spots(box_pixels=20.0, work=40))
        with killed_when(first, lambda: PHASES[phase](first, routes)), suppress(LatheError):
            client.set_route("spots", {"b": 1})
    newest = repository.route("spots")
    assert newest
    expected = newest.weights[0].variant
    if "child" in phase or "begins" in phase:
        assert (newest.revision, expected) == (1, "a")
    if "serves" in phase or "gone" in phase:
        assert (newest.revision, expected) == (2, "b")
    with start_server(repository.root, tmp_path / "again.log") as again, again.client() as client:
        assert client.detect("spots", spot_jpeg).variant == expected
        other = "a" if expected == "b" else "b"
        client.set_route("spots", {other: 1})
        assert client.detect("spots", spot_jpeg).variant == other
