"""Protobuf's encoding, walked without building a message: nothing is copied."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
_MAX_SHIFT = 63


class Field(NamedTuple):
    """Attributes:
    value: a whole number, or bytes; of numbers of fixed length, which nobody asks for, 0.
    begin, end: where it lies in the message, with its key.
    """

    number: int
    value: int | memoryview
    begin: int
    end: int


def fields(message: memoryview) -> Iterator[Field]:
    """In order; groups, which nobody uses any more, are none.

    >>> [(field.number, field.end) for field in fields(memoryview(b"\\x08\\x2a\\x12\\x02hi"))]
    [(1, 2), (2, 6)]

    Raises:
        ValueError, IndexError: it is no whole message.
    """
    at = 0
    while at < len(message):
        begin = at
        key, at = _varint(message, at)
        kind = key & 7
        value: int | memoryview = 0
        if kind == _VARINT:
            value, at = _varint(message, at)
        elif kind == _BYTES:
            length, at = _varint(message, at)
            value = message[at : at + length]
            at += length
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            at += 8 if kind == _EIGHT_BYTES else 4
        else:
            raise ValueError("a field of a kind that is not in use")
        if at > len(message):
            raise ValueError("a field goes beyond the message")
        yield Field(key >> 3, value, begin, at)


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > _MAX_SHIFT:
            raise ValueError("a number without an end")
