"""Results of steps by the digest of all that went into them: what is finished is never done again."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lathe.errors import DiskFull

UNFINISHED, LOCK = ".part", ".lock"


class StepStore:
    """A folder of finished entries, each under its digest, and of unfinished ones beside them.

    An entry appears by a rename and is never written again. An unfinished one keeps its checkpoints, and
    is gone on with. Of two processes that want the same entry one makes it, and the other waits.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def find(self, key: str) -> Path | None:
        """The finished entry's folder."""
        folder = self._root / key
        return folder if folder.is_dir() else None

    def begun(self, key: str) -> bool:
        return (self._root / (key + UNFINISHED)).is_dir()

    def obtain(self, key: str, make: Callable[[Path], None]) -> Path:
        """The finished entry, made where there is none.

        Args:
            make: writes the entry's files into a folder, in which an interrupted earlier call may have left some.

        Raises:
            DiskFull: no space; what was finished before is unharmed, and the call can be made again.
        """
        found = self.find(key)
        if found:
            return found
        unfinished, finished = self._root / (key + UNFINISHED), self._root / key
        with disk_full_said():
            self._root.mkdir(parents=True, exist_ok=True)
            with self._alone(key):
                if not finished.is_dir():
                    unfinished.mkdir(exist_ok=True)
                    make(unfinished)
                    unfinished.rename(finished)
        return finished

    @contextmanager
    def _alone(self, key: str) -> Iterator[None]:
        """One process at a time on one entry; a killed one holds nobody up."""
        path = self._root / (key + LOCK)
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
            path.unlink(missing_ok=True)


@contextmanager
def disk_full_said() -> Iterator[None]:
    """Turns the system's error into one that says what to do.

    Raises:
        DiskFull: in its place.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                "there is no space left for the results of steps; free some, or choose another --cache, and start "
                "again: finished steps are kept",
                detail=str(error),
            ) from error
        raise


def digest(*parts: Any) -> str:
    """Of values that JSON can hold: 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """A file that is there whole or not at all."""
    unfinished = path.with_name(path.name + ".new")
    unfinished.write_bytes(content)
    os.replace(unfinished, path)  # noqa: PTH105  # the one that replaces on every system
