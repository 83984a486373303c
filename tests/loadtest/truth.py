"""Runs against the server whose service times are known."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lathe_loadtest.stage import Target

ROOT = Path(__file__).parents[2]


@dataclass
class Truth:
    """Attributes:
    service: seconds of each frame from its arrival to its answer, as the server has measured them; once it has ended.
    told: waits for its next line, see `tell_at`.
    age: from its capture, which is when it was to be sent.
    """

    address: str
    pid: int
    told: Callable[[], str]
    service: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    age: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    @property
    def target(self) -> Target:
        return Target(self.address, http="", control="")


@contextmanager
def truth_server(folder: Path, **settings: Any) -> Iterator[Truth]:
    """See `tests.loadtest.truth_server` for the settings."""
    file = folder / "truth.npy"
    command = [sys.executable, "-m", "tests.loadtest.truth_server", json.dumps(settings), str(file)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        found = Truth(f"127.0.0.1:{int(process.stdout.readline())}", process.pid, process.stdout.readline)
        yield found
        process.terminate()
        if process.wait(10) == 0:
            found.service, found.age = np.load(file).T
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()
