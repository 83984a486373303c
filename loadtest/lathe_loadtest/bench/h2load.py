"""Unary calls by h2load (Debian: nghttp2-client), whose own part of a call is some tens of microseconds."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from lathe.errors import Refused

H2LOAD = "h2load"
GRPC_HEADERS = ("content-type: application/grpc", "te: trailers")


@dataclass(frozen=True)
class Calls:
    """Attributes:
    count: answered with HTTP status 200; a gRPC error, which hides behind it, must be looked for elsewhere.
    failed: the others.
    median_ms: of the answered.
    """

    count: int
    failed: int
    per_second: float
    median_ms: float


def grpc_message(content: bytes) -> bytes:
    """A serialized message as the body of an HTTP/2 request: not compressed, and its length before it.

    >>> grpc_message(b"abc")
    b'\\x00\\x00\\x00\\x00\\x03abc'
    """
    return struct.pack(">BI", 0, len(content)) + content


def drive(
    url: str,
    body: bytes,
    folder: Path,
    *,
    seconds: float,
    clients: int = 1,
    headers: Sequence[str] = GRPC_HEADERS,
    http1: bool = False,
) -> Calls:
    """Sends the same request over and over, closed loop.

    Args:
        folder: where h2load reads the body and writes what became of each call.
        clients: connections, each with one call at a time.

    Raises:
        Refused: it reaches nobody.
    """
    request, log = folder / "request", folder / "calls.tsv"
    request.write_bytes(body)
    log.unlink(missing_ok=True)
    command = [H2LOAD, url, "--data", str(request), "--log-file", str(log), "--clients", str(clients)]
    command += ["--duration", f"{seconds * 1e3:.0f}ms", "--warm-up-time", "300ms"]
    command += [word for header in headers for word in ("--header", header)]
    done = subprocess.run([*command, *(["--h1"] if http1 else [])], capture_output=True, text=True, check=False)
    if done.returncode or not log.exists():
        raise Refused(f"h2load reached nobody at {url}")
    return _read(log.read_text("ascii"), seconds)


def _read(log: str, seconds: float) -> Calls:
    """
    >>> _read("1000\\t200\\t5000\\n7000\\t200\\t6000\\n", 2.0)
    Calls(count=2, failed=0, per_second=1.0, median_ms=5.5)
    """
    rows = [line.split("\t") for line in log.splitlines()]
    taken = [int(row[2]) / 1e3 for row in rows if row[1] == "200"]
    if not taken:
        raise Refused("no call was answered")
    return Calls(len(taken), len(rows) - len(taken), len(taken) / seconds, median(taken))
