"""The files of a version beside its card: the network, the pictures that made it, how it was made, who vouches."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lathe.card import MODEL_FILE
from lathe.errors import BadVariant
from lathe.plain_file import read_plain
from lathe.used_pictures import PICTURES_FILE, UsedPictures
from lathe.v1 import card_pb2

MAKING_FILE, SIGNATURE_FILE = "making.json", "model.sig"
FILES = frozenset({MODEL_FILE, PICTURES_FILE, MAKING_FILE, SIGNATURE_FILE})
MAX_MAKING_BYTES = 16 << 20


def contents(
    card: card_pb2.Card, model: bytes, making: Mapping[str, Any] | None, pictures: UsedPictures
) -> dict[str, bytes]:
    """All files of a new version but the card, by name; fills in what the card says of them."""
    card.sha256 = hashlib.sha256(model).hexdigest()
    card.size_bytes = len(model)
    card.created_at.FromDatetime(datetime.now(UTC))
    pictures.fill_in(card.lineage)
    files = {MODEL_FILE: model}
    if pictures:
        files[PICTURES_FILE] = pictures.content()
    if making is not None:
        files[MAKING_FILE] = json.dumps(_finite(making), allow_nan=False).encode() + b"\n"
    return files


def read_making(path: Path, name: str) -> Mapping[str, Any] | None:
    """How a version was made, as it was published; None where nothing is said.

    Args:
        name: of the version, for the errors.

    Raises:
        BadVariant: a link, over 16 MiB, or not a JSON object.
    """
    try:
        content = read_plain(path, f"{MAKING_FILE} of {name}", MAX_MAKING_BYTES)
    except FileNotFoundError:
        return None
    try:
        making = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadVariant(f"{MAKING_FILE} of {name} is not JSON", detail=f"{path}: {error}") from error
    if not isinstance(making, dict):
        raise BadVariant(f"{MAKING_FILE} of {name} is not a JSON object", detail=str(path))
    return making


def _finite(value: Any) -> Any:
    """The same tree with None for NaN and infinities, which JSON has not."""
    if isinstance(value, Mapping):
        return {key: _finite(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(child) for child in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
