"""What goes wrong with a gallery's file, in words for whoever runs it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from lathe.errors import DiskFull, LatheError, Refused, Unavailable

DAMAGED = "the gallery's file is damaged, or no gallery; put back a copy of it, without the -wal file that lies there"


@contextmanager
def told(full: str = "the disk of the gallery is full: nothing was changed") -> Iterator[None]:
    """SQLite's errors as Lathe's.

    Args:
        full: what is said where there is no room.

    Raises:
        DiskFull: there is no room.
        Refused: the file is damaged, may not be written or opened, or another process has it.
        Unavailable: the disk fails.
    """
    try:
        yield
    except sqlite3.Error as error:
        if (known := _known(error, full)) is None:
            raise
        raise known from error


def _known(error: sqlite3.Error, full: str) -> LatheError | None:
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return None
    detail = str(error)
    match code & 0xFF:  # the rest says more closely which
        case sqlite3.SQLITE_FULL:
            return DiskFull(full, detail=detail)
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return Refused("the gallery's file may not be written", detail=detail)
        case sqlite3.SQLITE_CANTOPEN:
            return Refused("the gallery's file cannot be opened", detail=detail)
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return Refused("another process has the gallery open; one at a time may", detail=detail)
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_SCHEMA:
            return Refused(DAMAGED, detail=detail)
        case sqlite3.SQLITE_IOERR:
            return Unavailable("the disk of the gallery fails", detail=detail)
        case _:
            return None
