"""What a process holds, as the kernel counts it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Vitals:
    """Attributes:
    resident: bytes of memory.
    descriptors, threads: how many.
    children: processes that it has started and that are not gone.
    """

    resident: int
    descriptors: int
    threads: int
    children: int


def vitals(pid: int) -> Vitals:
    process = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text("ascii").splitlines())
    children = [task / "children" for task in (process / "task").iterdir()]
    return Vitals(
        int(status["VmRSS"].split()[0]) * 1024,
        len(list((process / "fd").iterdir())),
        int(status["Threads"]),
        sum(len(file.read_text("ascii").split()) for file in children if file.exists()),
    )
