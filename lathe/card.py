"""A variant's card on disk: the wire's message as JSON beside model.onnx."""

from __future__ import annotations

import re
from pathlib import Path

from google.protobuf import json_format

from lathe.errors import BadVariant, InvalidInput, NotFound
from lathe.message_file import as_json
from lathe.plain_file import read_plain
from lathe.v1 import card_pb2

CARD_FILE = "card.json"
MODEL_FILE = "model.onnx"

_MAX_CARD_BYTES = 1 << 20
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def check_name(name: str, what: str) -> str:
    """Returns a model's or variant's name if it is one: lower case, so that no two differ by case alone.

    Raises:
        InvalidInput: not 1 to 63 of a–z, 0–9, dot, dash, underscore, beginning with a letter or digit.
    """
    if not is_name(name):
        raise InvalidInput(
            f"a {what} is named by 1 to 63 of a-z, 0-9, '.', '-' and '_', beginning with a letter or digit"
        )
    return name


def is_name(name: str) -> bool:
    """Whether a model, a variant or a pipeline may have it."""
    return _NAME.fullmatch(name) is not None


def read_card(path: Path) -> card_pb2.Card:
    """Reads and checks a card.

    Raises:
        NotFound: there is no card.
        BadVariant: a link, over 1 MiB, not JSON, unknown fields, or a digest or size missing.
    """
    try:
        content = read_plain(path, "the card", _MAX_CARD_BYTES)
    except FileNotFoundError as error:
        raise NotFound("the variant has no card", detail=str(path)) from error
    card = card_pb2.Card()
    try:
        json_format.Parse(content, card)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise BadVariant("the card is not valid", detail=f"{path}: {error}") from error
    if not re.fullmatch(r"[0-9a-f]{64}", card.sha256):
        raise BadVariant("the card holds no sha256 of the model", detail=str(path))
    has_size = card.serving_size.width and card.serving_size.height and card.size_multiple
    if not has_size and card.task != card_pb2.TASK_TENSORS:
        raise BadVariant("the card holds no serving size", detail=str(path))
    return card


def write_card(card: card_pb2.Card, path: Path) -> None:
    """Writes a card as JSON, field names as in the proto file."""
    path.write_bytes(as_json(card))


def enum_word(kind: str, value: int) -> str:
    """The plain word of an enum value of the card: `("Precision", PRECISION_INT8)` is `int8`."""
    name: str = getattr(card_pb2, kind).Name(value)
    return name.removeprefix(f"{kind.upper()}_").lower()
