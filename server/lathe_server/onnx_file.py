"""What an ONNX file holds, read without building it: a guard before any runtime touches it.

Walks the file's encoding itself (onnx.proto3, field numbers below), so that nothing is copied and nothing outside the
file is opened.
"""

from __future__ import annotations

from dataclasses import dataclass

from lathe.errors import BadVariant
from lathe_server.protobuf import fields

_MAX_DEPTH = 16


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Attributes:
    ir_version: of the file format.
    opsets: version by operator domain; the standard domain is "".
    domains: domains of the operators in use.
    has_external_data: some tensor's bytes lie in another file.
    has_subgraphs: there are branches or loops, so that its time may depend on what it is asked.
    """

    ir_version: int
    opsets: dict[str, int]
    domains: frozenset[str]
    has_external_data: bool
    has_subgraphs: bool

    @property
    def opset(self) -> int:
        """Of the standard domain, which has two names; 0 where the model uses none of it."""
        return max(self.opsets.get("", 0), self.opsets.get("ai.onnx", 0))


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
    return ModelFacts(
        facts.ir_version, facts.opsets, frozenset(facts.domains), facts.has_external_data, facts.has_subgraphs
    )


def check_file(content: bytes) -> ModelFacts:
    """Reads the facts of a model that may be served.

    Raises:
        BadVariant: not a whole ONNX model; one in several files; or one with operators of somebody's own.
    """
    facts = inspect(content)
    if facts.has_external_data:
        raise BadVariant("the model keeps tensors in other files; publish it in one file")
    foreign = facts.domains - {"", "ai.onnx", "com.microsoft"}
    if foreign:
        raise BadVariant("the model uses operators outside the standard and com.microsoft domains")
    return facts


class _Facts:
    def __init__(self) -> None:
        self.ir_version = 0
        self.opsets: dict[str, int] = {}
        self.domains: set[str] = set()
        self.has_external_data = False
        self.has_subgraphs = False


def _model(message: memoryview, facts: _Facts) -> None:
    for field, value, *_ in fields(message):
        if field == 1 and isinstance(value, int):
            facts.ir_version = value
        elif isinstance(value, memoryview):
            if field == 8:
                _opset(value, facts)
            elif field == 7:
                _graph(value, facts, 0)
            elif field == 25:  # a function: its nodes lie in field 7, defaults of its attributes in field 11
                _nodes(value, 7, facts, 0)
                for part, default, *_ in fields(value):
                    if part == 11 and isinstance(default, memoryview):
                        _attribute(default, facts, 0)


def _opset(message: memoryview, facts: _Facts) -> None:
    domain, version = "", 0
    for field, value, *_ in fields(message):
        if field == 1 and isinstance(value, memoryview):
            domain = str(value, "utf-8")
        elif field == 2 and isinstance(value, int):
            version = value
    facts.opsets[domain] = version


def _graph(message: memoryview, facts: _Facts, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError
    for field, value, *_ in fields(message):
        if not isinstance(value, memoryview):
            continue
        if field == 5:
            _tensor(value, facts)
        elif field == 15:
            _sparse_tensor(value, facts)
    _nodes(message, 1, facts, depth)


def _nodes(message: memoryview, node_field: int, facts: _Facts, depth: int) -> None:
    for field, node, *_ in fields(message):
        if field != node_field or not isinstance(node, memoryview):
            continue
        for part, value, *_ in fields(node):
            if part == 7 and isinstance(value, memoryview):
                facts.domains.add(str(value, "utf-8"))
            elif part == 5 and isinstance(value, memoryview):
                _attribute(value, facts, depth)


def _attribute(message: memoryview, facts: _Facts, depth: int) -> None:
    for field, value, *_ in fields(message):
        if not isinstance(value, memoryview):
            continue
        if field in (5, 10):
            _tensor(value, facts)
        elif field in (22, 23):
            _sparse_tensor(value, facts)
        elif field in (6, 11):
            facts.has_subgraphs = True
            _graph(value, facts, depth + 1)


def _sparse_tensor(message: memoryview, facts: _Facts) -> None:
    for field, value, *_ in fields(message):
        if field in (1, 2) and isinstance(value, memoryview):  # values and indices
            _tensor(value, facts)


def _tensor(message: memoryview, facts: _Facts) -> None:
    for field, value, *_ in fields(message):
        if field == 13 or (field == 14 and value == 1):
            facts.has_external_data = True
