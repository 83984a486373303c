"""A variant is tried in a child process first: what would end or stop the server ends the child."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lathe.client import ServerError
from lathe.errors import BadVariant, NotFound, Refused
from lathe.repository import Repository, VariantRef
from lathe_server.heartbeat import MemoryGuard
from lathe_server.settings import Settings
from lathe_server.trial import COMMAND, Trials
from tests.calls import metric
from tests.conftest import RunningServer, start_server
from tests.models import bright_spots, card_for

A = VariantRef("spots", "a", 1)


def child(code: str) -> tuple[str, ...]:
    """A child process that does this instead of loading."""
    return (sys.executable, "-c", f"import os, signal, sys, time\n{code}")


def test_a_good_file_is_tried_once_whatever_its_name(repository: Repository, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    noted = child(f"open({str(notes)!r}, 'a').write('x'); os.execv({COMMAND[0]!r}, [*{COMMAND!r}, *sys.argv[1:]])")
    trials = Trials(repository, Settings(), command=noted)
    trials(A)
    trials(A)
    trials(repository.publish(card_for("spots", "twin"), repository.model_bytes(A)))
    assert notes.read_text() == "x"


@pytest.mark.fault(36)
@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", r"spots/a/1 ends the process that loads it \(SIGSEGV\)"),
        ("os.kill(os.getpid(), signal.SIGKILL)", r"ends the process that loads it \(SIGKILL\)"),
        ("sys.exit(3)", "its trial ended with exit code 3"),
        ("print('no report')", "its trial ended with exit code 0"),
        ("time.sleep(60)", "was not loaded within 2 s"),
    ],
    ids=["crashes the runtime", "killed for its memory", "exits", "says nothing of use", "hangs"],
)
def test_what_ends_or_stops_the_child_is_a_variant_that_cannot_be_loaded(
    repository: Repository, code: str, message: str
) -> None:
    with pytest.raises(BadVariant, match=message):
        Trials(repository, Settings(load_seconds=2.0), command=child(code))(A)


def test_a_failed_check_is_told_as_it_would_be_here(repository: Repository) -> None:
    broken = repository.publish(card_for("spots", "broken"), b"no model")
    trials = Trials(repository, Settings())
    with pytest.raises(BadVariant, match="ONNX"):
        trials(broken)
    with pytest.raises(NotFound, match="spots/a/7 is not published"):
        trials(VariantRef("spots", "a", 7))


@pytest.mark.fault(38)
def test_a_variant_that_needs_more_memory_than_is_free_is_not_loaded(repository: Repository) -> None:
    with pytest.raises(BadVariant, match=r"spots/a/1 needs \d+ MB to load, and 0 MB are free"):
        Trials(repository, Settings(), room=lambda: 0)(A)
    rooms = iter([10**9, 0])
    trials = Trials(repository, Settings(), room=lambda: next(rooms))
    trials(A)
    with pytest.raises(BadVariant, match="0 MB are free"):
        trials(A)


def test_room_is_what_is_left_until_frames_would_be_refused() -> None:
    assert MemoryGuard(1000).room(900) == 50
    assert MemoryGuard(1000).room(990) == 0
    assert MemoryGuard(0).room(990) is None


def test_without_a_process_there_is_no_trial_and_no_load(repository: Repository) -> None:
    with pytest.raises(Refused, match="no process can be started"):
        Trials(repository, Settings(), command=("/no/such/program",))(A)


@pytest.mark.fault(36)
def test_a_crash_of_the_runtime_leaves_the_server_and_its_route_as_they_were(
    repository: Repository, tmp_path: Path, spot_jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child dies as soon as Python has started in it, as it would where a graph crashes the runtime."""
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import os, signal, sys\nif 'lathe_server.trial' in sys.orig_argv: os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(hook), prepend=":")
    with start_server(repository.root, tmp_path / "log") as server, server.client() as client:
        with pytest.raises(ServerError, match="SIGSEGV"):
            client.set_route("spots", {"b": 1})
        assert client.detect("spots", spot_jpeg).variant == "a"
        assert client.route("spots").revision == 0
        assert metric(server, "lathe_swaps_total", result="refused") == 1


def test_what_a_start_serves_is_not_tried(repository: Repository, server: RunningServer, spot_jpeg: bytes) -> None:
    with server.client() as client:
        repository.publish(card_for("spots", "c"), bright_spots())
        assert client.set_route("spots", {"c": 1}).revision == 1
        assert client.detect("spots", spot_jpeg).variant == "c"
