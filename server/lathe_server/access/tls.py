"""Certificates of the server, and of those who may call it; changed files are taken over while it serves."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Any

import grpc

from lathe.errors import InvalidInput
from lathe_server.settings import Settings

log = logging.getLogger(__name__)


_NOT_TOGETHER = "the certificate, its key and the callers' root do not go together"

LOOK_SECONDS = 1.0
"""Between two looks for changed files."""


def tls_of(settings: Settings) -> Tls | None:
    """None where ports talk in plain text.

    Raises:
        InvalidInput: the files cannot be read or do not go together.
    """
    if not settings.tls_certificate:
        return None
    ca = Path(settings.tls_client_ca) if settings.tls_client_ca else None
    return Tls(Path(settings.tls_certificate), Path(settings.tls_key), ca)


async def renew(tls: Tls) -> None:
    """Takes changed files over, until it is cancelled."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        await asyncio.to_thread(tls.refresh)


class Tls:
    """What ports need of the certificates, which are PEM files.

    Args:
        certificate: the server's, and what leads from it to a root.
        key: of the certificate, without a password.
        client_ca: whose certificates callers have to show; None asks for none.

    Attributes:
        http: for the HTTP port.

    Raises:
        InvalidInput: the files cannot be read or do not go together. When that comes to be later, those before go on
            being used, and the log says why.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None = None) -> None:
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        self._number = 0  # counts up with each change
        try:
            self._seen = self._marks()  # before they are read: what changes in between is seen at the next look
        except OSError as error:
            raise InvalidInput(_NOT_TOGETHER, detail=str(error)) from error
        self._http, self._grpc = self._load()
        self.http, _ = self._load()  # stays, and hands each connection to the newest
        self.http.sni_callback = self._hand_on

    def _load(self) -> tuple[ssl.SSLContext, grpc.ServerCertificateConfiguration]:
        try:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self._client_ca)
            context.load_cert_chain(self._certificate, self._key, password=_no_password)
            key, chain = self._key.read_bytes(), self._certificate.read_bytes()
            roots = self._client_ca.read_bytes() if self._client_ca else None
        except (OSError, ssl.SSLError, ValueError) as error:
            raise InvalidInput(_NOT_TOGETHER, detail=str(error)) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._client_ca:
            context.verify_mode = ssl.CERT_OPTIONAL  # pages for probes are for everybody; the API asks for one
            # Who resumes a session is not looked at again, and his certificate may have ended.
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.num_tickets = 0
        return context, grpc.ssl_server_certificate_configuration([(key, chain)], root_certificates=roots)

    def _hand_on(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self._http

    @property
    def asks_callers(self) -> bool:
        """Callers have to show a certificate."""
        return self._client_ca is not None

    def refresh(self) -> None:
        """Takes changed files over; blocking."""
        try:
            marks = self._marks()
            if marks == self._seen:
                return
            self._http, self._grpc = self._load()
            self._number += 1
            self._seen = marks
            log.info("new certificates are in use")
        except (InvalidInput, OSError) as error:
            log.error("changed certificates are not used: %s", getattr(error, "detail", error))

    def credentials(self) -> grpc.ServerCredentials:
        """For ports of gRPC; they ask at each handshake whether something has changed."""

        given = self._number

        def changed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal given
            if given == self._number:
                return None
            given = self._number
            return self._grpc

        asked: Any = changed  # None says that nothing has; the stubs do not know
        return grpc.dynamic_ssl_server_credentials(self._grpc, asked, require_client_authentication=self.asks_callers)

    def _marks(self) -> object:
        files = (self._certificate, self._key, self._client_ca)
        return [(told.st_mtime_ns, told.st_size, told.st_ino) for told in (one.stat() for one in files if one)]


def _no_password() -> str:
    raise ValueError("the key has a password")
