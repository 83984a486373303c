"""Runs what a container would run on this machine: the same words and variables, but for addresses and paths."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.calls import SECONDS, until

STOP_SECONDS = 30


def rewritten(words: Sequence[str], places: Mapping[str, str]) -> list[str]:
    """Each word with the longest place that it begins with, or that stands behind its `=`, put for another.

    >>> rewritten(["--file=/etc/a.yml", "/models", "lathe:8500"], {"/etc": "/tmp/x", "/models": "/tmp/m"})
    ['--file=/tmp/x/a.yml', '/tmp/m', 'lathe:8500']
    """
    changed = []
    for word in words:
        flag, mark, value = word.rpartition("=")
        for place in sorted(places, key=len, reverse=True):
            if value == place or value.startswith(f"{place}/"):
                value = places[place] + value[len(place) :]
                break
        changed.append(flag + mark + value)
    return changed


def here(words: Sequence[str]) -> list[str]:
    """The image's `lathe` is this Python's. There are no capabilities, as in a container: not even root may write what
    is read-only."""
    if words[0] == "unshare":
        return list(words)
    known = [sys.executable, "-m", "lathe", *words[1:]] if words[0] == "lathe" else list(words)
    bare = ["--bounding-set=-all"] if os.geteuid() == 0 else []
    return ["setpriv", "--no-new-privs", *bare, *known]


_READ_ONLY = """
mount --bind "$0" "$0"
mount -t tmpfs tmpfs "$1"
mount -o remount,bind,ro /
if touch /lathe-was-here 2>/dev/null; then echo "the root can be written"; exit 1; fi
shift
exec "$@"
"""


def on_read_only_root(words: Sequence[str], volume: Path, memory: Path) -> list[str]:
    """In a name space where nothing may be written but a volume and a file system in memory."""
    return ["unshare", "--mount", "sh", "-ec", _READ_ONLY, str(volume), str(memory), *here(words)]


def surroundings(own: Mapping[str, str]) -> dict[str, str]:
    """What a container would have: nobody else's settings."""
    return {key: value for key, value in os.environ.items() if not key.startswith("LATHE_")} | dict(own)


@contextmanager
def running(
    words: Sequence[str], environment: Mapping[str, str], folder: Path, name: str
) -> Iterator[subprocess.Popen[str]]:
    """A process that writes NAME.log into a folder, and is ended at the end."""
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            here(words),
            env=surroundings(environment),
            cwd=folder,
            stdout=log,
            stderr=log,
            text=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(STOP_SECONDS)


@dataclass(frozen=True)
class Serving:
    """A server and its log."""

    process: subprocess.Popen[str]
    grpc: str
    http: str
    control: str
    log: Path

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)


@contextmanager
def serving(words: Sequence[str], environment: Mapping[str, str], folder: Path) -> Iterator[Serving]:
    """A server on free ports of the loopback interface, from when it takes frames."""
    on_free_ports = [
        "127.0.0.1:0" if before in ("--grpc", "--http", "--control") else word
        for before, word in zip(("", *words), words, strict=False)
    ]
    log = folder / "lathe.log"
    with running(on_free_ports, environment, folder, "lathe") as process:

        def ready() -> list[str]:
            assert process.poll() is None, log.read_text()
            return [line for line in log.read_text().splitlines() if line.startswith("ready ")]

        until(ready, 3 * SECONDS)
        addresses = dict(word.split("=", 1) for word in ready()[0].split()[1:])
        yield Serving(process, addresses["grpc"], addresses["http"], addresses["control"], log)
