"""No message is formatted into a log line, an error or a string: it may hold a camera's pixels or a person's name.

Protobuf's own `debug_redact` hides nothing in Python, so the code must not try. What is found is what the syntax tree
shows within one function: names whose annotation or constructor says that they are messages, and the fields below them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from lathe.v1 import card_pb2, control_pb2, gallery_pb2, inference_pb2
from tests.conftest import ROOT
from tests.project import SOURCE_ROOTS

STUBS = {
    "card_pb2": card_pb2,
    "control_pb2": control_pb2,
    "gallery_pb2": gallery_pb2,
    "inference_pb2": inference_pb2,
}
LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
TO_TEXT = {"str", "repr", "format", "print", "ascii"}


def formatted_messages(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every message that is turned into text."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            kinds = _kinds_of_names(node)
            for expression in _formatted(node):
                if _kind(expression, kinds):
                    yield expression.lineno, ast.unparse(expression)


def _kinds_of_names(function: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[str, Descriptor]:
    """Which names of a function are messages."""
    kinds: dict[str, Descriptor] = {}

    def learn(target: ast.expr | None, kind: Descriptor | None) -> None:
        if isinstance(target, ast.Name) and kind:
            kinds[target.id] = kind

    arguments = function.args
    for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
        if argument.annotation and (kind := _named_kind(argument.annotation)):
            kinds[argument.arg] = kind
    for node in ast.walk(function):
        if isinstance(node, ast.AnnAssign):
            learn(node.target, _named_kind(node.annotation))
        elif isinstance(node, ast.Assign):
            learn(node.targets[0], _kind(node.value, kinds))
        elif isinstance(node, ast.NamedExpr):
            learn(node.target, _kind(node.value, kinds))
        elif isinstance(node, ast.For | ast.comprehension):
            learn(node.target, _kind(node.iter, kinds))
    return kinds


def _named_kind(annotation: ast.expr) -> Descriptor | None:
    """The message that `card_pb2.Card`, or a union or container with it, names."""
    for node in ast.walk(annotation):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in STUBS:
            found: Descriptor | None = STUBS[node.value.id].DESCRIPTOR.message_types_by_name.get(node.attr)
            return found
    return None


def _kind(expression: ast.expr, kinds: dict[str, Descriptor]) -> Descriptor | None:
    """The message that an expression is, or is a list of."""
    if isinstance(expression, ast.Name):
        return kinds.get(expression.id)
    if isinstance(expression, ast.Call):
        return _named_kind(expression.func)
    if isinstance(expression, ast.Subscript):
        return _kind(expression.value, kinds)
    if isinstance(expression, ast.Attribute) and (above := _kind(expression.value, kinds)):
        field: FieldDescriptor | None = above.fields_by_name.get(expression.attr)
        return field.message_type if field else None
    return None


def _formatted(function: ast.AST) -> Iterator[ast.expr]:
    """Expressions whose text goes somewhere."""
    for node in ast.walk(function):
        if isinstance(node, ast.FormattedValue):
            yield node.value
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod) and isinstance(node.left, ast.Constant):
            yield from node.right.elts if isinstance(node.right, ast.Tuple) else [node.right]
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            yield from _arguments(node.exc)
        elif isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name in (TO_TEXT if isinstance(node.func, ast.Name) else LOG_METHODS | {"format"}):
                yield from _arguments(node)


def _arguments(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(keyword.value for keyword in call.keywords)]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('log.info("got %s", request)', ["request"]),
        ('log.info("got %s", request.model)', []),
        ('log.info("got %s", request.frame)', ["request.frame"]),
        ('raise InvalidInput(f"not {request.frame.raw}")', ["request.frame.raw"]),
        ("raise InvalidInput(request)", ["request"]),
        ('raise InvalidInput("no", detail=str(request))', ["request"]),
        ('raise InvalidInput(f"not {request.frame.index}")', []),
        ('text = "%s" % request', ["request"]),
        ('text = "{}".format(request.frame)', ["request.frame"]),
        ("print(inference_pb2.Frame(index=1))", ["inference_pb2.Frame(index=1)"]),
        ("frame = request.frame; print(frame)", ["frame"]),
        ("card = card_pb2.Card(); print(repr(card))", ["card"]),
        ("other = len(request.model); print(other)", []),
    ],
)
def test_the_rule_itself(line: str, found: list[str]) -> None:
    source = f"def f(request: inference_pb2.DetectRequest):\n    {line}\n"
    assert [text for _, text in formatted_messages(source)] == found


def test_no_message_becomes_text() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{line}": text
        for root in SOURCE_ROOTS.values()
        for path in root.rglob("*.py")
        if "_pb2" not in path.name
        for line, text in formatted_messages(path.read_text("utf-8"))
    }
    assert found == {}
