"""grpc.health.v1: whether the server, each of its services and each model takes calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from grpc_health.v1 import health_pb2, health_pb2_grpc

from lathe.errors import NotFound, Overloaded
from lathe_server.calls import Context

MAX_WATCHERS = 1000


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # it has no stubs
    """Statuses by name, the empty one for all; on the event loop only.

    gRPC's own servicer tells watchers one after the other while it holds a lock, so that one who does not listen holds
    up the rest, and the server's end.
    """

    def __init__(self) -> None:
        self._statuses: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._watchers = 0
        self._is_over = False

    def set(self, name: str, status: int) -> None:
        self._statuses[name] = status
        self._wake()

    def close(self) -> None:
        """Lets watchers go."""
        self._is_over = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(  # noqa: N802  the contract's name
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        if request.service not in self._statuses:
            raise NotFound("there is no such service or model here")
        return health_pb2.HealthCheckResponse(status=self._statuses[request.service])

    async def List(  # noqa: N802
        self, request: health_pb2.HealthListRequest, context: Context
    ) -> health_pb2.HealthListResponse:
        found = {name: health_pb2.HealthCheckResponse(status=status) for name, status in self._statuses.items()}
        return health_pb2.HealthListResponse(statuses=found)

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        if self._watchers >= MAX_WATCHERS:
            raise Overloaded(f"{MAX_WATCHERS} watch already; no more are taken")
        self._watchers += 1
        told: int | None = None
        try:
            while True:
                changed = self._changed
                unknown = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
                status = self._statuses.get(request.service, unknown)
                if status != told:
                    told = status
                    yield health_pb2.HealthCheckResponse(status=status)
                elif self._is_over:
                    return
                else:
                    await changed.wait()
        finally:
            self._watchers -= 1
