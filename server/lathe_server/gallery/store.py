"""Enrolled records in one SQLite file, sealed: what is acknowledged outlives the process, what is deleted is gone.

    gallery   one row: the gallery's id, and its root, 32 random bytes that only the right key opens
    records   id · space · enrolled_at · template, a box of subject and vector · face, a box, or nothing
    doubt     nothing, or one row: since when most records have been due at once (`retention`)

Nothing that tells of a person is outside a box. A box opens with the gallery's key, in its own row only, and as long as
that row's id, space and time are as they were (`sealing`).

The file is in WAL mode with synchronous=FULL: SQLite has handed a change to the disk (fsync) before the method returns;
a power cut takes only what the disk itself does not keep. One process has the file open, by SQLite's exclusive lock,
which ends with the process. Deleted content is overwritten with zeros (secure_delete); the log of changes still has it
until that is cut to nothing (wal_checkpoint).
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import sqlite3
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lathe.errors import LatheError, Refused
from lathe_server.boundary import detail_of
from lathe_server.gallery.record import Record, unpacked
from lathe_server.gallery.sealing import Sealer, WrongSeal
from lathe_server.gallery.trouble import DAMAGED, told

log = logging.getLogger(__name__)

SCHEMA = 1
APPLICATION = 0x4C544731
"""In the file's header: what makes it a gallery, for `file(1)` too."""
PSEUDONYM_DIGITS = 16
_TABLES = """
CREATE TABLE gallery (one INTEGER PRIMARY KEY CHECK (one = 1), id BLOB NOT NULL, root BLOB NOT NULL);
CREATE TABLE records (
  id TEXT PRIMARY KEY, space TEXT NOT NULL, enrolled_at INTEGER NOT NULL, template BLOB NOT NULL, face BLOB
);
"""
_DOUBT = "CREATE TABLE IF NOT EXISTS doubt (one INTEGER PRIMARY KEY CHECK (one = 1), since INTEGER NOT NULL)"
_RECORDS = "SELECT id, space, enrolled_at, template FROM records"
_DAMAGES = (WrongSeal, ValueError, TypeError, struct.error)


class Store:
    """For one thread at a time.

    Args:
        key: 32 bytes (`sealing.read_key`).
        may_be_new: an empty gallery is made where there is none.

    Raises:
        Refused: the key does not open it; another process has it open; it is damaged, of a newer Lathe, or may not be
            written; or there is none.
    """

    def __init__(self, path: Path, key: bytes, *, may_be_new: bool = True) -> None:
        if may_be_new:
            with suppress(FileExistsError):  # closing a file that SQLite has open would end its lock
                _make_private(path)
        with told():
            self._db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            with told():
                self._open(key, may_be_new=may_be_new)
        except BaseException:
            self._db.close()
            raise

    def _open(self, key: bytes, *, may_be_new: bool) -> None:
        self._set("locking_mode = EXCLUSIVE", "cell_size_check = ON", "trusted_schema = OFF", "temp_store = MEMORY")
        is_new = not self._db.execute("SELECT 1 FROM sqlite_schema").fetchone()
        if not is_new:
            self._check_kind()  # before anything is written into it
        elif not may_be_new:
            raise Refused("the file is empty: there is no gallery in it")
        self._set("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON")
        if is_new:
            self._create(key)
        if found := [words for (words,) in self._db.execute("PRAGMA quick_check(3)") if words != "ok"]:
            raise Refused(DAMAGED, detail="; ".join(found))
        (gallery, box), *_ = self._db.execute("SELECT id, root FROM gallery").fetchall() or [(b"", b"")]
        self._sealer = Sealer(key, gallery)
        try:
            self._root = self._sealer.open(box, "root")
        except WrongSeal as error:
            raise Refused("the key does not open this gallery") from error
        self._gallery = gallery
        self._db.execute(_DOUBT)  # which a file of an earlier Lathe has not
        self._try_to_cut_log()  # what a killed process had deleted may still be in it

    def _set(self, *pragmas: str) -> None:
        for pragma in pragmas:
            self._db.execute(f"PRAGMA {pragma}")

    def _create(self, key: bytes) -> None:
        gallery, root = secrets.token_bytes(16), secrets.token_bytes(32)
        with self._change():
            for statement in _TABLES.split(";"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA application_id = {APPLICATION}")
            self._db.execute(f"PRAGMA user_version = {SCHEMA}")
            box = Sealer(key, gallery).seal(root, "root")
            self._db.execute("INSERT INTO gallery VALUES (1, ?, ?)", (gallery, box))

    def _check_kind(self) -> None:
        (application,), (version,) = (
            self._db.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
        )
        if application != APPLICATION:
            raise Refused("the gallery's file is a database of something else")
        if version > SCHEMA:
            raise Refused(f"the gallery's file has format {version}, and this Lathe knows those up to {SCHEMA}")

    def add(self, record: Record, face: bytes = b"") -> None:
        """Keeps a record; it is on the disk when this returns.

        Args:
            face: what a later re-enrolment embeds anew; nothing where that is not allowed.

        Raises:
            DiskFull, Refused, Unavailable: it is not kept.
        """
        boxed = self._sealer.seal(face, "face", record.id) if face else None
        row = (record.id, record.space, record.enrolled_at, self._template(record), boxed)
        with self._change():
            self._db.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?)", row)

    def remove(self, ids: Iterable[str], *, end_doubt: bool = False) -> None:
        """Deletes records, all or none; those that are not there are passed over. They are gone for good when the log
        is cut (`cut_log`).

        Args:
            end_doubt: what was told to `doubt` led to this, and is forgotten with it.

        Raises:
            DiskFull, Refused, Unavailable: they are still there.
        """
        with self._change():
            self._db.executemany("DELETE FROM records WHERE id = ?", [(name,) for name in ids])
            if end_doubt:
                self._db.execute("DELETE FROM doubt")

    def records(self) -> Iterator[Record]:
        """All of them, the oldest first.

        Raises:
            Refused: some were changed by something else than a gallery.
        """
        damaged = 0
        with told():
            for row in self._db.execute(f"{_RECORDS} ORDER BY enrolled_at, id"):
                try:
                    yield self._record(*row)
                except _DAMAGES:
                    damaged += 1
        if damaged:
            raise Refused(f"{damaged} records of the gallery are damaged or not its own; put back a copy of its file")

    def record(self, name: str) -> Record | None:
        """The one with an id, if there is one.

        Raises:
            Refused: it was changed by something else than a gallery.
        """
        with told():
            row = self._db.execute(f"{_RECORDS} WHERE id = ?", (name,)).fetchone()
        try:
            return self._record(*row) if row else None
        except _DAMAGES as error:
            raise Refused("a record of the gallery is damaged; put back a copy of its file") from error

    def bare(self) -> int:
        """How many records there are without a face."""
        with told():
            (count,) = self._db.execute("SELECT count(*) FROM records WHERE face IS NULL").fetchone()
        return int(count)

    def face(self, record: str) -> bytes:
        """What was kept for re-enrolment; nothing where nothing was.

        Raises:
            Refused: it was changed by something else than a gallery.
        """
        with told():
            found = self._db.execute("SELECT face FROM records WHERE id = ?", (record,)).fetchone()
        if not (found and found[0]):
            return b""
        try:
            return self._sealer.open(found[0], "face", record)
        except WrongSeal as error:
            raise Refused("a kept face of the gallery is damaged; put back a copy of its file") from error

    def replace(self, records: Iterable[Record]) -> None:
        """New spaces and vectors of records that are there, all or none.

        Raises:
            DiskFull, Refused, Unavailable: the old ones hold.
        """
        with self._change():
            self._db.executemany(
                "UPDATE records SET space = ?, template = ? WHERE id = ?",
                ((record.space, self._template(record), record.id) for record in records),
            )
        self._try_to_cut_log()

    def doubted_since(self) -> int | None:
        """Unix time that was told to `doubt`."""
        with told():
            found = self._db.execute("SELECT since FROM doubt").fetchone()
        return int(found[0]) if found else None

    def doubt(self, since: int | None) -> None:
        """Remembers a time, or none.

        Raises:
            DiskFull, Refused, Unavailable: what was remembered before holds.
        """
        with self._change():
            self._db.execute("DELETE FROM doubt")
            if since is not None:
                self._db.execute("INSERT INTO doubt VALUES (1, ?)", (since,))

    def rekey(self, key: bytes) -> None:
        """Seals everything anew; from then on only the new key opens it.

        Raises:
            DiskFull, Refused, Unavailable: the old key holds.
        """
        old, new = self._sealer, Sealer(key, self._gallery)
        with self._change():
            for (name,) in self._db.execute("SELECT id FROM records").fetchall():
                space, enrolled_at, template, face = self._db.execute(
                    "SELECT space, enrolled_at, template, face FROM records WHERE id = ?", (name,)
                ).fetchone()
                place = ("template", name, space, enrolled_at)
                try:
                    boxes = (
                        new.seal(old.open(template, *place), *place),
                        new.seal(old.open(face, "face", name), "face", name) if face else None,
                    )
                except WrongSeal as error:
                    raise Refused("a record of the gallery is damaged; put back a copy of its file") from error
                self._db.execute("UPDATE records SET template = ?, face = ? WHERE id = ?", (*boxes, name))
            self._db.execute("UPDATE gallery SET root = ?", (new.seal(self._root, "root"),))
        self._sealer = new
        self._try_to_cut_log()

    def pseudonym(self, subject: str) -> str:
        """By which the audit log speaks of a person: whoever has key and file can make it of the name, and nobody
        can make the name of it. It stays when the key changes."""
        return hmac.new(self._root, subject.encode(), hashlib.sha256).hexdigest()[:PSEUDONYM_DIGITS]

    def close(self) -> None:
        self._try_to_cut_log()
        self._db.close()

    def _template(self, record: Record) -> bytes:
        return self._sealer.seal(record.packed(), "template", record.id, record.space, record.enrolled_at)

    def _record(self, name: str, space: str, enrolled_at: int, box: bytes) -> Record:
        content = self._sealer.open(box, "template", name, space, enrolled_at)
        return unpacked(content, name, space, enrolled_at)

    @contextmanager
    def _change(self) -> Iterator[None]:
        with told():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def cut_log(self) -> None:
        """Leaves nothing of what was deleted or replaced in the log of changes.

        Raises:
            DiskFull, Refused, Unavailable: some of it may be left, until the next time.
        """
        with told(full="the disk of the gallery is full: its log of changes cannot be cut"):
            (is_busy, *_) = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if is_busy:
            raise Refused("another process has the gallery open: its log of changes cannot be cut")

    def _try_to_cut_log(self) -> None:
        """After a change that has happened, whatever becomes of the log; whoever tends the gallery tries again."""
        try:
            self.cut_log()
        except LatheError as error:
            log.error(
                "what the gallery's file held before may be left in it: %s", error.message, extra=detail_of(error)
            )


def _make_private(path: Path) -> None:
    """An empty file that only its owner may read; SQLite itself would ask the umask.

    Raises:
        FileExistsError: there is one.
        Refused: its folder is missing, or may not be written.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise
    except OSError as error:
        raise Refused("the gallery's file cannot be made", detail=str(error)) from error
