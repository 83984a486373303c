"""What each server has written down of its models: an event a line, for those who ask afterwards.

    <repository>/.journal/<server>.jsonl        and .jsonl.1, the one before, which was full

A server that is killed may leave half a line behind; it is passed over.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, unquote

from google.protobuf import json_format

from lathe.repository import VariantRef
from lathe.v1 import control_pb2

FOLDER, SUFFIX, FULL_SUFFIX = ".journal", ".jsonl", ".jsonl.1"
FULL_BYTES = 1 << 20


def journal_file(root: Path, server: str) -> Path:
    """Where the server of a name writes."""
    return root / FOLDER / f"{quote(server, safe='')}{SUFFIX}"


def append(file: Path, event: control_pb2.Event) -> None:
    """Writes an event down, a line of its own, whoever else writes there; a full file makes room for a new one.

    Raises:
        OSError: the disk is full, or the folder may not be written.
    """
    line = json_format.MessageToJson(event, preserving_proto_field_name=True, indent=None).encode() + b"\n"
    file.parent.mkdir(exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":  # somebody was killed, or had no room, in mid-line
            line = b"\n" + line
        if os.write(descriptor, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if size > FULL_BYTES:
            with suppress(FileNotFoundError):  # another writer has just done it
                if os.path.samestat(os.fstat(descriptor), file.stat()):
                    file.replace(full_file(file))
    finally:
        os.close(descriptor)


def events(file: Path, newest_bytes: int = 0) -> Iterator[control_pb2.Event]:
    """The oldest first; none where there is no such file.

    Args:
        newest_bytes: reads no more than the file's last ones; 0 reads all.
    """
    lines: list[bytes] = []
    with suppress(OSError), file.open("rb") as opened:
        if newest_bytes:
            opened.seek(max(0, file.stat().st_size - newest_bytes))
        lines = opened.read().splitlines()
    for line in lines:
        with suppress(json_format.ParseError, UnicodeDecodeError):
            yield json_format.Parse(line, control_pb2.Event(), ignore_unknown_fields=True)


def full_file(file: Path) -> Path:
    """The one before, which was full."""
    return file.with_name(file.name.removesuffix(SUFFIX) + FULL_SUFFIX)


def all_events(root: Path) -> list[tuple[str, control_pb2.Event]]:
    """Of all servers of a repository, with their names, the oldest first."""
    found = []
    for file in (root / FOLDER).glob(f"*{SUFFIX}*"):
        server = unquote(file.name.removesuffix(FULL_SUFFIX).removesuffix(SUFFIX))
        found += [(server, event) for event in events(file)]
    return sorted(found, key=lambda one: one[1].at.ToNanoseconds())


def suspects(told: Iterable[control_pb2.Event]) -> set[VariantRef]:
    """Variants that were not in memory the last time that somebody began to load them: they were refused, or ended the
    server."""
    began: set[VariantRef] = set()
    for event in told:
        ref = VariantRef(event.model, event.variant.variant, event.variant.version)
        if event.kind == control_pb2.EVENT_KIND_LOADING:
            began.add(ref)
        elif event.kind == control_pb2.EVENT_KIND_LOADED:
            began.discard(ref)
    return began


def line(event: control_pb2.Event) -> str:
    """An event for people: when, which model, what."""
    kind = control_pb2.EventKind.Name(event.kind).removeprefix("EVENT_KIND_").lower().replace("_", " ")
    revision = f" (revision {event.revision})" if event.revision else ""
    return f"{event.at.ToDatetime():%Y-%m-%d %H:%M:%S} {event.model}: {kind}{revision}: {event.text}"
