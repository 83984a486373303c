"""`lathe top` in a real terminal: keys, signals, colours, and a server that goes and comes back."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from lathe.repository import Repository
from tests.conftest import RunningServer, start_server


class Terminal:
    """`lathe top` in a terminal of 80 × 24."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        own = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lathe", "top", "--every", "0.2", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=own | {"TERM": "xterm-256color"} | environment,
        )
        os.close(theirs)
        self._new = b""

    def wait_for(self, word: bytes, seconds: float = 20.0) -> bytes:
        """All that comes until a word has come, and not more than once."""
        end = time.monotonic() + seconds
        while word not in self._new:
            assert time.monotonic() < end, f"{word!r} did not come: {self._new[-2000:]!r}"
            if select.select([self._ours], [], [], 0.1)[0]:
                self._new += os.read(self._ours, 65_536)
        before, _, self._new = self._new.partition(word)
        return before + word

    def press(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


ALTERNATE, BACK = b"\x1b[?1049h", b"\x1b[?1049l"
"""To the alternate screen, and back from it."""
GREEN = b"\x1b[32m"


@pytest.mark.parametrize("how", ["q", "SIGINT", "SIGTERM"])
def test_the_live_view_leaves_the_terminal_as_it_was(shared_server: RunningServer, how: str) -> None:
    with Terminal("--http", shared_server.http) as terminal:
        assert ALTERNATE in terminal.wait_for(b"spots/a/1")
        if how == "q":
            terminal.press(b"q")
        else:
            terminal.process.send_signal(getattr(signal, how))
        terminal.wait_for(BACK)
        assert terminal.process.wait(10) == 0


def test_a_server_that_goes_while_it_is_watched_is_looked_for_until_it_is_back(
    repository: Repository, tmp_path: Path
) -> None:
    with start_server(repository.root, tmp_path / "log") as server, Terminal("--http", server.http) as terminal:
        terminal.wait_for(b"spots/a/1")
        server.stop()
        terminal.wait_for(b"still trying")
        with start_server(repository.root, tmp_path / "log2", "--http", server.http):
            terminal.wait_for(b"spots/a/1")


def test_who_wants_no_colours_gets_none(shared_server: RunningServer) -> None:
    with Terminal("--http", shared_server.http) as terminal:
        terminal.wait_for(b"spots/a/1")
        assert GREEN in terminal.wait_for(b"ready")
    with Terminal("--http", shared_server.http, NO_COLOR="1") as terminal:
        terminal.wait_for(b"spots/a/1")
        assert GREEN not in terminal.wait_for(b"ready")
