"""This server's journal, written on a thread of its own: a slow disk holds up no frame."""

from __future__ import annotations

import logging
import queue
import threading
from itertools import chain
from pathlib import Path

from lathe.journal import append, events, full_file, journal_file, suspects
from lathe.v1 import control_pb2

log = logging.getLogger(__name__)

MOST_UNWRITTEN = 1000
"""Events that wait for a disk; more are not written down."""
FLUSH_SECONDS = 1.0
READ_BYTES = 65_536
"""Of each file, at the start, which has to be quick; they hold some hundreds of events."""


class Journal:
    """Attributes:
    suspects: variants that earlier runs have not brought into memory, and may have died of.

    Args:
        server: its name.
    """

    def __init__(self, root: Path, server: str) -> None:
        self._file = journal_file(root, server)
        newest = (events(file, READ_BYTES) for file in (full_file(self._file), self._file))
        self.suspects = suspects(chain.from_iterable(newest))
        self._unwritten: queue.Queue[control_pb2.Event | threading.Event] = queue.Queue(MOST_UNWRITTEN)
        self._is_broken = False
        threading.Thread(target=self._run, name="lathe-journal", daemon=True).start()

    def write(self, event: control_pb2.Event) -> None:
        """Returns at once; what cannot be written down is passed over, and said once in the log."""
        try:
            self._unwritten.put_nowait(event)
        except queue.Full:
            self._complain("the disk is too slow")

    def flush(self) -> None:
        """Waits a while until what was written so far is in the file; not for the event loop."""
        done = threading.Event()
        try:
            self._unwritten.put_nowait(done)
        except queue.Full:
            return
        done.wait(FLUSH_SECONDS)

    def _run(self) -> None:
        while True:
            one = self._unwritten.get()
            if isinstance(one, threading.Event):
                one.set()
                continue
            try:
                append(self._file, one)
                self._is_broken = False
            except OSError as error:
                self._complain(str(error))

    def _complain(self, why: str) -> None:
        if not self._is_broken:
            log.warning("events are not written down: %s", why)
        self._is_broken = True
