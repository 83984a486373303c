"""A gallery's key, which comes from outside, and what it seals.

The key seals nothing itself: HKDF-SHA256 (RFC 5869) makes of it, and of the gallery's own id, the key for AES-256-GCM.
So a box of one gallery opens in no other, though both have the same key. Nonces are 96 random bits: fit for 2³² boxes.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from lathe.errors import AlreadyExists, DiskFull, InvalidInput, Refused
from lathe_server.gallery.disk import is_full, sync_folder
from lathe_server.settings import GALLERY_KEY_VARIABLE as KEY_VARIABLE

log = logging.getLogger(__name__)

KEY_BYTES, NONCE_BYTES = 32, 12
_DIGITS = frozenset(b"0123456789abcdefABCDEF \t\r\n")
PURPOSE = b"lathe gallery, what is sealed"


class WrongSeal(Exception):
    """Another key, another place, or other bytes than were sealed; which of these cannot be told."""


class Sealer:
    """
    Args:
        key: 32 bytes.
        gallery: its id.
    """

    def __init__(self, key: bytes, gallery: bytes) -> None:
        self._cipher = AESGCM(HKDF(SHA256(), KEY_BYTES, salt=gallery, info=PURPOSE).derive(key))

    def seal(self, content: bytes, *place: str | int) -> bytes:
        """A box that opens at its own place only.

        Args:
            place: what the content belongs to, such as a record's id and space; not in the box.
        """
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, content, _bound(place))

    def open(self, box: bytes, *place: str | int) -> bytes:
        """
        Raises:
            WrongSeal: it was not sealed with this key for this place, or has changed since.
        """
        try:
            return self._cipher.decrypt(box[:NONCE_BYTES], box[NONCE_BYTES:], _bound(place))
        except (InvalidTag, ValueError) as error:
            raise WrongSeal from error


def _bound(place: tuple[str | int, ...]) -> bytes:
    return json.dumps(place).encode()


def read_key(path: str, environment: Mapping[str, str] = os.environ) -> bytes:
    """The key, of a file or, where no path is given, of `KEY_VARIABLE`.

    Args:
        path: of 32 bytes that are not all hex digits, or of 64 hex digits and white space around them.

    Raises:
        Refused: there is no key, or it is none.
    """
    if not path:
        digits = environment.get(KEY_VARIABLE, "")
        if not digits:
            raise Refused(f"a gallery needs its key: name its file, or set {KEY_VARIABLE} to its 64 hex digits")
        return _key_of_digits(digits.encode(), f"{KEY_VARIABLE} is no key")
    try:
        content = Path(path).read_bytes()
        mode = Path(path).stat().st_mode
    except OSError as error:
        raise Refused("the file of the gallery's key cannot be read", detail=str(error)) from error
    if mode & 0o077:
        log.warning("others than its owner may read the gallery's key; its file should have the mode 600")
    if len(content) == KEY_BYTES and not _DIGITS.issuperset(content):  # else it is the first half of a key of digits
        return content
    return _key_of_digits(content, "the file of the gallery's key holds no key")


def _key_of_digits(digits: bytes, wrong: str) -> bytes:
    try:
        key = bytes.fromhex(digits.decode("ascii").strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise Refused(f"{wrong}: it must be 32 bytes, or 64 hex digits")
    return key


def write_key(path: Path) -> None:
    """Makes a fresh key, in a new file that only its owner may read.

    Raises:
        AlreadyExists: there is such a file.
        InvalidInput: its folder is missing, or may not be written; or the disk fails, and then there is no such file.
        DiskFull: there is no room for it, and no such file.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise AlreadyExists(f"there is a file {path} already; a key that is overwritten opens nothing more") from error
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written", detail=str(error)) from error
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            path.unlink()
        kind = DiskFull if is_full(error) else InvalidInput
        raise kind(f"{path} cannot be written, and no key was made", detail=str(error)) from error
