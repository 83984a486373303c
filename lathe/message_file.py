"""Messages as files of JSON, with the names of the proto file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

from lathe.errors import BadVariant, NotFound

M = TypeVar("M", bound=Message)


def read_message(path: Path, message: M, what: str) -> M:
    """Fills in a message.

    Args:
        what: it is, for the errors.

    Raises:
        NotFound: there is no such file.
        BadVariant: it cannot be read.
    """
    try:
        return json_format.Parse(path.read_bytes(), message)
    except FileNotFoundError as error:
        raise NotFound(f"there is no {what}") from error
    except (OSError, UnicodeDecodeError, json_format.ParseError) as error:
        raise BadVariant(f"{what} cannot be read", detail=f"{path}: {error}") from error


def as_json(message: Message) -> bytes:
    """What the file holds."""
    return json_format.MessageToJson(message, preserving_proto_field_name=True, indent=2).encode() + b"\n"


def write_durably(path: Path, content: bytes) -> None:
    """A new file that is on the disk when this returns.

    Raises:
        OSError: there is one, or the disk is full.
    """
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
