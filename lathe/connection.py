"""How a client shows who it is, and knows whom it talks to."""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lathe.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    import ssl

    from grpc import aio

VARIABLES = {
    "LATHE_TOKEN": "token",
    "LATHE_CA": "ca",
    "LATHE_CERTIFICATE": "certificate",
    "LATHE_KEY": "key",
    "LATHE_PLAIN_TEXT": "plain_text",
}
"""Environment variables by which clients and commands take them."""

RETRIED = {
    "lathe.v1.InferenceService": ("Detect", "Embed"),
    "lathe.v1.GalleryService": ("Verify", "Identify", "Describe"),
    "lathe.v1.ControlService": ("ListVariants", "GetRoute", "GetExperiment"),
}
"""Methods that change nothing, by service: asked again where no server answered. All others are sent once."""

_RETRY = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "backoffMultiplier": 2,
    "maxBackoff": "1s",
    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],  # the second of a server that is just closing
}
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": service, "method": method} for service in RETRIED for method in RETRIED[service]],
            "retryPolicy": _RETRY,
        }
    ]
}
_MESSAGE_BYTES = 64 * 2**20
_OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.max_receive_message_length", _MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MESSAGE_BYTES),
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.per_rpc_retry_buffer_size", _MESSAGE_BYTES),  # a request that does not fit would not be sent again
    ("grpc.initial_reconnect_backoff_ms", 100),  # a server that was restarted is found soon
    ("grpc.max_reconnect_backoff_ms", 1_000),
]

PING_SECONDS = 10.0
"""A connection that has been silent for so long is asked whether it is there: what passes connections on may forget
one and tell nobody. Lathe's servers take pings every five seconds."""
RARE_PING_SECONDS = 310.0
"""What any server or proxy of gRPC takes. It hangs up on who asks more often, unless it was told otherwise, and a call
that may say nothing for minutes and is not sent again must not be lost by that."""
_PONG_SECONDS = 10.0


@dataclass(frozen=True)
class Connection:
    """Attributes:
    token: good for what the caller wants to do; empty where none is asked for.
    ca: PEM file of the root that vouches for the server; empty talks in plain text.
    certificate, key: PEM files of the caller, where the server asks for them.
    plain_text: `yes` lets the token cross the network unprotected, as where a proxy on this machine encrypts.
    """

    token: str = field(default="", repr=False)
    ca: str = ""
    certificate: str = ""
    key: str = ""
    plain_text: str = ""

    def __post_init__(self) -> None:
        if not self.token.isascii() or not self.token.isprintable() or " " in self.token:
            raise InvalidInput("a token is one word of printable ASCII")
        if bool(self.certificate) != bool(self.key) or (self.certificate and not self.ca):
            raise InvalidInput("a certificate goes with its key, and with the root that vouches for the server")

    @staticmethod
    def from_environment(environment: Mapping[str, str] = os.environ) -> Connection:
        """As the variables LATHE_TOKEN, LATHE_CA, LATHE_CERTIFICATE and LATHE_KEY say."""
        return Connection(**{name: environment[key] for key, name in VARIABLES.items() if key in environment})

    def check(self, address: str) -> None:
        """
        Args:
            address: HOST:PORT of the server, to which the token is shown.

        Raises:
            InvalidInput: the token would cross the network in plain text.
        """
        if self.token and not self.ca and self.plain_text != "yes" and not is_loopback(address):
            raise InvalidInput("the token would cross the network in plain text: set LATHE_CA, or LATHE_PLAIN_TEXT=yes")

    def channel(self, address: str, *, ping_seconds: float = RARE_PING_SECONDS) -> aio.Channel:
        """
        Args:
            ping_seconds: how long it may be silent while a call is open before it is asked whether it is there.

        Raises:
            InvalidInput: the token would cross the network in plain text.
            NotFound: one of the files cannot be read.
        """
        import grpc
        from grpc import aio

        self.check(address)
        options = [*_OPTIONS, *_pings(ping_seconds)]
        if not self.ca:
            return aio.insecure_channel(address, options=options)
        ca, key, certificate = (_content(path) for path in (self.ca, self.key, self.certificate))
        return aio.secure_channel(address, grpc.ssl_channel_credentials(ca, key, certificate), options=options)

    def ssl_context(self) -> ssl.SSLContext | None:
        """For the HTTP port; None talks in plain text.

        Raises:
            NotFound: one of the files cannot be read.
            InvalidInput: they do not go together.
        """
        import ssl

        if not self.ca:
            return None
        for path in (self.ca, self.certificate, self.key):
            _content(path)  # says which one cannot be read
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.certificate:
                context.load_cert_chain(self.certificate, self.key)
        except (OSError, ValueError) as error:
            raise InvalidInput("the root, the certificate and its key do not go together", detail=str(error)) from error
        return context

    def on(self, stub: Any) -> Any:
        """A stub whose calls show the token."""
        return _Showing(stub, (("authorization", f"Bearer {self.token}"),)) if self.token else stub


def is_loopback(address: str) -> bool:
    """
    >>> [is_loopback(address) for address in ("127.0.0.1:1", "localhost:1", "[::1]:1")]
    [True, True, True]
    >>> [is_loopback(address) for address in ("0.0.0.0:1", "[::]:1", "127.gate:1")]
    [False, False, False]
    """
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _pings(seconds: float) -> list[tuple[str, int]]:
    return [
        ("grpc.keepalive_time_ms", round(seconds * 1e3)),
        ("grpc.keepalive_timeout_ms", round(_PONG_SECONDS * 1e3)),
        ("grpc.http2.ping_timeout_ms", round(_PONG_SECONDS * 1e3)),  # 60 s otherwise, whatever keepalive_timeout says
        ("grpc.http2.max_pings_without_data", 0),  # no limit
    ]


class _Showing:
    def __init__(self, stub: Any, metadata: tuple[tuple[str, str], ...]) -> None:
        self._stub = stub
        self._metadata = metadata

    def __getattr__(self, name: str) -> Any:
        return partial(getattr(self._stub, name), metadata=self._metadata)


def _content(path: str) -> bytes | None:
    try:
        return Path(path).read_bytes() if path else None
    except OSError as error:
        raise NotFound(f"the file {path} cannot be read", detail=str(error)) from error
