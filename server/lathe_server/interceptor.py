"""The one place where errors become statuses. No exception's text reaches a client but a LatheError's message."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import grpc
from grpc import aio

from lathe.errors import LatheError
from lathe_server.pipeline import internal_error

log = logging.getLogger(__name__)


class ErrorsToStatus(aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Wraps every handler."""

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
                _unary(handler.unary_unary), handler.request_deserializer, handler.response_serializer
            )
        if handler.stream_stream:
            return grpc.stream_stream_rpc_method_handler(
                _stream(handler.stream_stream), handler.request_deserializer, handler.response_serializer
            )
        return handler


def _unary(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def call(request: Any, context: aio.ServicerContext[Any, Any]) -> Any:
        try:
            result = method(request, context)
            return await result if asyncio.iscoroutine(result) else result
        except Exception as error:  # noqa: BLE001  the boundary of the process
            await _abort(error, context)

    return call


def _stream(method: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
    async def call(requests: AsyncIterator[Any], context: aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        try:
            async for response in method(requests, context):
                yield response
        except Exception as error:  # noqa: BLE001  the boundary of the process
            await _abort(error, context)

    return call


async def _abort(error: Exception, context: aio.ServicerContext[Any, Any]) -> NoReturn:
    if isinstance(error, (aio.AbortError, grpc.RpcError)):
        raise error
    if not isinstance(error, LatheError):
        error = internal_error(error)
    elif error.detail:
        log.warning("%s: %s", error.message, error.detail)
    await context.abort(grpc.StatusCode[error.status], error.message)
