"""Files that are made for a gallery: on the disk with their names, or not there."""

from __future__ import annotations

import errno
import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from lathe.cli import main
from lathe.errors import DiskFull, InvalidInput, LatheError
from lathe_server.gallery.disk import sync_folder
from lathe_server.gallery.sealing import write_key


@pytest.mark.parametrize(("code", "is_told"), [(errno.EIO, True), (errno.EINVAL, False)])
def test_a_folder_is_synced_where_its_file_system_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, *, is_told: bool
) -> None:
    synced: list[int] = []

    def fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="error") if is_told else nullcontext():
        sync_folder(tmp_path)
    assert synced == [tmp_path.stat().st_ino]


@pytest.mark.fault(47)
@pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, DiskFull), (errno.EIO, InvalidInput)])
def test_a_key_that_cannot_be_written_leaves_no_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code: int,
    kind: type[LatheError],
) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(kind, match="cannot be written, and no key was made"):
        write_key(tmp_path / "key")
    assert list(tmp_path.iterdir()) == []
    assert main(["gallery", "key", str(tmp_path / "key")]) == 1
    assert "no key was made" in capsys.readouterr().err


def test_the_name_of_a_key_is_brought_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    write_key(tmp_path / "key")
    assert synced == [path.stat().st_ino for path in (tmp_path / "key", tmp_path)]
