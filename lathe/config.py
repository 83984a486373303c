"""TOML tables as frozen dataclasses, checked whole before anything starts.

An unknown or ill-typed key is an error that names its line and, where one is near, the right key.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from lathe.errors import InvalidInput, NotFound

T = TypeVar("T")


def load(kind: type[T], path: Path) -> T:
    """Reads a TOML file as an instance of a dataclass.

    Raises:
        NotFound: there is no such file.
        InvalidInput: not TOML, or not what the dataclass says.
    """
    return parse(kind, *read(path))


def read(path: Path) -> tuple[Mapping[str, Any], str, str]:
    """A TOML file's table, its text, and its name for messages.

    Raises:
        NotFound: there is no such file.
        InvalidInput: not TOML.
    """
    try:
        text = path.read_text("utf-8")
        return tomllib.loads(text), text, path.name
    except (FileNotFoundError, IsADirectoryError) as error:
        raise NotFound(f"there is no file {path}") from error
    except OSError as error:
        raise NotFound(f"the file {path.name} cannot be read", detail=str(error)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path.name} is not valid TOML: {error}") from error


def parse(kind: type[T], table: Mapping[str, Any], text: str, name: str) -> T:
    """Builds a dataclass from a parsed table; `text` and `name` serve the messages."""
    return _Reader(text, name).table(kind, table)


def nearest(word: str, words: Iterable[str]) -> str:
    """`; did you mean X?` for the nearest of some words, or nothing where none is near."""
    close = difflib.get_close_matches(word, list(words), 1, 0.6)
    return f'; did you mean "{close[0]}"?' if close else ""


class _Reader:
    def __init__(self, text: str, name: str) -> None:
        self._lines = text.splitlines()
        self._name = name

    def line(self, key: str, after: int, occurrence: int = 0) -> int:
        """The line, counted from 1, of a key's n-th occurrence at or after another; the other where there is none."""
        pattern = re.compile(rf"""^[^#]*?(^|[\s\[{{,.])["']?{re.escape(key)}["']?\s*[=\].]""")
        start = max(after, 1)
        lines = [number for number, text in enumerate(self._lines[start - 1 :], start) if pattern.search(text)]
        return lines[occurrence] if occurrence < len(lines) else after

    def error(self, line: int, message: str) -> InvalidInput:
        return InvalidInput(f"{self._name}, line {line}: {message}" if line else f"{self._name}: {message}")

    def table(self, kind: type[T], table: Mapping[str, Any], line: int = 0) -> T:
        """A table that begins on a line; 0 for the whole file."""
        fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
        hints = typing.get_type_hints(kind)
        for key in table:
            if key not in fields:
                raise self.error(self.line(key, line), f'unknown key "{key}"{nearest(key, fields)}')
        values = {key: self.value(hints[key], value, key, self.line(key, line)) for key, value in table.items()}
        for field in fields.values():
            required = field.default is field.default_factory is dataclasses.MISSING
            if required and field.name not in table:
                raise self.error(line, f'the key "{field.name}" is missing')
        try:
            return kind(**values)
        except ValueError as error:
            raise self.error(line, str(error)) from error

    def value(self, hint: Any, value: Any, key: str, line: int) -> Any:
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin is types.UnionType or origin is typing.Union:
            if value is None and type(None) in arguments:
                return None  # of JSON; TOML has none
            hint = next(choice for choice in arguments if choice is not type(None))
            return self.value(hint, value, key, line)
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            if isinstance(value, Mapping):
                return self.table(hint, value, line)
            raise self.error(line, f'"{key}" must be a table')
        if origin is tuple:
            return self._tuple(arguments, value, key, line)
        if isinstance(origin, type) and issubclass(origin, Mapping):
            if not isinstance(value, Mapping):
                raise self.error(line, f'"{key}" must be a table')
            return {name: self.value(arguments[1], item, name, self.line(name, line)) for name, item in value.items()}
        if origin is Literal:
            if value in arguments:
                return value
            choices = ", ".join(f'"{choice}"' for choice in arguments)
            raise self.error(line, f'"{key}" must be one of {choices}{nearest(str(value), map(str, arguments))}')
        if hint is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
            raise self.error(line, f'"{key}" must be {KIND_NAMES.get(hint, hint.__name__)}')
        return value

    def _tuple(self, arguments: tuple[Any, ...], value: Any, key: str, line: int) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise self.error(line, f'"{key}" must be a list')
        if arguments[-1] is Ellipsis:
            arguments = arguments[:1] * len(value)
        if len(value) != len(arguments):
            raise self.error(line, f'"{key}" must have {len(arguments)} entries')
        # Of an array of tables each has a line of its own.
        lines = [self.line(key, line, n) if isinstance(item, Mapping) else line for n, item in enumerate(value)]
        return tuple(self.value(kind, item, key, at) for kind, item, at in zip(arguments, value, lines, strict=True))


KIND_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
