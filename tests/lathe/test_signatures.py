"""Who vouches for a version: what is signed loads, and nothing else does where that is asked for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lathe.cli import main
from lathe.client import ServerError
from lathe.errors import BadVariant, InvalidInput, NotFound
from lathe.repository import Repository, VariantRef
from lathe.signatures import Verifier, sign
from lathe_server.loading import load_servable
from tests.conftest import start_server

pytest.importorskip("model_signing")

from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric import ec

A = VariantRef("spots", "a", 1)


def keys(folder: Path, name: str, password: bytes = b"", curve: ec.EllipticCurve | None = None) -> tuple[Path, Path]:
    """A fresh pair in files: private, public."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    locked = pem.BestAvailableEncryption(password) if password else pem.NoEncryption()
    private.write_bytes(key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, locked))
    public.write_bytes(key.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def signed(repository: Repository, tmp_path: Path) -> Path:
    """The public key of whoever signed `a`."""
    private, public = keys(tmp_path, "ours")
    assert main(["repo", "sign", str(repository.root), "spots/a", "--key", str(private)]) == 0
    return public


def load(repository: Repository, public: Path) -> None:
    load_servable(repository, A, max_pixels=10**7, max_model_bytes=10**8, verifier=Verifier(public))


def test_what_the_keys_owner_signed_loads(repository: Repository, signed: Path) -> None:
    load(repository, signed)


def unsign(folder: Path) -> None:
    (folder / "model.sig").unlink()


def change_a_byte(folder: Path) -> None:
    content = bytearray((folder / "model.onnx").read_bytes())
    content[-1] ^= 1
    (folder / "model.onnx").write_bytes(content)


def lower_the_threshold(folder: Path) -> None:
    card = folder / "card.json"
    card.write_text(card.read_text().replace('"min_score": 0.5', '"min_score": 0.1'))


def add_a_file(folder: Path) -> None:
    (folder / "making.json").write_text("{}")


def link(folder: Path) -> None:
    (folder / "extra").symlink_to("/dev/zero")


def spoil_the_signature(folder: Path) -> None:
    (folder / "model.sig").write_text("{}")


@pytest.mark.fault(40)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (unsign, "is not signed"),
        (change_a_byte, "does not fit it"),
        (lower_the_threshold, "does not fit it"),
        (add_a_file, "does not fit it"),
        (spoil_the_signature, "does not fit it"),
        (link, "something else than plain files"),
    ],
)
def test_what_is_not_signed_as_it_is_does_not_load(
    repository: Repository, signed: Path, change: Callable[[Path], None], message: str
) -> None:
    change(repository.folder(A))
    with pytest.raises(BadVariant, match=message):
        load(repository, signed)


@pytest.mark.fault(40)
def test_what_somebody_else_signed_does_not_load(repository: Repository, signed: Path, tmp_path: Path) -> None:
    _, theirs = keys(tmp_path, "theirs")
    with pytest.raises(BadVariant, match="or is not by the key"):
        load(repository, theirs)


def test_the_signature_is_that_of_the_public_tool(repository: Repository, signed: Path, tmp_path: Path) -> None:
    folder = repository.folder(A)
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(folder)]
    command += ["--signature", str(folder / "model.sig"), "--public_key", str(signed)]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr


def test_keys_that_cannot_be_used_are_said(repository: Repository, tmp_path: Path) -> None:
    private, public = keys(tmp_path, "locked", b"secret")
    folder = repository.folder(A)
    with pytest.raises(InvalidInput, match="no private key that can be used"):
        sign(folder, private, b"wrong")
    assert sign(folder, private, b"secret")
    with pytest.raises(NotFound):
        sign(folder, tmp_path / "none")
    with pytest.raises(NotFound):
        Verifier(tmp_path / "none")
    with pytest.raises(InvalidInput, match="no public key"):
        Verifier(private)
    _, odd = keys(tmp_path, "odd", curve=ec.SECP256K1())
    with pytest.raises(InvalidInput, match="no public key"):
        Verifier(odd)
    assert public.exists()


@pytest.mark.fault(40)
def test_a_server_that_asks_for_signatures_goes_on_with_what_has_one(
    repository: Repository, signed: Path, tmp_path: Path, spot_jpeg: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        start_server(repository.root, tmp_path / "log", "--signed-by", str(signed)) as server,
        server.client() as client,
    ):
        assert client.detect("spots", spot_jpeg).variant == "a"
        with pytest.raises(ServerError, match="spots/b/1 is not signed, and only signed variants are loaded here"):
            client.set_route("spots", {"b": 1})
        assert client.detect("spots", spot_jpeg).variant == "a"
        private = tmp_path / "ours.key"
        assert main(["repo", "sign", str(repository.root), "spots/b", "--key", str(private)]) == 0
        client.set_route("spots", {"b": 1})
        assert client.detect("spots", spot_jpeg).variant == "b"
    assert main(["repo", "verify", str(repository.root), "--signed-by", str(signed)]) == 0
    change_a_byte(repository.folder(A))
    capsys.readouterr()
    assert main(["repo", "verify", str(repository.root), "--signed-by", str(signed)]) == 1
    assert "1 problems" in capsys.readouterr().out
