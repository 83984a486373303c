"""Certificates: whom clients and servers believe, and new ones while it serves."""

from __future__ import annotations

import http.client
import shutil
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lathe import Connection
from lathe.cli import main
from lathe.client import Client
from lathe.errors import InvalidInput, LatheError
from lathe.repository import Repository
from tests.calls import until
from tests.certificates import Authority, Pair
from tests.conftest import RunningServer, start_server


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@contextmanager
def served(repository: Repository, pair: Pair, *flags: str) -> Iterator[RunningServer]:
    files = ("--tls-certificate", str(pair.certificate), "--tls-key", str(pair.key))
    with start_server(repository.root, repository.root.parent / "log", *files, *flags) as running:
        yield running


def variant(server: RunningServer, picture: bytes, connection: Connection) -> str:
    with Client(server.grpc, server.control, connection) as client:
        return client.detect("spots", picture, timeout_seconds=3).variant


def is_refused(server: RunningServer, picture: bytes, connection: Connection) -> bool:
    try:
        variant(server, picture, connection)
    except LatheError as error:
        return error.status == "UNAVAILABLE"
    return False


def page(server: RunningServer, path: str, context: ssl.SSLContext) -> int:
    connection = http.client.HTTPSConnection(server.http, timeout=10, context=context)
    connection.request("GET", path)
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.fault(70)
def test_who_knows_the_root_is_served_and_who_does_not_is_not(
    repository: Repository, authority: Authority, tmp_path: Path, spot_jpeg: bytes
) -> None:
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other", "stranger")
    with served(repository, authority.issue("server")) as server:
        assert variant(server, spot_jpeg, Connection(ca=str(authority.file))) == "a"
        with Client(server.grpc, server.control, Connection(ca=str(authority.file))) as client:
            client.set_route("spots", {"b": 1})
        assert is_refused(server, spot_jpeg, Connection(ca=str(stranger.file)))
        assert is_refused(server, spot_jpeg, Connection())  # plain text on the port of TLS
        trusting = ssl.create_default_context(cafile=str(authority.file))
        assert page(server, "/readyz", trusting) == page(server, "/v2/models/spots", trusting) == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            page(server, "/readyz", ssl.create_default_context(cafile=str(stranger.file)))
        plain = http.client.HTTPConnection(server.http, timeout=10)
        plain.request("GET", "/readyz")
        with pytest.raises((http.client.HTTPException, OSError)):
            plain.getresponse()
        assert variant(server, spot_jpeg, Connection(ca=str(authority.file))) == "b"


@pytest.mark.fault(70)
def test_an_expired_certificate_is_not_believed(repository: Repository, authority: Authority, spot_jpeg: bytes) -> None:
    with served(repository, authority.issue("server", days=-1)) as server:
        assert is_refused(server, spot_jpeg, Connection(ca=str(authority.file)))


@pytest.mark.fault(70)
def test_callers_show_certificates_where_they_are_asked_for(
    repository: Repository, authority: Authority, tmp_path: Path, spot_jpeg: bytes
) -> None:
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other", "stranger").issue("stranger")
    caller, old = authority.issue("caller"), authority.issue("old", days=-1)
    ca = str(authority.file)
    with served(repository, authority.issue("server"), "--tls-client-ca", ca) as server:
        assert variant(server, spot_jpeg, Connection("", ca, str(caller.certificate), str(caller.key))) == "a"
        for refused in (
            Connection(ca=ca),
            Connection("", ca, str(stranger.certificate), str(stranger.key)),
            Connection("", ca, str(old.certificate), str(old.key)),
        ):
            assert is_refused(server, spot_jpeg, refused)
        context = ssl.create_default_context(cafile=ca)
        assert [page(server, path, context) for path in ("/healthz", "/v2/models/spots")] == [200, 403]
        context.load_cert_chain(caller.certificate, caller.key)
        assert page(server, "/v2/models/spots", context) == 200


@pytest.mark.fault(70)
def test_new_certificates_are_used_while_streams_go_on(
    repository: Repository, authority: Authority, spot_jpeg: bytes
) -> None:
    pair = authority.issue("server")
    connection = Connection(ca=str(authority.file))

    def shown(address: str) -> str:
        host, _, port = address.rpartition(":")
        return ssl.get_server_certificate((host, int(port)), timeout=5)

    with served(repository, pair) as server, Client(server.grpc, server.control, connection) as client:
        before = pair.certificate.read_text()
        assert shown(server.http).strip() == before.strip()
        results = client.detect_stream("spots", iter([(spot_jpeg, 0.0)] * 400))
        assert next(results).variant == "a"
        pair.key.write_text("no key")  # half-way: the two do not go together
        until(lambda: "changed certificates are not used" in server.log.read_text())
        assert shown(server.grpc).strip() == shown(server.http).strip() == before.strip()
        new = authority.issue("new")
        shutil.copy(new.key, pair.key)
        shutil.copy(new.certificate, pair.certificate)
        for address in (server.http, server.grpc, server.control):
            until(lambda address=address: shown(address).strip() == new.certificate.read_text().strip())
        assert sum(one.answered for one in results) == 399
        assert variant(server, spot_jpeg, connection) == "a"


def test_files_that_do_not_go_together_are_refused_at_the_start(
    repository: Repository, authority: Authority, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = authority.issue("one"), authority.issue("other")
    for flags, told in (
        (["--tls-certificate", str(one.certificate), "--tls-key", str(other.key)], "do not go together"),
        (["--tls-certificate", str(tmp_path / "none"), "--tls-key", str(other.key)], "do not go together"),
        (["--tls-certificate", str(one.certificate)], "tls_certificate and tls_key go together"),
        (["--tls-client-ca", str(one.certificate)], "go together"),
    ):
        assert main(["serve", str(repository.root), *flags]) == 1
        assert told in capsys.readouterr().err
    for wrong in ({"token": "a b"}, {"certificate": "x"}, {"certificate": "x", "key": "y"}):
        with pytest.raises(InvalidInput):
            Connection(**wrong)
