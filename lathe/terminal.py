"""What a view needs that fills the terminal: keys that need no Enter, and signals that never tear it down half-way."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Asked:
    """What signals ask for.

    Handlers set this and do nothing else: one that raises may do so while the terminal is being put back.

    Attributes:
        to_end: by Ctrl-C or SIGTERM.
        to_stop: by Ctrl-Z or SIGTSTP, until `fg` or SIGCONT.
    """

    to_end: bool = False
    to_stop: bool = False

    def stop(self) -> None:
        """Stops the process, which has left the terminal, as its shell expects. Returns when it is continued."""
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)
        self.to_stop = False  # Ctrl-Z twice stops once


@contextmanager
def signals() -> Iterator[Asked]:
    """Lends what signals ask for, until the handlers that there were are back. For the main thread."""
    asked = Asked()

    def end(*_: object) -> None:
        asked.to_end = True

    def stop(*_: object) -> None:
        asked.to_stop = True

    handlers = {signal.SIGINT: end, signal.SIGTERM: end}
    if signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL:  # whoever has no job control starts commands that ignore it
        handlers[signal.SIGTSTP] = stop
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def is_in_front() -> bool:
    """Whether the terminal is ours: in the background its shell has it, and whoever sets it then is stopped."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):  # no keyboard, or one that no shell shares out
        return True


@contextmanager
def keys() -> Iterator[Callable[[float], str]]:
    """What waits so long for a key; empty where none was pressed, or there is no keyboard.

    The keyboard's modes are as before in the end.
    """
    if not sys.stdin.isatty():
        yield _no_key
        return
    keyboard = sys.stdin.fileno()
    was = termios.tcgetattr(keyboard)
    try:
        tty.setcbreak(keyboard)
        yield lambda seconds: os.read(keyboard, 1).decode("latin-1") if _is_ready(keyboard, seconds) else ""
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, was)


def _no_key(seconds: float) -> str:
    time.sleep(seconds)
    return ""


def _is_ready(descriptor: int, seconds: float) -> bool:
    return bool(select.select([descriptor], [], [], seconds)[0])
