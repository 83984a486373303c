"""One enrolled template, and what of it goes into its box."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_LENGTH = struct.Struct("<H")


@dataclass(frozen=True, slots=True)
class Record:
    """One enrolled template.

    Attributes:
        id: 32 hex digits, at random.
        subject: as its caller names the person.
        space: embedding space of the vector.
        enrolled_at: Unix time in whole seconds.
        vector: D, float32, of length 1.
    """

    id: str
    subject: str = field(repr=False)  # so that it strays into no log
    space: str
    enrolled_at: int
    vector: NDArray[np.float32] = field(repr=False)

    def packed(self) -> bytes:
        """Subject and vector; the rest stands beside the box."""
        name = self.subject.encode()
        return _LENGTH.pack(len(name)) + name + self.vector.astype("<f4").tobytes()


def unpacked(content: bytes, name: str, space: str, enrolled_at: int) -> Record:
    """The record of an id, space and time.

    Args:
        content: as `packed`.

    Raises:
        struct.error, ValueError: it is something else.
    """
    (length,) = _LENGTH.unpack_from(content)
    subject, vector = content[_LENGTH.size :][:length], content[_LENGTH.size + length :]
    return Record(name, subject.decode(), space, enrolled_at, np.frombuffer(vector, "<f4"))
