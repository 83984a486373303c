"""Tensors as the protocol carries them, and back: as raw bytes, or element by element in typed fields."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lathe.errors import InvalidInput
from lathe_server.tensors import DTYPES

MAX_RANK = 16
MAX_ELEMENTS = 1 << 40
MAX_LISTED = 1 << 20
"""Elements that come one by one; each costs more than its bytes."""
_TYPES: dict[str, set[type]] = {"f": {float, int}, "i": {int}, "u": {int}, "b": {bool}}
_LENGTH = struct.Struct("<I")  # before each element of BYTES

FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Which field of `InferTensorContents` has the elements of a datatype; FP16 travels raw alone."""


def size_of(name: str, datatype: str, shape: Sequence[int]) -> int:
    """Elements of a tensor, from what is said of it; nothing is allocated.

    Raises:
        InvalidInput: no such datatype, or no such shape.
    """
    name = name[:64]
    if datatype not in DTYPES:
        raise InvalidInput(f"the datatype of {name} is one of {', '.join(DTYPES)}")
    if len(shape) > MAX_RANK or any(side < 0 for side in shape):
        raise InvalidInput(f"the shape of {name} has at most {MAX_RANK} dimensions, none below 0")
    if math.prod(side for side in shape if side) > MAX_ELEMENTS:  # one of 0 makes an array of the others no smaller
        raise InvalidInput(f"the shape of {name} is larger than any message")
    return math.prod(shape)


def from_raw(name: str, datatype: str, shape: Sequence[int], content: bytes | memoryview) -> NDArray[Any]:
    """The tensor that raw bytes hold; it shares their memory where its elements lie there as a processor wants them.

    Raises:
        InvalidInput: the bytes are not what the datatype and the shape say.
    """
    size, name = size_of(name, datatype, shape), name[:64]
    if datatype == "BYTES":
        return _array(_split(name, content, size), shape)
    dtype = np.dtype(DTYPES[datatype])
    if len(content) != size * dtype.itemsize:
        raise InvalidInput(f"{name} has {len(content)} bytes; its shape and datatype need {size * dtype.itemsize}")
    if datatype == "BOOL" and np.frombuffer(content, np.uint8).max(initial=0) > 1:
        raise InvalidInput(f"{name} holds bytes that are neither 0 nor 1")
    value = np.frombuffer(content, dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(shape)
    if shape and value.flags.aligned:
        return value
    return value.copy()  # not every runtime takes a single number that cannot be written to


def from_elements(name: str, datatype: str, shape: Sequence[int], elements: Sequence[Any]) -> NDArray[Any]:
    """The tensor whose elements are listed, in row-major order.

    Raises:
        InvalidInput: there are more or fewer than the shape says, or one does not fit the datatype.
    """
    size, name = size_of(name, datatype, shape), name[:64]
    if len(elements) > MAX_LISTED:
        raise InvalidInput(f"{name} lists more than {MAX_LISTED} elements; so many come as raw bytes")
    if len(elements) != size:
        raise InvalidInput(f"{name} has {len(elements)} elements; its shape needs {size}")
    if datatype == "BYTES":
        return _array(list(elements), shape)
    dtype = np.dtype(DTYPES[datatype])
    fits = _TYPES[dtype.kind].issuperset(map(type, elements))
    if fits and dtype.kind in "iu" and size:
        bounds = np.iinfo(dtype)
        fits = bounds.min <= min(elements) and max(elements) <= bounds.max
    if not fits:
        raise InvalidInput(f"{name} holds elements that are no {datatype}")
    try:
        return np.array(elements, dtype).reshape(shape)
    except OverflowError as error:  # a whole number that is larger than any float
        raise InvalidInput(f"{name} holds elements that are no {datatype}") from error


def to_raw(value: NDArray[Any]) -> bytes:
    """Little-endian elements in row-major order; before each of BYTES its length."""
    if value.dtype == object:
        return b"".join(_LENGTH.pack(len(one)) + one for one in to_elements(value))
    return np.ascontiguousarray(value, value.dtype.newbyteorder("<")).tobytes()


def to_elements(value: NDArray[Any]) -> list[Any]:
    """In row-major order; texts as UTF-8."""
    if value.dtype == object:
        return [one.encode() if isinstance(one, str) else bytes(one) for one in value.ravel()]
    elements: list[Any] = value.ravel().tolist()
    return elements


def _split(name: str, content: bytes | memoryview, size: int) -> list[bytes]:
    if size > MAX_LISTED:
        raise InvalidInput(f"{name} has more than {MAX_LISTED} elements of BYTES")
    if len(content) < size * _LENGTH.size:
        raise InvalidInput(f"{name} has {len(content)} bytes; {size} elements of BYTES need more")
    elements, place = [], 0
    for _ in range(size):
        if place + _LENGTH.size > len(content):
            raise InvalidInput(f"the elements of {name} go beyond its bytes")
        (length,) = _LENGTH.unpack_from(content, place)
        place += _LENGTH.size + length
        elements.append(bytes(content[place - length : place]))
    if place != len(content):
        raise InvalidInput(f"the elements of {name} are not its bytes")
    return elements


def _array(elements: list[Any], shape: Sequence[int]) -> NDArray[Any]:
    value = np.empty(len(elements), object)
    value[:] = elements
    return value.reshape(shape)
