"""The one place where errors become statuses. No exception's text reaches a client but a LatheError's message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, NoReturn, Self

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from lathe.errors import InvalidInput, Overloaded
from lathe_server.boundary import told
from lathe_server.origin import Origin, current
from lathe_server.status import abort

LOOKS = 8
"""How often a stream is looked at while its client may leave a response unread."""


class ErrorsToStatus(aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Wraps every handler.

    Args:
        max_unread_seconds: a stream whose client takes no response for so long ends.
    """

    def __init__(self, max_unread_seconds: float) -> None:
        self._max_unread_seconds = max_unread_seconds
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
            self._wrapped[method] = self._wrap(handler)
        return self._wrapped[method]

    def _wrap(self, handler: Any) -> Any:
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(
                _unary(handler.unary_unary, _parser(handler)), None, handler.response_serializer
            )
        if handler.stream_stream:
            return grpc.stream_stream_rpc_method_handler(
                _stream(handler.stream_stream, self._max_unread_seconds), _parser(handler), handler.response_serializer
            )
        return grpc.unary_stream_rpc_method_handler(
            _unary_stream(handler.unary_stream, self._max_unread_seconds, _parser(handler)),
            None,
            handler.response_serializer,
        )


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


def _unary_stream(
    method: Callable[..., AsyncGenerator[Any, None]], max_unread_seconds: float, parse: Callable[[bytes], Any]
) -> Callable[..., Awaitable[None]]:
    def parsed(content: bytes, context: Any) -> AsyncGenerator[Any, None]:
        return method(parse(content), context)

    return _stream(parsed, max_unread_seconds)


def _stream(
    method: Callable[..., AsyncGenerator[Any, None]], max_unread_seconds: float
) -> Callable[..., Awaitable[None]]:
    async def call(requests: AsyncIterator[Any], context: aio.ServicerContext[Any, Any]) -> None:
        try:
            answering = method(requests, context)
            if asyncio.iscoroutine(answering):  # as the health service: it writes its responses itself
                await answering
                return
            with _Patience(max_unread_seconds) as patience:
                async with aclosing(answering) as responses:  # closed before the status is sent
                    async for response in responses:
                        patience.waits_since = patience.now()
                        await context.write(response)  # waits while the client's window is full
                        patience.waits_since = None
        except Exception as error:  # noqa: BLE001  the boundary of the process
            await _abort(error, context)

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


async def _abort(error: Exception, context: aio.ServicerContext[Any, Any]) -> NoReturn:
    if isinstance(error, (aio.AbortError, grpc.RpcError)):
        raise error
    await abort(told(error), context)
