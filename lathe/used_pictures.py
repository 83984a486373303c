"""The pictures that calibrated or trained a version, by digest: none of them may judge it.

A file of its own beside the card, since they may be a million: one line a picture, sorted, with the first
16 hex digits of the file's SHA-256. The card has their number, and the digest of the list.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from lathe.errors import BadVariant
from lathe.v1 import card_pb2

PICTURES_FILE = "pictures.txt"

_DIGITS = 16


class UsedPictures:
    """Their digests.

    Args:
        digests: SHA-256 of each file in hex, whole or its first 16 digits.
    """

    def __init__(self, digests: Iterable[str] = ()) -> None:
        self._short = frozenset(digest[:_DIGITS] for digest in digests)

    def __len__(self) -> int:
        return len(self._short)

    def __contains__(self, digest: str) -> bool:
        return digest[:_DIGITS] in self._short

    def __or__(self, others: UsedPictures) -> UsedPictures:
        return UsedPictures(self._short | others._short)

    def content(self) -> bytes:
        """Of the file."""
        return "".join(f"{digest}\n" for digest in sorted(self._short)).encode()

    def fill_in(self, lineage: card_pb2.Lineage) -> None:
        lineage.pictures = len(self)
        lineage.pictures_sha256 = hashlib.sha256(self.content()).hexdigest() if self._short else ""


def read_used_pictures(folder: Path, lineage: card_pb2.Lineage) -> UsedPictures:
    """A version's, as its lineage says that they are.

    Raises:
        BadVariant: the list is missing, a link, or not what the card says.
    """
    if not lineage.pictures:
        return UsedPictures()
    path = folder / PICTURES_FILE
    size = lineage.pictures * (_DIGITS + 1)
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size != size:  # before reading: it may be a pipe
            raise BadVariant("the list of the pictures that made it is missing or not the card's", detail=str(path))
        content = path.read_bytes()
    except OSError as error:
        raise BadVariant("the list of the pictures that made it cannot be read", detail=f"{path}: {error}") from error
    if hashlib.sha256(content).hexdigest() != lineage.pictures_sha256:
        raise BadVariant("the list of the pictures that made it is not the card's (sha256)", detail=str(path))
    return UsedPictures(content.decode("ascii").split())
