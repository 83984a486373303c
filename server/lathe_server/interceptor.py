"""The one place where errors become statuses. No exception's text reaches a client but a LatheError's message."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from lathe.errors import InvalidInput, LatheError, Overloaded
from lathe_server.pipeline import internal_error

log = logging.getLogger(__name__)


class ErrorsToStatus(aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Wraps every handler.

    Args:
        max_unread_seconds: a stream whose client takes no response for so long ends.
    """

    def __init__(self, max_unread_seconds: float) -> None:
        self._max_unread_seconds = max_unread_seconds

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler: Any = await continuation(handler_call_details)
        if handler is None:  # an unknown method: gRPC answers UNIMPLEMENTED
            return handler
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(
                _unary(handler.unary_unary, _parser(handler)), None, handler.response_serializer
            )
        if handler.stream_stream:
            return grpc.stream_stream_rpc_method_handler(
                _stream(handler.stream_stream, self._max_unread_seconds), _parser(handler), handler.response_serializer
            )
        return handler


def _parser(handler: Any) -> Callable[[bytes], Any]:
    """Bytes to a message. gRPC's own answer to bytes that are none would hold the exception's text."""

    def parse(content: bytes) -> Any:
        try:
            return handler.request_deserializer(content)
        except DecodeError as error:
            raise InvalidInput("the bytes are not a message of this method") from error

    return parse


def _unary(method: Callable[..., Awaitable[Any]], parse: Callable[[bytes], Any]) -> Callable[..., Awaitable[Any]]:
    async def call(content: bytes, context: aio.ServicerContext[Any, Any]) -> Any:
        try:
            result = method(parse(content), context)
            return await result if asyncio.iscoroutine(result) else result
        except Exception as error:  # noqa: BLE001  the boundary of the process
            await _abort(error, context)

    return call


def _stream(
    method: Callable[..., AsyncGenerator[Any, None]], max_unread_seconds: float
) -> Callable[..., Awaitable[None]]:
    async def call(requests: AsyncIterator[Any], context: aio.ServicerContext[Any, Any]) -> None:
        try:
            async with aclosing(method(requests, context)) as responses:  # closed before the status is sent
                async for response in responses:
                    await write(response, context)
        except Exception as error:  # noqa: BLE001  the boundary of the process
            await _abort(error, context)

    async def write(response: Any, context: aio.ServicerContext[Any, Any]) -> None:
        """Waits while the client's window is full; gRPC itself would wait for ever."""
        try:
            async with asyncio.timeout(max_unread_seconds):
                await context.write(response)
        except TimeoutError:
            raise Overloaded(f"the client took no response for {max_unread_seconds:g} s") from None

    return call


async def _abort(error: Exception, context: aio.ServicerContext[Any, Any]) -> NoReturn:
    if isinstance(error, (aio.AbortError, grpc.RpcError)):
        raise error
    if not isinstance(error, LatheError):
        error = internal_error(error)
    elif error.detail:
        log.warning("%s: %s", error.message, error.detail)
    await context.abort(grpc.StatusCode[error.status], error.message)
