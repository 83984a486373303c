"""`lathe top` in a real terminal: keys, signals, colours, and a server that goes and comes back."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from shutil import which
from typing import Self

import pytest
from rich.console import Console

from lathe.cli.top import _live
from lathe.repository import Repository
from lathe.scrape import Scrape
from lathe.watch import Sight, Watch
from tests.conftest import RunningServer, start_server

TOP = (sys.executable, "-m", "lathe", "top", "--every", "0.2")


class Terminal:
    """A terminal of 80 × 24 and a command in it: `lathe top`, where nothing else is said.

    Attributes:
        modes: before the command.
    """

    def __init__(self, *arguments: str, command: Sequence[str] = TOP, **environment: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.modes = self.modes_now()
        own = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            [*command, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=own | {"TERM": "xterm-256color"} | environment,
        )
        os.close(theirs)
        self._new = b""

    def modes_now(self) -> list[object]:
        return termios.tcgetattr(self._ours)

    def wait_for(self, word: bytes, seconds: float = 20.0) -> bytes:
        """All that comes until a word has come, and not more than once."""
        end = time.monotonic() + seconds
        while word not in self._new:
            assert time.monotonic() < end, f"{word!r} did not come: {self._new[-2000:]!r}"
            if select.select([self._ours], [], [], 0.1)[0]:
                self._new += os.read(self._ours, 65_536)
        before, _, self._new = self._new.partition(word)
        return before + word

    def rest(self) -> bytes:
        """All that came after that, of a command that has ended."""
        with suppress(OSError):  # nobody has the other side open any more
            while read := os.read(self._ours, 65_536):
                self._new += read
        return self._new

    def press(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


ALTERNATE, BACK = b"\x1b[?1049h", b"\x1b[?1049l"
"""To the alternate screen, and back from it."""
HIDE, SHOW = b"\x1b[?25l", b"\x1b[?25h"
"""The cursor."""
GREEN = b"\x1b[32m"
CTRL_Z = b"\x1a"


def is_left(written: bytes) -> bool:
    """Whether a terminal on which this was written shows its cursor, and its own screen."""
    return written.rfind(SHOW) > written.rfind(HIDE) and written.rfind(BACK) > written.rfind(ALTERNATE)


@pytest.mark.parametrize("how", ["q", "SIGINT", "SIGTERM", "SIGINT SIGTERM"])
def test_the_live_view_leaves_the_terminal_as_it_was(shared_server: RunningServer, how: str) -> None:
    with Terminal("--http", shared_server.http) as terminal:
        written = terminal.wait_for(b"spots/a/1")
        assert not is_left(written)
        assert terminal.modes_now() != terminal.modes
        if how == "q":
            terminal.press(b"q")
        else:
            for name in how.split():
                terminal.process.send_signal(getattr(signal, name))
        written += terminal.wait_for(BACK)
        assert terminal.process.wait(10) == 0
        assert is_left(written + terminal.rest())
        assert b"Traceback" not in terminal.rest()
        assert terminal.modes_now() == terminal.modes


def test_a_signal_while_the_terminal_is_being_left_does_not_keep_it_from_that(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=80, height=24, _environ={"TERM": "xterm-256color"})
    show_cursor = console.show_cursor

    is_entered = threading.Event()

    def signalled(show: bool = True) -> bool:
        if show:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            is_entered.set()
        return show_cursor(show)

    def seen() -> Iterator[tuple[Sight, ...]]:
        is_entered.wait()
        os.kill(os.getpid(), signal.SIGINT)
        yield (Sight("h:1"),)

    monkeypatch.setattr(console, "show_cursor", signalled)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTSTP)]
    with suppress(SystemExit):
        _live(console, [Watch("h:1", lambda: Scrape(()))], seen(), 1.0)
    assert is_left(written.getvalue().encode())
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTSTP)] == handlers


@pytest.mark.skipif(not which("setsid"), reason="needs setsid of util-linux for a shell with job control")
def test_ctrl_z_gives_the_terminal_back_to_the_shell_until_it_is_taken_up_again(shared_server: RunningServer) -> None:
    top = shlex.join([*TOP, "--http", shared_server.http]).encode()
    with Terminal(command=["setsid", "--ctty", "sh", "-i"], PS1="ready> ", ENV="") as shell:
        shell.wait_for(b"ready> ")
        modes = shell.modes_now()
        shell.press(top + b"\n")
        for _ in range(2):  # it can be stopped again
            written = shell.wait_for(b"spots/a/1")
            assert not is_left(written)
            assert shell.modes_now() != modes
            shell.press(CTRL_Z + CTRL_Z)
            written += shell.wait_for(b"Stopped")
            assert is_left(written + shell.wait_for(b"ready> "))
            assert shell.modes_now() == modes
            shell.press(b"bg\n")  # it waits for the terminal, and takes it from nobody
            written = shell.wait_for(b"ready> ")
            shell.press(b"echo 4$((1 + 1)); jobs\n")
            written += shell.wait_for(b"42")
            written += shell.wait_for(b"Running") + shell.wait_for(b"ready> ")
            assert ALTERNATE not in written
            assert shell.modes_now() == modes
            shell.press(b"fg\n")
            shell.wait_for(ALTERNATE)
        shell.wait_for(b"spots/a/1")
        shell.press(b"q")
        assert SHOW in shell.wait_for(BACK)
        shell.press(b"echo ended $?\n")
        shell.wait_for(b"ended 0")
        shell.wait_for(b"ready> ")
        assert shell.modes_now() == modes


@pytest.mark.skipif(not which("setsid"), reason="needs setsid of util-linux for a shell with job control")
@pytest.mark.parametrize("continued", ["fg", "bg; wait %1"])
def test_who_is_ended_while_it_is_stopped_ends(shared_server: RunningServer, continued: str) -> None:
    top = shlex.join([*TOP, "--http", shared_server.http]).encode()
    with Terminal(command=["setsid", "--ctty", "sh", "-i"], PS1="ready> ", ENV="") as shell:
        shell.wait_for(b"ready> ")
        shell.press(top + b"\n")
        written = shell.wait_for(b"spots/a/1")
        shell.press(CTRL_Z)
        written += shell.wait_for(b"ready> ")
        modes = shell.modes_now()
        shell.press(f"kill %1; {continued}; echo ended $?\n".encode())
        assert is_left(written + shell.wait_for(b"ended 0"))
        shell.wait_for(b"ready> ")
        assert shell.modes_now() == modes


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
