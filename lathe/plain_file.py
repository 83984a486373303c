"""Reads a small file of a repository, which anybody may have put there."""

from __future__ import annotations

from pathlib import Path

from lathe.errors import BadVariant

_UNITS = ((1 << 20, "MiB"), (1 << 10, "KiB"))


def read_plain(path: Path, what: str, most_bytes: int) -> bytes:
    """A file's content.

    Args:
        what: it is, for messages.
        most_bytes: whole KiB or MiB.

    Raises:
        FileNotFoundError: there is none.
        BadVariant: a link, no plain file, one that cannot be read, or a larger one.
    """
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):  # a pipe would be waited for without end
            raise BadVariant(f"{what} is not a plain file", detail=str(path))
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise BadVariant(f"{what} cannot be read", detail=f"{path}: {error}") from error
    if len(content) > most_bytes:
        size, unit = next(one for one in _UNITS if most_bytes % one[0] == 0)
        raise BadVariant(f"{what} is larger than {most_bytes // size} {unit}", detail=str(path))
    return content
