"""Folders that a demo makes anew on every run, and never anybody else's; and an end in which they are cleared away."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lathe.errors import InvalidInput

MARKER = ".made-by-lathe-demo"


def fresh_folder(path: Path) -> Path:
    """An empty folder at `path`; what an earlier run left there is removed.

    Raises:
        InvalidInput: there is a folder that no demo has made.
    """
    if path.exists() and not (path / MARKER).is_file():
        raise InvalidInput(f"{path} exists and is not the demo's; choose another --output")
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    (path / MARKER).touch()
    return path


@contextmanager
def passing_folder(path: Path) -> Iterator[Path]:
    """As `fresh_folder`; removed in the end, whatever happens."""
    folder = fresh_folder(path)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def orderly_end() -> Iterator[None]:
    """SIGTERM, and the end of the terminal, end the command as Ctrl-C does, with all that is to be done at its end.

    What is ignored, as SIGHUP is by `nohup`, stays ignored. For the main thread.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
