"""Files that a command writes at its end, checked at its beginning."""

from __future__ import annotations

from pathlib import Path

from lathe.errors import InvalidInput


def check_output(flag: str, path: Path | None) -> None:
    """
    Raises:
        InvalidInput: a file cannot be there; better told now than after the run.
    """
    if path is None:
        return
    if not path.absolute().parent.is_dir():
        raise InvalidInput(f"{flag}: there is no folder {path.parent}")
    if path.is_dir():
        raise InvalidInput(f"{flag}: {path} is a folder")
