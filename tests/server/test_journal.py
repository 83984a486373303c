"""What a server writes down, and what the next one makes of it."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from lathe import journal
from lathe.cli import main
from lathe.client import ServerError
from lathe.errors import BadVariant
from lathe.repository import Repository, VariantRef
from lathe.v1 import control_pb2
from lathe_server.journal import MOST_UNWRITTEN, Journal
from lathe_server.server import Server
from lathe_server.settings import Settings
from lathe_server.trial import Trials
from tests.calls import until
from tests.conftest import start_server
from tests.models import card_for

LOADING, LOADED, FAILED = (
    control_pb2.EVENT_KIND_LOADING,
    control_pb2.EVENT_KIND_LOADED,
    control_pb2.EVENT_KIND_FAILED,
)
FREE = "127.0.0.1:0"


def event(kind: control_pb2.EventKind.ValueType, variant: str, text: str = "") -> control_pb2.Event:
    told = control_pb2.Event(kind=kind, model="spots", text=text)
    told.variant.variant, told.variant.version = variant, 1
    told.at.GetCurrentTime()
    return told


def test_what_was_last_refused_or_not_heard_of_again_is_suspect() -> None:
    told = [event(LOADING, "a"), event(LOADED, "a"), event(LOADING, "b"), event(FAILED, "b"), event(LOADING, "c")]
    assert journal.suspects(told) == {VariantRef("spots", name, 1) for name in "bc"}
    assert journal.suspects([*told, event(LOADING, "b"), event(LOADED, "b")]) == {VariantRef("spots", "c", 1)}


def test_half_a_line_is_passed_over_and_a_full_file_makes_room(tmp_path: Path) -> None:
    file = journal.journal_file(tmp_path, "gate:1/../x")
    assert file.parent == tmp_path / ".journal"
    journal.append(file, event(LOADING, "a"))
    with file.open("ab") as half:
        half.write(b'no json\n\xff\n{"kind": "EVENT_KIND_LOADED", "mod')
    journal.append(file, event(LOADED, "a"))
    assert [told.kind for told in journal.events(file)] == [LOADING, LOADED]
    for number in range(3 * journal.FULL_BYTES // 2 // 1000):
        journal.append(file, event(FAILED, "b", f"{number} " + "x" * 1000))
    assert file.stat().st_size < journal.FULL_BYTES
    told = journal.all_events(tmp_path)
    assert {server for server, _ in told} == {"gate:1/../x"}
    assert told[0][1].kind == LOADING
    assert len(told) == 2 + 3 * journal.FULL_BYTES // 2 // 1000


def test_the_journal_of_servers_tells_of_swaps_by_whom_and_why(
    repository: Repository, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = repository.publish(card_for("spots", "bad"), b"no model")
    with start_server(repository.root, tmp_path / "log", "--server-name", "hall") as server, server.client() as client:
        client.set_route("spots", {"b": 1}, author="ada", reason="cheaper")
        with pytest.raises(ServerError, match="ONNX"):
            client.set_route("spots", {"bad": 1})
        states = {status.card.variant: status for status in client.variants("spots")}
        assert states["bad"].state == control_pb2.SERVABLE_STATE_FAILED
        assert "ONNX" in states["bad"].reason
        capsys.readouterr()
        assert main(["ctl", "--control", server.control, "variants"]) == 0
        assert "failed" in capsys.readouterr().out
    assert main(["repo", "log", str(repository.root), "spots"]) == 0
    lines = [line.split(": ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert "routed (revision 1): b/1=1 (ada, cheaper) [hall]" in lines
    assert f"loading: {bad} [hall]" in lines
    assert any(line.startswith(f"failed: {bad} ") and "ONNX" in line for line in lines)
    assert main(["repo", "log", str(repository.root), "other"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.fault(60)
def test_a_variant_that_the_last_start_died_of_is_tried_in_a_child_first(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    for revision, variant in enumerate(("a", "b"), 1):
        route = control_pb2.Route(model="spots", revision=revision)
        route.weights.add(variant=variant, version=1, weight=1)
        repository.add_route(route)
    tried = []

    def crash(trials: Trials, ref: VariantRef) -> int:
        tried.append(ref)
        raise BadVariant(f"{ref} ends the process that loads it")

    monkeypatch.setattr(Trials, "_try", crash)
    journal.append(journal.journal_file(repository.root, "hall"), event(LOADING, "b"))
    for _ in range(2):
        assert asyncio.run(serves(repository)) == (1, {"spots/b/1": "failed", "spots/a/1": "ready"})
    assert tried == [VariantRef("spots", "b", 1)] * 2


async def serves(repository: Repository) -> tuple[int, dict[str, str]]:
    """The revision that a fresh server starts with, and the states of variants."""
    server = Server(repository, Settings(grpc=FREE, http=FREE, control=FREE, server_name="hall", workers=1))
    await server.startup()
    route = server._router.route("spots")
    states = {str(ref): state for ref, state in server._manager.states().items()}
    await server.drain()
    await asyncio.to_thread(server._journal.flush)
    assert route
    return route.revision, dict(states)


@pytest.mark.fault(47)
def test_events_of_a_folder_that_cannot_be_written_are_lost_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".journal").write_text("in the way")
    written = Journal(tmp_path, "hall")
    for _ in range(3):
        written.write(event(LOADING, "a"))
    written.flush()
    assert len([record for record in caplog.records if "not written down" in record.message]) == 1
    (tmp_path / ".journal").unlink()
    written.write(event(LOADING, "b"))
    written.flush()
    assert Journal(tmp_path, "hall").suspects == {VariantRef("spots", "b", 1)}


@pytest.mark.fault(47)
def test_a_disk_that_hangs_holds_up_neither_events_nor_loads_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stuck, go = threading.Event(), threading.Event()

    def hang(file: Path, told: control_pb2.Event) -> None:
        stuck.set()
        go.wait(20)

    monkeypatch.setattr("lathe_server.journal.append", hang)
    monkeypatch.setattr("lathe_server.journal.FLUSH_SECONDS", 0.01)
    written = Journal(tmp_path, "hall")
    written.write(event(LOADING, "a"))
    until(stuck.is_set)
    written.flush()  # gives up waiting
    for _ in range(2 * MOST_UNWRITTEN):
        written.write(event(LOADING, "a"))
    written.flush()  # does not even begin
    assert "the disk is too slow" in caplog.text
    go.set()


def test_two_servers_of_one_name_lose_nothing_when_their_file_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lathe.journal.FULL_BYTES", 20_000)
    file = journal.journal_file(tmp_path, "hall")

    def write(number: int) -> None:
        for count in range(60):
            journal.append(file, event(LOADED, "a", f"{number}-{count}"))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({told.text for _, told in journal.all_events(tmp_path)}) == 240


def test_a_start_reads_the_newest_of_a_long_journal(tmp_path: Path) -> None:
    file = journal.journal_file(tmp_path, "hall")
    for number in range(600):
        journal.append(file, event(LOADED, "a", f"{number} " + "x" * 200))
    journal.append(file, event(LOADING, "b"))
    newest = list(journal.events(file, 65_536))
    assert 100 < len(newest) < 300
    assert newest[0].text.startswith(f"{601 - len(newest)} ")
    assert Journal(tmp_path, "hall").suspects == {VariantRef("spots", "b", 1)}
