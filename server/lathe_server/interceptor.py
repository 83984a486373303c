"""The one place where errors become statuses. No exception's text reaches a client but a LatheError's message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any, NoReturn, Self

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from lathe.errors import InternalError, InvalidInput, LatheError, Overloaded
from lathe_server.boundary import for_caller
from lathe_server.origin import Origin, current
from lathe_server.status import abort

OK, CANCELLED = "OK", "CANCELLED"
LOOKS = 8
"""How often a stream is looked at while its client may leave a response unread."""


class ErrorsToStatus(aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Wraps every handler.

    Args:
        max_unread_seconds: a stream whose client takes no response for so long ends.
        on_end: told of each call's method and status.
    """

    def __init__(
        self, max_unread_seconds: float, on_end: Callable[[str, str], None] = lambda method, status: None
    ) -> None:
        self._max_unread_seconds = max_unread_seconds
        self._on_end = on_end
        self._wrapped: dict[str, Any] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        current.set(Origin(handler_call_details.invocation_metadata or ()))  # for this call's own task
        method = handler_call_details.method
        if method not in self._wrapped:
            handler: Any = await continuation(handler_call_details)
            if handler is None:  # an unknown method: gRPC answers UNIMPLEMENTED
                return handler
            self._wrapped[method] = self._wrap(handler, partial(self._on_end, method.lstrip("/")))
        return self._wrapped[method]

    def _wrap(self, handler: Any, on_end: Callable[[str], None]) -> Any:
        parse, serialize, patience = _parser(handler), handler.response_serializer, self._max_unread_seconds
        if handler.unary_unary:
            answer = _unary(handler.unary_unary, parse, on_end)
            return grpc.unary_unary_rpc_method_handler(answer, None, serialize)
        if handler.stream_stream:
            answer = _stream(handler.stream_stream, patience, on_end)
            return grpc.stream_stream_rpc_method_handler(answer, parse, serialize)
        answer = _unary_stream(handler.unary_stream, patience, parse, on_end)
        return grpc.unary_stream_rpc_method_handler(answer, None, serialize)


def _parser(handler: Any) -> Callable[[bytes], Any]:
    """Bytes to a message. gRPC's own answer to bytes that are none would hold the exception's text."""

    def parse(content: bytes) -> Any:
        try:
            return handler.request_deserializer(content)
        except DecodeError as error:
            raise InvalidInput("the bytes are not a message of this method") from error

    return parse


def _unary(
    method: Callable[..., Awaitable[Any]], parse: Callable[[bytes], Any], on_end: Callable[[str], None]
) -> Callable[..., Awaitable[Any]]:
    async def call(content: bytes, context: aio.ServicerContext[Any, Any]) -> Any:
        status = CANCELLED
        try:
            result = method(parse(content), context)
            answer = await result if asyncio.iscoroutine(result) else result
            status = OK
            return answer
        except Exception as error:  # noqa: BLE001  the boundary of the process
            status = _status_of(error)
            await _abort(error, context)
        finally:
            on_end(status)

    return call


def _unary_stream(
    method: Callable[..., AsyncGenerator[Any, None]],
    max_unread_seconds: float,
    parse: Callable[[bytes], Any],
    on_end: Callable[[str], None],
) -> Callable[..., Awaitable[None]]:
    def parsed(content: bytes, context: Any) -> AsyncGenerator[Any, None]:
        return method(parse(content), context)

    return _stream(parsed, max_unread_seconds, on_end)


def _stream(
    method: Callable[..., AsyncGenerator[Any, None]], max_unread_seconds: float, on_end: Callable[[str], None]
) -> Callable[..., Awaitable[None]]:
    async def call(requests: AsyncIterator[Any], context: aio.ServicerContext[Any, Any]) -> None:
        status = CANCELLED
        try:
            answering = method(requests, context)
            if asyncio.iscoroutine(answering):  # as the health service: it writes its responses itself
                await answering
                status = OK
                return
            with _Patience(max_unread_seconds) as patience:
                async with aclosing(answering) as responses:  # closed before the status is sent
                    async for response in responses:
                        patience.waits_since = patience.now()
                        await context.write(response)  # waits while the client's window is full
                        patience.waits_since = None
            status = OK
        except aio.InternalError as error:  # gRPC cannot send: the caller has just left, and hears no status either
            raise asyncio.CancelledError from error
        except Exception as error:  # noqa: BLE001  the boundary of the process
            status = _status_of(error)
            await _abort(error, context)
        finally:
            on_end(status)

    return call


class _Patience:
    """Ends a stream whose client takes nothing; gRPC itself would wait for ever.

    It looks now and then, because a timer for each response would cost more than most responses do.

    Args:
        seconds: a response that waits for longer is the last.

    Raises:
        Overloaded: on leaving, where that came to pass.
    """

    def __init__(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self.now = loop.time
        self.waits_since: float | None = None
        self._call_later = loop.call_later
        self._seconds = seconds
        self._ended = False

    def __enter__(self) -> Self:
        self._stream = asyncio.current_task()
        self._look()
        return self

    def _look(self) -> None:
        if self.waits_since is not None and self.now() - self.waits_since > self._seconds:
            assert self._stream
            self._ended = self._stream.cancel()
        else:
            self._next_look = self._call_later(self._seconds / LOOKS, self._look)

    def __exit__(self, *_: object) -> None:
        self._next_look.cancel()
        if self._ended and self._stream:
            self._stream.uncancel()
            raise Overloaded(f"the client took no response for {self._seconds:g} s") from None


def _status_of(error: Exception) -> str:
    """By the name that the caller gets."""
    return error.status if isinstance(error, LatheError) else InternalError.status


async def _abort(error: Exception, context: aio.ServicerContext[Any, Any]) -> NoReturn:
    if isinstance(error, (aio.AbortError, grpc.RpcError)):
        raise error
    await abort(for_caller(error), context)
