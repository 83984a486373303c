"""The messages of a load test, by hand: around a ready picture goes a head of a few bytes, and of an answer only what
counts is read.

One class a protocol. `request` gives the parts of a frame's message; the picture among them is not copied.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Protocol

import numpy as np

from lathe.v1 import inference_pb2
from lathe_loadtest.http2_frames import CONNECTION_LOST
from lathe_loadtest.result import ANSWERED, DISCONNECTED, OUTCOMES
from lathe_loadtest.scenario import Cameras, Scenario, Tensor

_NAMES: dict[int, str] = {
    number: name.removeprefix("OUTCOME_").lower() for name, number in inference_pb2.Outcome.items() if number
}
_OF_STATUS = {
    3: "rejected",
    4: "dropped_deadline",
    5: "rejected",
    1: "dropped_cancelled",
    8: "dropped_overloaded",
    14: "dropped_draining",
}
"""What became of a unary call's frame by its status."""


class Messages(Protocol):
    path: str
    is_stream: bool

    @property
    def opening(self) -> bytes | None:
        """A stream's first message."""

    def request(self, index: int, capture_unix_ns: int, picture: bytes) -> Sequence[bytes]: ...

    def answer(self, message: bytes) -> tuple[int, str, str]:
        """Index, outcome and variant; the index is -1 where it is the call's only one.

        Raises:
            ValueError: it is no such message.
        """


def messages_of(scenario: Scenario, cameras: Cameras, name: str) -> Messages:
    """
    Args:
        name: of the camera.
    """
    if scenario.protocol == "stream":
        # The server draws a stream's variant by its name: another seed is another draw.
        return StreamMessages(scenario.model, cameras, f"{name}.{scenario.seed}")
    if scenario.protocol == "unary":
        return UnaryMessages(scenario.model, cameras)
    return TensorMessages(scenario, cameras)


class StreamMessages:
    path = "/lathe.v1.InferenceService/DetectStream"
    is_stream = True

    def __init__(self, model: str, cameras: Cameras, name: str) -> None:
        config = inference_pb2.StreamConfig(
            model=model,
            stream_id=name,
            variant=cameras.variant,
            max_age_seconds=cameras.max_age_seconds,
            priority=_priority(cameras),
        )
        self.opening: bytes | None = inference_pb2.DetectStreamRequest(config=config).SerializeToString()

    def request(self, index: int, capture_unix_ns: int, picture: bytes) -> Sequence[bytes]:
        head = _frame_head(index, capture_unix_ns, picture)
        return b"\x12" + varint(len(head) + len(picture)) + head, picture

    def answer(self, message: bytes) -> tuple[int, str, str]:
        for number, value in fields(message):
            if number == 1 and isinstance(value, bytes):
                return _result(value)
        return _result(b"")


class UnaryMessages:
    path = "/lathe.v1.InferenceService/Detect"
    is_stream = False
    opening: bytes | None = None

    def __init__(self, model: str, cameras: Cameras) -> None:
        request = inference_pb2.DetectRequest(model=model, variant=cameras.variant, priority=_priority(cameras))
        self._rest = request.SerializeToString()

    def request(self, index: int, capture_unix_ns: int, picture: bytes) -> Sequence[bytes]:
        head = _frame_head(index, capture_unix_ns, picture)
        return self._rest + b"\x1a" + varint(len(head) + len(picture)) + head, picture

    def answer(self, message: bytes) -> tuple[int, str, str]:
        for number, value in fields(message):
            if number == 1 and isinstance(value, bytes):
                _, outcome, variant = _result(value)
                return -1, outcome, variant
        raise ValueError("an answer without a result")


class TensorMessages:
    """Of the Open Inference Protocol: the camera's pictures as the input `image`, or other tensors that are named."""

    path = "/inference.GRPCInferenceService/ModelInfer"
    is_stream = False
    opening: bytes | None = None

    def __init__(self, scenario: Scenario, cameras: Cameras) -> None:
        name = f"{scenario.model}/{cameras.variant}" if cameras.variant else scenario.model
        self._name = _field(1, name.encode())
        self._inputs = b"".join(_field(5, _described(tensor)) for tensor in scenario.tensors)
        self._contents = [content(tensor, scenario.seed) for tensor in scenario.tensors]
        self._image = _field(5, _described(Tensor("image", "BYTES", (1,))))

    def request(self, index: int, capture_unix_ns: int, picture: bytes) -> Sequence[bytes]:
        if not self._contents:
            head = b"\x3a" + varint(len(picture) + 4) + struct.pack("<I", len(picture))
            return self._name + self._image + head, picture
        parts = [self._name + self._inputs]
        for one in self._contents:
            parts += [b"\x3a" + varint(len(one)), one]
        return parts

    def answer(self, message: bytes) -> tuple[int, str, str]:
        for number, value in fields(message):
            if number == 4 and isinstance(value, bytes):  # a parameter
                entry = dict(fields(value))
                if entry.get(1) == b"variant" and isinstance(entry.get(2), bytes):
                    (variant,) = (one for one in dict(fields(entry[2])).values() if isinstance(one, bytes))  # type: ignore[arg-type]
                    return -1, ANSWERED, variant.decode()
        return -1, ANSWERED, ""


def outcome_of(code: int) -> str:
    """What became of the frame of a unary call that ended so, without an answer."""
    return DISCONNECTED if code == CONNECTION_LOST else _OF_STATUS.get(code, "failed")


@cache
def content(tensor: Tensor, seed: int) -> bytes:
    """Numbers from 0 to 1, or whole ones from 0 to 100; the same object for all cameras."""
    dtype, size = np.dtype(TYPES[tensor.datatype]), tuple(tensor.shape)
    random = np.random.default_rng(seed)
    values = random.random(size) if dtype.kind == "f" else random.integers(0, 2 if dtype.kind == "b" else 100, size)
    return np.asarray(values).astype(dtype).tobytes()


TYPES = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1", "INT16": "<i2",
    "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip


def varint(value: int) -> bytes:
    """
    >>> varint(1).hex(), varint(300).hex()
    ('01', 'ac02')
    """
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a message: a whole number, or bytes.

    Raises:
        ValueError: it is no message.

    >>> list(fields(b"\\x08\\x05\\x12\\x01a"))
    [(1, 5), (2, b'a')]
    """
    at, end = 0, len(message)
    try:
        while at < end:
            tag, at = _read_varint(message, at)
            kind = tag & 7
            if kind == 0:
                value, at = _read_varint(message, at)
                yield tag >> 3, value
                continue
            if kind == 2:
                size, at = _read_varint(message, at)
            elif kind in (1, 5):
                size = 8 if kind == 1 else 4
            else:
                raise ValueError("an unknown kind of field")
            if at + size > end:
                raise ValueError("a field is cut off")
            yield tag >> 3, message[at : at + size]
            at += size
    except IndexError as error:
        raise ValueError("a number is cut off") from error


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = message[at]
    if value < 0x80:
        return value, at + 1
    value &= 0x7F
    shift = 7
    while shift < 70:
        at += 1
        byte = message[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + 1
        shift += 7
    raise ValueError("a number is too long")


def _result(message: bytes) -> tuple[int, str, str]:
    """Of `Result`, whose fields come in order: detections are passed over, and stages and ages not looked at."""
    index, outcome, variant = 0, 0, ""
    for number, value in fields(message):
        if number == 1 and isinstance(value, int):
            index = value
        elif number == 2 and isinstance(value, int):
            outcome = value
        elif number == 5 and isinstance(value, bytes):
            named = dict(fields(value)).get(2, b"")
            variant = named.decode() if isinstance(named, bytes) else ""
            break
    if outcome not in _NAMES:
        raise ValueError("a result without an outcome")
    return index, _NAMES[outcome], variant


def _frame_head(index: int, capture_unix_ns: int, picture: bytes) -> bytes:
    """Of `Frame`, up to the bytes of the picture."""
    return b"\x08" + varint(index) + b"\x10" + varint(capture_unix_ns) + b"\x1a" + varint(len(picture))


def _field(number: int, value: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(value)) + value


def _described(tensor: Tensor) -> bytes:
    shape = b"".join(varint(side) for side in tensor.shape)
    return _field(1, tensor.name.encode()) + _field(2, tensor.datatype.encode()) + _field(3, shape)


def _priority(cameras: Cameras) -> inference_pb2.Priority.ValueType:
    return inference_pb2.PRIORITY_HIGH if cameras.priority == "high" else inference_pb2.PRIORITY_UNSPECIFIED


OUTCOME_NUMBERS = {name: number for number, name in enumerate(OUTCOMES, 1)}
"""As they are noted while a run goes on; 0 is none yet."""
