"""What a fuzz of all messages has found, each with the least that brings it about."""

from __future__ import annotations

from grpc_health.v1 import health_pb2

from tests.calls import channel, send_bytes
from tests.conftest import RunningServer


def test_health_lists_all_that_it_knows(shared_server: RunningServer) -> None:
    with channel(shared_server.grpc) as opened:
        answer = health_pb2.HealthListResponse.FromString(send_bytes(opened, "/grpc.health.v1.Health/List", b""))
    assert {"", "spots", "lathe.v1.InferenceService"} <= answer.statuses.keys()
    assert {one.status for one in answer.statuses.values()} == {health_pb2.HealthCheckResponse.SERVING}
