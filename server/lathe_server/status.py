"""A LatheError as a status: its code, its words, and google.rpc's details for those who read them by program."""

from __future__ import annotations

import re
from typing import Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as Packed
from google.rpc import error_details_pb2, status_pb2

from lathe.errors import InvalidInput, LatheError, Overloaded, Unavailable
from lathe_server.origin import current

DOMAIN = "lathe"
DETAILS_KEY = "grpc-status-details-bin"
"""Trailing metadata by which gRPC's libraries find the details."""
RETRY_SECONDS = 1
MAX_MESSAGE = 1000
"""Characters: trailing metadata has its limit, and holds the message more than once."""


async def abort(error: LatheError, context: Any) -> NoReturn:
    """Ends a call with an error."""
    code = grpc.StatusCode[error.status]
    message = error.message[:MAX_MESSAGE]
    trailer = ((DETAILS_KEY, details(error, current.get().request_id).SerializeToString()),)
    await context.abort(code, message, trailing_metadata=trailer)
    raise AssertionError("an aborted call goes no further")


def details(error: LatheError, request_id: str = "") -> status_pb2.Status:
    """The reason is the error's class in capitals, such as NOT_FOUND; what is worth another try says when.

    Args:
        request_id: of the call, as the log has it.

    >>> info = error_details_pb2.ErrorInfo()
    >>> details(Overloaded("too much")).details[0].Unpack(info)
    True
    >>> info.reason, info.domain
    ('OVERLOADED', 'lathe')
    """
    code: Any = grpc.StatusCode[error.status].value
    found: list[Any] = [error_details_pb2.ErrorInfo(reason=_reason(error), domain=DOMAIN)]
    if request_id:
        found.append(error_details_pb2.RequestInfo(request_id=request_id))
    if isinstance(error, InvalidInput):
        violation = error_details_pb2.BadRequest.FieldViolation(description=error.message[:MAX_MESSAGE])
        found.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, Overloaded | Unavailable):
        found.append(error_details_pb2.RetryInfo(retry_delay={"seconds": RETRY_SECONDS}))
    status = status_pb2.Status(code=code[0], message=error.message[:MAX_MESSAGE])
    for one in found:
        packed = Packed()
        packed.Pack(one)
        status.details.append(packed)
    return status


def _reason(error: LatheError) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__).upper()
