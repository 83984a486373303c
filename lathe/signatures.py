"""Who vouches for a version: a signature over all its files, beside them in `model.sig`.

It is a Sigstore bundle as the model-signing tool of the OpenSSF writes it, made with an elliptic-curve key; so that
tool can check what is signed here, and the other way round.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from lathe.errors import BadVariant, InvalidInput, NotFound, Refused
from lathe.repository import Repository, VariantRef
from lathe.version_files import SIGNATURE_FILE


def sign(folder: Path, private_key: Path, password: bytes = b"") -> bytes:
    """A signature over the files of a version's folder.

    Args:
        private_key: PEM, on the curve P-256, P-384 or P-521.
        password: of the key; empty where it has none.

    Raises:
        NotFound: there is no such key.
        InvalidInput: it is no such key, or the password is wrong.
        BadVariant: the folder holds something that cannot be signed, such as a link.
        Refused: model-signing is not installed.
    """
    hashing, signing, _ = _model_signing()
    secret: Any = password or None  # bytes, whatever model-signing's annotation says: it hands them on
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=private_key, password=secret)
    except OSError as error:
        raise NotFound(f"the key {private_key.name} cannot be read", detail=str(error)) from error
    except Exception as error:
        raise InvalidInput(f"{private_key.name} is no private key that can be used", detail=str(error)) from error
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=[SIGNATURE_FILE]))
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / SIGNATURE_FILE
        try:
            config.sign(folder, file)
        except ValueError as error:
            raise BadVariant("the folder holds something that cannot be signed", detail=str(error)) from error
        return file.read_bytes()


class Verifier:
    """Checks signatures against one public key.

    Args:
        public_key: PEM file.

    Raises:
        NotFound: there is no such file.
        InvalidInput: it is no public key on a known curve.
        Refused: model-signing is not installed.
    """

    def __init__(self, public_key: Path) -> None:
        _, _, verifying = _model_signing()
        self._new_config = verifying.Config
        self._public_key = public_key
        try:
            self._config()
        except OSError as error:
            raise NotFound(f"the key {public_key.name} cannot be read", detail=str(error)) from error
        except Exception as error:
            raise InvalidInput(f"{public_key.name} is no public key that can be used", detail=str(error)) from error

    def _config(self) -> Any:
        return self._new_config().use_elliptic_key_verifier(public_key=self._public_key)

    def check(self, folder: Path, name: str) -> None:
        """Returns where the key's owner has signed all files of a folder as they are.

        Args:
            name: of the version, for the errors.

        Raises:
            BadVariant: nobody has signed it, somebody else has, or a file is another one.
        """
        signature = folder / SIGNATURE_FILE
        if not signature.is_file():
            raise BadVariant(f"{name} is not signed, and only signed variants are loaded here")
        try:
            self._config().verify(folder, signature)
        except Exception as error:  # whatever is wrong with a signature, it does not vouch
            raise BadVariant(
                f"the signature of {name} does not fit it, or is not by the key", detail=str(error)
            ) from error

    @contextmanager
    def checked(self, repository: Repository, ref: VariantRef, max_bytes: int) -> Iterator[Repository]:
        """A repository of this version alone, checked, in a folder that nobody else can write to.

        Raises:
            NotFound: it is not published.
            BadVariant: as `check`; or its folder holds something else than plain files, or more than it may.
            Refused: the files cannot be copied.
        """
        with ExitStack() as stack:
            try:
                private = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lathe-")))
                copy = private.joinpath(*str(ref).split("/"))
                copy.mkdir(parents=True)
                for path in repository.folder(ref).iterdir():
                    if path.is_symlink() or not path.is_file():
                        raise BadVariant(f"the folder of {ref} holds something else than plain files", detail=str(path))
                    max_bytes -= path.stat().st_size
                    if max_bytes < 0:
                        raise BadVariant(f"the files of {ref} are larger than is loaded here")
                    shutil.copyfile(path, copy / path.name)
            except OSError as error:
                raise Refused(f"the files of {ref} cannot be copied to be checked", detail=str(error)) from error
            self.check(copy, str(ref))
            yield Repository(private)


def _model_signing() -> Any:
    try:
        from model_signing import hashing, signing, verifying
    except ImportError as error:
        raise Refused("signatures need the package model-signing; install lathe[signing]", detail=str(error)) from error
    return hashing, signing, verifying
