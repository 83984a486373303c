"""JSON files as load tests write them: one table, without numbers that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lathe.errors import InvalidInput, NotFound


def text_of(path: Path) -> str:
    """
    Raises:
        NotFound: there is no such file, or it cannot be read.
        InvalidInput: it holds no text.
    """
    try:
        return path.read_text("utf-8")
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path.name}") from error
    except OSError as error:
        raise NotFound(f"the file {path.name} cannot be read", detail=str(error)) from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path.name} is not JSON: {error}") from error


def table_of(text: str, name: str) -> dict[str, Any]:
    """What is JSON, but no table, is an empty one.

    Args:
        name: of the file, for messages.

    Raises:
        InvalidInput: it is not JSON.

    >>> table_of('{"format": 1}', "run.json"), table_of("[]", "run.json")
    ({'format': 1}, {})
    """
    try:
        table = json.loads(text, parse_constant=_no_number)
    except ValueError as error:
        raise InvalidInput(f"{name} is not JSON: {error}") from error
    return table if isinstance(table, dict) else {}


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number")
