"""The gate before a port of gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any

import grpc
from grpc import aio

from lathe.errors import LatheError
from lathe_server.access.gate import Gate
from lathe_server.access.tokens import Identity, Role
from lathe_server.origin import current
from lathe_server.status import abort

OPEN = "/grpc.health.v1.Health/"
"""Probes have no tokens."""
OTHER_ROLES: Mapping[str, Role] = MappingProxyType(
    {
        "/inference.GRPCInferenceService/RepositoryModelLoad": "control",
        "/inference.GRPCInferenceService/RepositoryModelUnload": "control",
        "/lathe.v1.GalleryService/Enroll": "gallery",
        "/lathe.v1.GalleryService/Delete": "gallery",
        "/lathe.v1.GalleryService/Export": "gallery",
        "/lathe.v1.GalleryService/ReEnroll": "gallery",
    }
)
"""Methods of the inference port that need another role than it."""


class Admission(aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Lets calls through whose tokens are good; for a gate that asks for tokens.

    Args:
        role: that the port's methods need, but for those in `OTHER_ROLES`.
    """

    def __init__(self, gate: Gate, role: Role) -> None:
        self._gate = gate
        self._role = role

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler: Any = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(OPEN):
            return handler
        role = OTHER_ROLES.get(method, self._role)
        try:
            origin = current.get()
            origin.caller = identity = self._gate.admit(origin.header("authorization"), role)
        except LatheError as error:
            return _refusing(error)
        return self._counted(handler, identity)

    def _counted(self, handler: Any, identity: Identity | None) -> Any:
        """A stream holds one of its identity's places."""

        def counting(answer: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
            async def stream(request_or_requests: Any, context: Any) -> None:
                try:
                    with self._gate.stream(identity):
                        await answer(request_or_requests, context)
                except LatheError as error:
                    await abort(error, context)

            return stream

        if handler.stream_stream:
            return grpc.stream_stream_rpc_method_handler(
                counting(handler.stream_stream), handler.request_deserializer, handler.response_serializer
            )
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                counting(handler.unary_stream), handler.request_deserializer, handler.response_serializer
            )
        return handler


def _refusing(error: LatheError) -> Any:
    """A handler that says no at once, before the caller's message has come."""

    async def answer(requests: AsyncIterator[Any], context: Any) -> None:
        await abort(error, context)

    return grpc.stream_stream_rpc_method_handler(answer)
