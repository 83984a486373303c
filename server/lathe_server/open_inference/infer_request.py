"""Requests whose large tensors stay where they came in: protobuf would copy each of them three times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from lathe.errors import InvalidInput
from lathe_server.open_inference import open_inference_pb2 as pb
from lathe_server.protobuf import fields

LARGE_BYTES = 65_536
"""Of a message; below it protobuf is faster."""
HUGE_BYTES = 4 << 20
MAX_FIELDS = 1024
"""Of a large message, on its highest level: each is looked at, and holds up everything else."""
_RAW = pb.ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number


@dataclass(frozen=True, slots=True)
class InferRequest:
    """Attributes:
    message: without the raw contents where these are large.
    raw: contents of the inputs, in their order.
    size: in bytes.
    """

    message: pb.ModelInferRequest
    raw: Sequence[bytes | memoryview]
    size: int

    @property
    def takes_time(self) -> bool:
        """Its elements have to be read one by one and are many, or even a copy of it takes milliseconds."""
        if self.size <= LARGE_BYTES:
            return False
        is_listed = not self.raw or any(one.datatype == "BYTES" for one in self.message.inputs)
        return is_listed or self.size > HUGE_BYTES

    @staticmethod
    def parse(content: bytes) -> InferRequest:
        """
        Raises:
            DecodeError: it is no such message.
            InvalidInput: it has too many fields.
        """
        if len(content) <= LARGE_BYTES:
            message = pb.ModelInferRequest.FromString(content)
            return InferRequest(message, message.raw_input_contents, len(content))
        rest, raw = without_field(content, _RAW)
        message = pb.ModelInferRequest.FromString(rest)
        return InferRequest(message, raw, len(content))


def without_field(content: bytes, number: int) -> tuple[bytes, list[memoryview]]:
    """A message without a field of bytes, and the values of that; these share the message's memory.

    >>> message = pb.ModelInferRequest(id="7", raw_input_contents=[b"ab", b"c"])
    >>> rest, values = without_field(message.SerializeToString(), 7)
    >>> pb.ModelInferRequest.FromString(rest).id, [bytes(value) for value in values]
    ('7', [b'ab', b'c'])

    Raises:
        DecodeError: it is no message.
        InvalidInput: it has too many fields.
    """
    view = memoryview(content)
    kept: list[memoryview] = []
    values: list[memoryview] = []
    try:
        for place, field in enumerate(fields(view)):
            if place == MAX_FIELDS:
                raise InvalidInput(f"a request of more than {LARGE_BYTES} bytes has at most {MAX_FIELDS} fields")
            if field.number == number and isinstance(field.value, memoryview):
                values.append(field.value)
            else:
                kept.append(view[field.begin : field.end])
    except (ValueError, IndexError) as error:
        raise DecodeError("it is no message") from error
    return b"".join(kept), values
