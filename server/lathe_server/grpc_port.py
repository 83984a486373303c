"""A port of gRPC: who is let in, what becomes of errors, and what one connection may do."""

from __future__ import annotations

from collections.abc import Callable

from grpc import aio

from lathe.errors import AlreadyExists
from lathe_server.access.admission import Admission
from lathe_server.access.gate import Gate
from lathe_server.access.tls import Tls
from lathe_server.access.tokens import Role
from lathe_server.interceptor import ErrorsToStatus
from lathe_server.settings import Settings

MAX_METADATA = 16_384
"""Bytes of a call's headers; tokens of other makes are long."""
SPARE_CALLS = 1000
"""Of one connection, beside the streams that may be open: more wait at their client."""


def new_grpc_port(settings: Settings, gate: Gate, role: Role, on_end: Callable[[str, str], None]) -> aio.Server:
    """
    Args:
        role: that its callers need.
        on_end: told of each call's method and status.
    """
    admission = [Admission(gate, role)] if gate.asks_for_tokens else []
    interceptors = [*admission, ErrorsToStatus(settings.max_unread_seconds, on_end)]
    return aio.server(interceptors=interceptors, options=list(_options(settings).items()))


def _options(settings: Settings) -> dict[str, int]:
    silence = _ms(settings.keepalive_seconds)
    options = {
        "grpc.so_reuseport": 0,  # a port in use is an error, not a shared port
        "grpc.max_receive_message_length": settings.max_message_bytes,
        "grpc.max_metadata_size": MAX_METADATA,
        "grpc.absolute_max_metadata_size": MAX_METADATA,
        "grpc.max_concurrent_streams": settings.max_streams + SPARE_CALLS,
        "grpc.server_handshake_timeout_ms": _ms(settings.handshake_seconds),
        "grpc.keepalive_time_ms": silence,
        "grpc.keepalive_timeout_ms": silence // 2,
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.http2.ping_timeout_ms": silence // 2,  # otherwise it waits for a minute whatever the one above says
        "grpc.http2.min_ping_interval_without_data_ms": 5_000,  # clients may ask as often whether this end lives
    }
    if settings.max_connection_seconds:
        options["grpc.max_connection_age_ms"] = _ms(settings.max_connection_seconds)
        options["grpc.max_connection_age_grace_ms"] = _ms(settings.drain_seconds)
    return options


def bind(server: aio.Server, address: str, tls: Tls | None) -> str:
    """Takes an address, and returns it with its number where that was 0.

    Raises:
        AlreadyExists: it is in use.
    """
    host, _, _ = address.rpartition(":")
    try:
        port = server.add_secure_port(address, tls.credentials()) if tls else server.add_insecure_port(address)
    except RuntimeError as error:
        raise AlreadyExists(f"the address {address} cannot be opened; is it in use?") from error
    return f"{host}:{port}"


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
