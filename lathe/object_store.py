"""What a repository asks of an object store, through fsspec: list, read, write, and create what is not there yet."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lathe.errors import InvalidInput, LatheError, Refused

_PATIENCE = {"connect_timeout": 3, "read_timeout": 10, "retries": {"max_attempts": 2}}
"""For S3, where the surroundings set nothing: a store that is away is asked again at the next look."""


class Mark(NamedTuple):
    """What tells an object's content from another.

    Attributes:
        size: in bytes.
        digest: or the time of its writing, as the store tells it.
    """

    size: int
    digest: str


class ObjectStore:
    """The objects below an address, by their names relative to it; safe for threads. Every method raises Refused where
    the store does not do what it is asked.

    Raises:
        Refused: the package that reads such addresses is not installed.
        InvalidInput: there are no such stores.
    """

    def __init__(self, address: str) -> None:
        scheme = address.partition("://")[0]
        try:
            from fsspec.config import conf
            from fsspec.core import url_to_fs

            impatient = scheme == "s3" and "config_kwargs" not in conf.get("s3", {})
            self._files, path = url_to_fs(address, **({"config_kwargs": _PATIENCE} if impatient else {}))
        except ImportError as error:
            message = f"{scheme}:// needs a package that is not installed; for s3:// install lathe[s3]"
            raise Refused(message, detail=str(error)) from error
        except ValueError as error:
            raise InvalidInput(f"{scheme}:// is no kind of store that is known", detail=str(error)) from error
        self._prefix = path.rstrip("/") + "/"

    def marks(self, folder: str = "") -> dict[str, Mark]:
        """Every object below a folder; one request for each thousand."""
        with _asked("read"):
            self._files.invalidate_cache()
            try:
                found: dict[str, Any] = self._files.find(self._prefix + folder, detail=True)
            except FileNotFoundError:  # stores have no empty folders
                return {}
        return {key.removeprefix(self._prefix): _mark(told) for key, told in found.items()}

    def contents(self, names: Sequence[str]) -> dict[str, bytes]:
        """Of several objects, many at the same time."""
        with _asked("read"):
            keys = {self._prefix + name: name for name in names}
            read: dict[str, bytes] = self._files.cat(list(keys)) if keys else {}
            return {keys[key]: content for key, content in read.items()}

    def download(self, name: str, path: Path) -> None:
        with _asked("read"):
            self._files.get_file(self._prefix + name, str(path))

    def create(self, name: str, content: bytes) -> bool:
        """Whether there was no such object before; of several writers one is told so. One that finds its own bytes
        there was only not told."""
        with _asked("written"):
            try:
                self._files.pipe_file(self._prefix + name, content, mode="create")
            except OSError as error:
                if not isinstance(error, FileExistsError) and error.errno != errno.EINVAL:  # as some stores say it
                    raise
                return bool(self._files.cat_file(self._prefix + name) == content)
            return True

    def put(self, name: str, content: bytes) -> None:
        with _asked("written"):
            self._files.pipe_file(self._prefix + name, content)

    def remove(self, name: str) -> None:
        """Where it is there."""
        with _asked("written"), contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._prefix + name)


def _mark(told: dict[str, Any]) -> Mark:
    digest = next((told[one] for one in ("ETag", "etag", "mtime", "created") if told.get(one)), "")
    return Mark(int(told["size"]), str(digest))


@contextlib.contextmanager
def _asked(done: str) -> Iterator[None]:
    """Stores raise what they like.

    Raises:
        Refused: in place of all of it.
    """
    try:
        yield
    except LatheError:
        raise
    except Exception as error:
        raise Refused(f"the object store cannot be {done}", detail=f"{type(error).__name__}: {error}") from error
