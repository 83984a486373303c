"""A `lathe serve` of one's own: a child process on free ports of the loopback interface."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from lathe.errors import Unavailable

if TYPE_CHECKING:
    from lathe.client import AsyncClient

START_SECONDS = 30.0
STOP_SECONDS = 30.0


class ServerProcess:
    """Starts a server and waits until it takes frames; a context that ends it.

    Args:
        variables: `LATHE_…`, of its environment: what must lie in no file, and in no list of processes, such as a key.

    Attributes:
        grpc, http, control: its addresses.
        ready_seconds: from the start of the process until it takes frames.

    Raises:
        Unavailable: it did not start; the message is the last line of its log.
    """

    def __init__(
        self,
        repository: Path | str,
        log: Path,
        flags: Sequence[str] = (),
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        command = [sys.executable, "-m", "lathe", "serve", str(repository)]
        for port in ("--grpc", "--http", "--control"):
            if port not in flags:
                command += [port, "127.0.0.1:0"]
        # Settings of the surroundings are another server's.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("LATHE_")} | dict(
            variables
        )
        began = time.monotonic()
        with log.open("w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(
                [*command, *flags], stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
            )
        self.log = log
        try:
            addresses = self._wait_until_ready()
        except BaseException:  # Ctrl-C too: nobody else knows of the process yet
            self.close()
            raise
        self.ready_seconds = time.monotonic() - began
        self.grpc, self.http, self.control = addresses["grpc"], addresses["http"], addresses["control"]

    def _wait_until_ready(self) -> dict[str, str]:
        assert self.process.stdout
        watchdog = threading.Timer(START_SECONDS, self.process.kill)
        watchdog.start()
        try:
            line = self.process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line.startswith("ready "):
            self.process.kill()
            self.process.wait()  # its log is whole
            lines = self.log.read_text("utf-8").strip().splitlines() or ["it said nothing"]
            raise Unavailable(f"the server did not start: {lines[-1]}")
        return dict(word.split("=", 1) for word in line.split()[1:])

    def async_client(self) -> AsyncClient:
        """A client of it, whatever the environment says of other servers."""
        from lathe.client import AsyncClient
        from lathe.connection import Connection

        return AsyncClient(self.grpc, self.control, Connection())

    def stop(self) -> int:
        """SIGTERM; returns the exit code once it has drained."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)

    def close(self) -> None:
        """Ends it at once where it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
