"""What a fuzz of all messages has found, each with the least that brings it about."""

from __future__ import annotations

from grpc_health.v1 import health_pb2

from lathe.repository import Repository
from tests.calls import channel, metric, send_bytes, until
from tests.conftest import RunningServer
from tests.models import bright_spots
from tests.server.conftest import publish_tensors


def test_health_lists_all_that_it_knows(shared_server: RunningServer) -> None:
    with channel(shared_server.grpc) as opened:
        answer = health_pb2.HealthListResponse.FromString(send_bytes(opened, "/grpc.health.v1.Health/List", b""))
    assert {"", "spots", "lathe.v1.InferenceService"} <= answer.statuses.keys()
    assert {one.status for one in answer.statuses.values()} == {health_pb2.HealthCheckResponse.SERVING}


def test_a_shadow_that_takes_tensors_fails_to_compare_and_is_no_error_of_the_server(
    server: RunningServer, repository: Repository, spot_jpeg: bytes
) -> None:
    publish_tensors(repository.root, "spots/plain", bright_spots())
    with server.client() as client:
        client.set_route("spots", {"a": 1}, shadow="plain", shadow_share=1.0)
        client.detect("spots", spot_jpeg)
    until(lambda: metric(server, "lathe_shadow_frames_total", variant="plain", outcome="failed") == 1)
    assert "internal error" not in server.log.read_text("utf-8")
