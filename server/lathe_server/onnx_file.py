"""What an ONNX file holds, read without building it: a guard before any runtime touches it.

Walks the protobuf encoding itself (onnx.proto3, field numbers below), so that nothing is copied and
nothing outside the file is opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lathe.errors import BadVariant

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_DEPTH = 16


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Attributes:
    ir_version: of the file format.
    opsets: version by operator domain; the standard domain is "".
    domains: domains of the operators in use.
    has_external_data: some tensor's bytes lie in another file.
    """

    ir_version: int
    opsets: dict[str, int]
    domains: frozenset[str]
    has_external_data: bool


def inspect(content: bytes) -> ModelFacts:
    """Reads the facts of a model.

    Raises:
        BadVariant: not an ONNX model, or a truncated one.
    """
    facts = _Facts()
    try:
        _model(memoryview(content), facts)
    except (IndexError, ValueError) as error:
        raise BadVariant("the model file is not a whole ONNX file") from error
    if not facts.ir_version or not facts.opsets:
        raise BadVariant("the model file is not an ONNX file")
    return ModelFacts(facts.ir_version, facts.opsets, frozenset(facts.domains), facts.has_external_data)


def check_file(content: bytes) -> None:
    """
    Raises:
        BadVariant: not a whole ONNX model; one in several files; or one with operators of somebody's own.
    """
    facts = inspect(content)
    if facts.has_external_data:
        raise BadVariant("the model keeps tensors in other files; publish it in one file")
    foreign = facts.domains - {"", "ai.onnx", "com.microsoft"}
    if foreign:
        raise BadVariant("the model uses operators outside the standard and com.microsoft domains")


class _Facts:
    def __init__(self) -> None:
        self.ir_version = 0
        self.opsets: dict[str, int] = {}
        self.domains: set[str] = set()
        self.has_external_data = False


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field numbers with their values, in order; groups are not part of ONNX."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield key >> 3, value
        elif kind == _BYTES:
            length, at = _varint(message, at)
            if at + length > len(message):
                raise ValueError
            yield key >> 3, message[at : at + length]
            at += length
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
            if at > len(message):
                raise ValueError
        else:
            raise ValueError


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError


def _model(message: memoryview, facts: _Facts) -> None:
    for field, value in _fields(message):
        if field == 1 and isinstance(value, int):
            facts.ir_version = value
        elif isinstance(value, memoryview):
            if field == 8:
                _opset(value, facts)
            elif field == 7:
                _graph(value, facts, 0)
            elif field == 25:  # a function: its nodes lie in field 7, defaults of its attributes in field 11
                _nodes(value, 7, facts, 0)
                for part, default in _fields(value):
                    if part == 11 and isinstance(default, memoryview):
                        _attribute(default, facts, 0)


def _opset(message: memoryview, facts: _Facts) -> None:
    domain, version = "", 0
    for field, value in _fields(message):
        if field == 1 and isinstance(value, memoryview):
            domain = str(value, "utf-8")
        elif field == 2 and isinstance(value, int):
            version = value
    facts.opsets[domain] = version


def _graph(message: memoryview, facts: _Facts, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError
    for field, value in _fields(message):
        if not isinstance(value, memoryview):
            continue
        if field == 5:
            _tensor(value, facts)
        elif field == 15:
            _sparse_tensor(value, facts)
    _nodes(message, 1, facts, depth)


def _nodes(message: memoryview, node_field: int, facts: _Facts, depth: int) -> None:
    for field, node in _fields(message):
        if field != node_field or not isinstance(node, memoryview):
            continue
        for part, value in _fields(node):
            if part == 7 and isinstance(value, memoryview):
                facts.domains.add(str(value, "utf-8"))
            elif part == 5 and isinstance(value, memoryview):
                _attribute(value, facts, depth)


def _attribute(message: memoryview, facts: _Facts, depth: int) -> None:
    for field, value in _fields(message):
        if not isinstance(value, memoryview):
            continue
        if field in (5, 10):
            _tensor(value, facts)
        elif field in (22, 23):
            _sparse_tensor(value, facts)
        elif field in (6, 11):
            _graph(value, facts, depth + 1)


def _sparse_tensor(message: memoryview, facts: _Facts) -> None:
    for field, value in _fields(message):
        if field in (1, 2) and isinstance(value, memoryview):  # values and indices
            _tensor(value, facts)


def _tensor(message: memoryview, facts: _Facts) -> None:
    for field, value in _fields(message):
        if field == 13 or (field == 14 and value == 1):
            facts.has_external_data = True
