"""Who has done what with a gallery: a line of JSON for each call, and nothing that tells of a face.

    {"at": "2026-03-01T09:30:00.120Z", "what": "verify", "who": "gate-cameras", "subject": "5c0e…",
     "outcome": "no match", "fmr": 0.001}

`subject` is a pseudonym (`store.Store.pseudonym`): the same person has the same one throughout a gallery's life, and
only whoever holds the gallery and its key can tell which name it stands for. There are no vectors, similarities,
pictures or landmarks. A line is written before its call is answered, and on the disk where the call changed something;
where it cannot be written, the call fails.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lathe.errors import DiskFull, Refused
from lathe_server.gallery.disk import is_full, sync_folder

SUFFIX = ".audit.jsonl"


@dataclass(frozen=True, slots=True)
class Entry:
    """What the log says of a call.

    Attributes:
        what: the call.
        who: the name of the token that was shown; empty where none is asked for.
        is_change: its line has to be on the disk.
        about: more, nothing biometric.
    """

    what: str
    who: str = ""
    subject: str = ""
    is_change: bool = False
    about: tuple[tuple[str, str | int | float], ...] = ()


def audit_file(gallery: Path) -> Path:
    return gallery.with_name(gallery.name + SUFFIX)


class Audit:
    """Appends only. Whoever turns the file over (logrotate) needs to tell nobody: it is opened each time.

    Args:
        pseudonym: of a subject.
        now: wall clock.
    """

    def __init__(
        self, path: Path, pseudonym: Callable[[str], str], now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._path = path
        self._pseudonym = pseudonym
        self._now = now

    def write(self, entry: Entry, outcome: str) -> None:
        """
        Raises:
            DiskFull: there is no room for the line.
            Refused: it cannot be written.
        """
        self.write_all([entry], outcome)

    def write_all(self, entries: Iterable[Entry], outcome: str) -> None:
        """As `write`, of things that were done together: brought to the disk once."""
        entries = list(entries)
        lines = b"".join(self._line(entry, outcome) for entry in entries)
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                size = os.fstat(descriptor).st_size
                if size and os.pread(descriptor, 1, size - 1) != b"\n":  # an earlier process was killed in mid-line
                    lines = b"\n" + lines
                if os.write(descriptor, lines) < len(lines):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                if any(entry.is_change for entry in entries):
                    os.fdatasync(descriptor)
                if not size:  # it was just made
                    sync_folder(self._path.parent)
            finally:
                os.close(descriptor)
        except OSError as error:
            kind = DiskFull if is_full(error) else Refused
            raise kind("the gallery's audit log cannot be written", detail=str(error)) from error

    def _line(self, entry: Entry, outcome: str) -> bytes:
        line = {
            "at": self._now().isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "what": entry.what,
            "who": entry.who,
            **({"subject": self._pseudonym(entry.subject)} if entry.subject else {}),
            "outcome": outcome,
            **dict(entry.about),
        }
        return json.dumps(line, allow_nan=False).encode() + b"\n"
