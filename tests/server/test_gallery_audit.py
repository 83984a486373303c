"""The audit log: a line a call, and nothing that tells of a face or a name."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lathe.errors import DiskFull, Refused
from lathe_server.gallery.audit import Audit, Entry, audit_file
from lathe_server.gallery.store import Store


def test_the_audit_log_has_a_line_a_call_and_no_name(tmp_path: Path) -> None:
    store = Store(tmp_path / "people", bytes(32))
    audit = Audit(audit_file(tmp_path / "people"), store.pseudonym, lambda: datetime(2026, 3, 1, 9, 30, tzinfo=UTC))
    audit.write(Entry("enroll", "desk", "Ann Öztürk", is_change=True), "OK")
    audit.write(Entry("verify", "gate", "Ann Öztürk", about=(("fmr", 0.001),)), "no match")
    audit.write_all([Entry("identify", about=(("candidates", count),)) for count in (2, 3)], "OK\nforged")
    path = tmp_path / "people.audit.jsonl"
    at, ann = "2026-03-01T09:30:00.000Z", store.pseudonym("Ann Öztürk")
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"at": at, "what": "enroll", "who": "desk", "subject": ann, "outcome": "OK"},
        {"at": at, "what": "verify", "who": "gate", "subject": ann, "outcome": "no match", "fmr": 0.001},
        {"at": at, "what": "identify", "who": "", "outcome": "OK\nforged", "candidates": 2},
        {"at": at, "what": "identify", "who": "", "outcome": "OK\nforged", "candidates": 3},
    ]
    assert "Ann" not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    store.close()


def test_half_a_line_of_a_killed_process_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'{"at": "2026-03-01T09:3')
    Audit(path, str).write(Entry("delete"), "OK")
    assert json.loads(path.read_text().splitlines()[1])["what"] == "delete"


@pytest.mark.fault(47)
def test_a_log_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="audit log cannot be written") as caught:
        Audit(tmp_path / "no folder" / "log", str).write(Entry("verify"), "match")
    assert str(tmp_path) not in caught.value.message
    with pytest.raises(DiskFull, match="audit log cannot be written"):
        Audit(Path("/dev/full"), str).write(Entry("verify"), "match")


def test_what_is_no_number_comes_into_no_log(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        Audit(tmp_path / "log", str).write(Entry("verify", about=(("fmr", float("nan")),)), "match")
    assert not (tmp_path / "log").exists()


def test_what_expires_together_is_brought_to_the_disk_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    Audit(tmp_path / "log", str).write_all((Entry("expire", is_change=True) for _ in range(100)), "OK")
    assert len(synced) == 1
    assert len((tmp_path / "log").read_text().splitlines()) == 100


def test_the_name_of_a_new_log_is_brought_to_the_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr("lathe_server.gallery.audit.sync_folder", synced.append)
    audit = Audit(tmp_path / "log", str)
    for entry in (Entry("verify"), Entry("delete", is_change=True)):
        audit.write(entry, "OK")
    assert synced == [tmp_path]
    (tmp_path / "log").rename(tmp_path / "log.1")
    audit.write(Entry("verify"), "OK")
    assert synced == [tmp_path] * 2
