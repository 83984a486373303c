"""What a server answers instead of a result, as errors of ours."""

from __future__ import annotations

from typing import Any

import grpc
from grpc import aio

from lathe.errors import LatheError, Unavailable


class ServerError(LatheError):
    """The server's answer was an error.

    Attributes:
        code: its gRPC status.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


async def translated(call: Any) -> Any:
    """Awaits a call; its error becomes ours."""
    try:
        return await call
    except aio.AioRpcError as error:
        raise server_error(error.code(), error.details() or "") from None


_LOST = ("connect", "socket", "stream removed", "cancelling all calls")


def server_error(code: grpc.StatusCode, details: str) -> LatheError:
    # gRPC's own texts, which name addresses.
    if code is grpc.StatusCode.UNAVAILABLE and "failed to connect" in details.lower():
        return Unavailable("no server answers at that address")
    if code is grpc.StatusCode.UNAVAILABLE and any(words in details.lower() for words in _LOST):
        return Unavailable("the connection to the server was lost")
    return ServerError(code, details)
