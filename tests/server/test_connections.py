"""Connections that fall silent, dawdle, grow old, or come by the thousand: they end, and nobody else is harmed."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from lathe.repository import Repository
from lathe.v1 import inference_pb2
from lathe_loadtest.fault_proxy import Proxy
from tests.calls import DETECT_STREAM, channel, config, frame, inference, metric, outcomes, refusal, stream, until
from tests.conftest import RunningServer, start_server
from tests.models import bright_spots, card_for

SERVING = health_pb2.HealthCheckResponse.SERVING
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def held(leave: threading.Event, *messages: inference_pb2.DetectStreamRequest) -> Iterator[object]:
    """Messages, and then silence."""
    yield from messages
    leave.wait(30)


@pytest.mark.fault(63)
def test_a_connection_whose_other_end_is_gone_without_a_word_is_closed(
    repository: Repository, tmp_path: Path, spot_jpeg: bytes
) -> None:
    leave = threading.Event()
    flags = ("--keepalive-seconds", "0.4")
    with (
        start_server(repository.root, tmp_path / "log", *flags) as server,
        Proxy(server.grpc) as proxy,
        channel(proxy.address) as opened,
    ):
        call = inference(opened).DetectStream(held(leave, config(), frame(0, spot_jpeg)))
        assert next(call).result.outcome == inference_pb2.OUTCOME_ANSWERED
        proxy.cut("silence")
        until(lambda: metric(server, "lathe_streams") == 0)
        with server.client() as client:
            assert client.detect("spots", spot_jpeg).answered
        leave.set()
        call.cancel()


@pytest.mark.fault(64)
@pytest.mark.parametrize(
    ("said", "trickled"),
    [(b"", b""), (b"", PREFACE), (PREFACE, bytes(9))],
    ids=["nothing", "its first words byte by byte", "no settings, byte by byte"],
)
def test_a_connection_that_never_gets_to_speak_is_closed(
    repository: Repository, tmp_path: Path, spot_jpeg: bytes, said: bytes, trickled: bytes
) -> None:
    with start_server(repository.root, tmp_path / "log", "--handshake-seconds", "0.5") as server:
        host, _, port = server.grpc.rpartition(":")
        with socket.create_connection((host, int(port))) as dawdler:
            dawdler.sendall(said)
            sent = _sent_until_closed(dawdler, trickled)
        assert sent < len(trickled) or not trickled
        with server.client() as client:
            assert client.detect("spots", spot_jpeg).answered


def _sent_until_closed(connection: socket.socket, trickle: bytes) -> int:
    """Sends a byte now and then until the other end closes; how many."""
    connection.settimeout(0.1)
    end, sent = time.monotonic() + 10, 0
    while time.monotonic() < end:
        try:
            if not connection.recv(4096):
                return sent
        except TimeoutError:
            if sent < len(trickle):
                connection.send(trickle[sent : sent + 1])
                sent += 1
        except ConnectionError:
            return sent
    pytest.fail("the connection was not closed")


@pytest.mark.fault(64)
def test_a_frame_that_never_comes_whole_harms_nobody(server: RunningServer, spot_jpeg: bytes) -> None:
    """It costs its stream's place, and what has come of it so far; the place is free when the stream is ended."""
    with Proxy(server.grpc) as proxy, channel(proxy.address) as slow, channel(server.grpc) as opened:
        leave = threading.Event()
        call = inference(slow).DetectStream(held(leave, config(), frame(0, spot_jpeg), frame(1, bytes(30 << 20))))
        assert next(call).result.outcome == inference_pb2.OUTCOME_ANSWERED
        proxy.cut("silence")  # somewhere within the 30 MB
        frames = [config(keep_all=True), *(frame(index, spot_jpeg) for index in range(20))]
        assert outcomes(stream(opened, frames)) == ["answered"] * 20
        leave.set()
    until(lambda: metric(server, "lathe_streams") == 0)


@pytest.mark.fault(71)
def test_an_old_connection_is_asked_to_come_anew_and_its_stream_told(
    repository: Repository, tmp_path: Path, spot_jpeg: bytes
) -> None:
    flags = ("--max-connection-seconds", "0.3", "--drain-seconds", "0.3")
    leave = threading.Event()
    with start_server(repository.root, tmp_path / "log", *flags) as server, channel(server.grpc) as opened:
        call = inference(opened).DetectStream(held(leave, config(), frame(0, spot_jpeg)))
        assert next(call).result.outcome == inference_pb2.OUTCOME_ANSWERED
        error = refusal(lambda: next(call))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert outcomes(stream(opened, [config(), frame(1, spot_jpeg)])) == ["answered"]
        leave.set()
    assert "Traceback" not in server.log.read_text()


@pytest.mark.fault(66)
def test_a_thousand_idle_streams_leave_room_for_the_others(
    repository: Repository, tmp_path: Path, spot_jpeg: bytes
) -> None:
    flags = ("--max-streams", "1001")
    leave = threading.Event()
    with start_server(repository.root, tmp_path / "log", *flags) as server:
        idle = [grpc.insecure_channel(server.grpc, [("grpc.use_local_subchannel_pool", 1)]) for _ in range(10)]
        opening = config().SerializeToString()
        calls = []
        for one in idle:
            open_stream = one.stream_stream(DETECT_STREAM)
            calls += [open_stream(_first_then_wait(opening, leave)) for _ in range(100)]
        until(lambda: metric(server, "lathe_streams") == 1000, 60)
        with channel(server.grpc) as opened:
            frames = [config(keep_all=True), *(frame(index, spot_jpeg) for index in range(20))]
            assert outcomes(stream(opened, frames)) == ["answered"] * 20
            until(lambda: metric(server, "lathe_streams") == 1000)
            wait = threading.Event()
            extra = inference(opened).DetectStream(held(wait, config()))
            until(lambda: metric(server, "lathe_streams") == 1001)
            one_more = refusal(lambda: list(stream(opened, [config()])))
            assert one_more.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            wait.set()
            extra.cancel()
        leave.set()
        for call in calls:
            call.cancel()
        until(lambda: metric(server, "lathe_streams") == 0, 30)
        for one in idle:
            one.close()


def _first_then_wait(message: bytes, leave: threading.Event) -> Iterator[bytes]:
    yield message
    leave.wait(60)


def test_a_model_has_a_health_of_its_own_from_its_first_route_on(repository: Repository, server: RunningServer) -> None:
    with channel(server.grpc) as opened, server.client() as client:
        health = health_pb2_grpc.HealthStub(opened)
        request = health_pb2.HealthCheckRequest(service="late")
        assert refusal(lambda: health.Check(request)).code() is grpc.StatusCode.NOT_FOUND
        watch = health.Watch(request)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        repository.publish(card_for("late", "a"), bright_spots())
        client.set_route("late", {"a": 1})
        assert next(watch).status == SERVING
        assert health.Check(request).status == SERVING


@pytest.mark.parametrize("setting", ["on", "off"])
def test_reflection_may_be_turned_off(repository: Repository, tmp_path: Path, setting: str) -> None:
    with (
        start_server(repository.root, tmp_path / "log", "--reflection", setting) as server,
        channel(server.grpc) as opened,
    ):
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        reflected = reflection_pb2_grpc.ServerReflectionStub(opened).ServerReflectionInfo(iter([ask]))
        if setting == "off":
            assert refusal(lambda: list(reflected)).code() is grpc.StatusCode.UNIMPLEMENTED
        else:
            names = {service.name for service in next(reflected).list_services_response.service}
            assert {"lathe.v1.InferenceService", "inference.GRPCInferenceService", "grpc.health.v1.Health"} <= names
