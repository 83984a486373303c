"""The end of a server: SIGTERM under load, a second one, a swap that comes too late, a load that hangs."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from onnx import TensorProto, helper, numpy_helper

from lathe.errors import Refused
from lathe.repository import Repository
from lathe.v1 import control_pb2, inference_pb2, inference_pb2_grpc
from lathe_server.events import Events
from lathe_server.manager import Manager
from lathe_server.metrics import Metrics
from lathe_server.router import Router
from lathe_server.routes import Routes
from lathe_server.server import Server
from lathe_server.settings import Settings
from tests.calls import channel, config, control, frame, inference, outcomes, refusal, stream, until
from tests.conftest import RunningServer, start_server
from tests.models import bright_spots, card_for

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
FREE = "127.0.0.1:0"


class Camera(threading.Thread):
    """Streams without end until the server ends the stream."""

    def __init__(self, address: str, picture: bytes) -> None:
        super().__init__(daemon=True)
        self.results: list[inference_pb2.Result] = []
        self.error: grpc.RpcError | None = None
        self._address = address
        self._picture = picture

    def run(self) -> None:
        def requests() -> object:
            yield config()
            for index in range(10**6):
                yield frame(index, self._picture)
                until(lambda behind=index - 3: len(self.results) > behind or self.error)

        with channel(self._address) as opened:
            try:
                for result in stream(opened, requests(), 60):  # type: ignore[arg-type]
                    self.results += [result]
            except grpc.RpcError as error:
                self.error = error


class Caller(threading.Thread):
    """Asks about one picture after another until an answer is an error."""

    def __init__(self, address: str, picture: bytes) -> None:
        super().__init__(daemon=True)
        self.results: list[inference_pb2.Result] = []
        self.error: grpc.RpcError | None = None
        self._address = address
        self._request = inference_pb2.DetectRequest(model="spots", frame=inference_pb2.Frame(encoded=picture))

    def run(self) -> None:
        with channel(self._address) as opened:
            try:
                while True:
                    self.results.append(inference(opened).Detect(self._request, timeout=60).result)
            except grpc.RpcError as error:
                self.error = error


@pytest.mark.fault(79)
def test_sigterm_under_load_says_so_answers_what_is_in_hand_and_exits_with_0(
    server: RunningServer, spot_jpeg: bytes
) -> None:
    cameras = [Camera(server.grpc, spot_jpeg) for _ in range(16)]
    callers = [Caller(server.grpc, spot_jpeg) for _ in range(8)]
    with channel(server.grpc) as opened:
        health = health_pb2_grpc.HealthStub(opened)
        watch = health.Watch(health_pb2.HealthCheckRequest(service="lathe.v1.InferenceService"))
        assert next(watch).status == SERVING
        for one in (*cameras, *callers):
            one.start()
        until(lambda: all(len(one.results) > 5 for one in (*cameras, *callers)))
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert next(watch).status == NOT_SERVING
    assert server.process.wait(15) == 0
    assert time.monotonic() - began < 10
    for camera in cameras:
        camera.join(10)
        assert [result.index for result in camera.results] == list(range(len(camera.results)))
        assert set(outcomes(camera.results)) <= {"answered", "dropped_superseded", "dropped_draining"}
        assert camera.error
        assert camera.error.code() is grpc.StatusCode.UNAVAILABLE
    for caller in callers:
        caller.join(10)
        assert set(outcomes(caller.results)) == {"answered"}
        assert caller.error
        assert caller.error.code() is grpc.StatusCode.UNAVAILABLE
    assert "Traceback" not in server.log.read_text()


@contextmanager
def silent_stream(repository: Repository, log: Path, *, drain_seconds: str) -> Iterator[tuple[RunningServer, Any]]:
    """A server with an open stream whose client says nothing, not even its configuration."""
    leave = threading.Event()

    def silent() -> Iterator[inference_pb2.DetectStreamRequest]:
        leave.wait(30)
        yield config()

    with (
        start_server(repository.root, log, "--drain-seconds", drain_seconds) as server,
        channel(server.grpc) as opened,
    ):
        call = inference(opened).DetectStream(silent())
        with server.client() as client:
            client.route("spots")
        yield server, call
        leave.set()


@pytest.mark.fault(79)
def test_a_silent_stream_does_not_hold_the_exit_beyond_the_grace_time(repository: Repository, tmp_path: Path) -> None:
    with silent_stream(repository, tmp_path / "log", drain_seconds="0.5") as (server, call):
        assert server.stop() == 0
        assert refusal(lambda: list(call)).code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


@pytest.mark.fault(79)
def test_a_second_sigterm_ends_at_once(repository: Repository, tmp_path: Path) -> None:
    with silent_stream(repository, tmp_path / "log", drain_seconds="60") as (server, call):
        server.process.send_signal(signal.SIGTERM)
        until(lambda: "draining" in server.log.read_text())
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(5) == 1
        refusal(lambda: list(call))


@pytest.mark.fault(79)
def test_frames_that_hang_and_a_silent_stream_share_one_grace_time(repository: Repository) -> None:
    async def drain() -> float:
        server = Server(repository, Settings(grpc=FREE, http=FREE, control=FREE, drain_seconds=2.0))
        await server.startup()
        server._pipeline.drain = asyncio.Event().wait  # type: ignore[method-assign,assignment]
        async with aio.insecure_channel(server.addresses["grpc"]) as opened:
            call = inference_pb2_grpc.InferenceServiceStub(opened).DetectStream()
            await call.wait_for_connection()
            began = time.monotonic()
            await server.drain()
            return time.monotonic() - began

    assert 2.0 <= asyncio.run(drain()) < 3.5


@pytest.mark.fault(37, 79)
def test_sigterm_before_the_server_is_ready_ends_it_at_once(repository: Repository, tmp_path: Path) -> None:
    repository.publish(card_for("spots", "endless", recommended=True), endless())
    log = tmp_path / "log"
    command = [sys.executable, "-m", "lathe", "serve", str(repository.root)]
    with log.open("w") as errors:
        process = subprocess.Popen(
            [*command, "--grpc", FREE, "--http", FREE, "--control", FREE], stdout=subprocess.PIPE, stderr=errors
        )
    try:
        until(lambda: "endless serves" in log.read_text())
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=5)
        assert (process.returncode, said) == (0, b"")
    finally:
        process.kill()
        process.wait()


@pytest.mark.fault(58)
def test_a_swap_after_the_drain_has_begun_is_refused(repository: Repository) -> None:
    async def swap() -> None:
        manager = Manager(lambda ref, reached: pytest.fail("nothing may be loaded"), load_seconds=5)
        metrics = Metrics()
        routes = Routes(repository, Router(1), manager, metrics, Events(metrics))
        routes.close()
        weights = [control_pb2.RouteWeight(variant="a", weight=1)]
        with pytest.raises(Refused, match="shutting down"):
            await routes.set_route(control_pb2.SetRouteRequest(model="spots", weights=weights))

    asyncio.run(swap())


def endless() -> bytes:
    """A network that loops for ever."""
    model = onnx.load_from_string(bright_spots())
    again = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Identity", ["before"], ["after"])],
        "again",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, None),
        ],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node[4].CopyFrom(helper.make_node("Loop", ["", "yes", "cells"], ["heatmap"], body=again))
    return bytes(model.SerializeToString())


@pytest.mark.fault(37, 79)
def test_a_model_that_never_answers_is_timed_out_and_does_not_hold_the_exit(
    repository: Repository, tmp_path: Path, spot_jpeg: bytes
) -> None:
    repository.publish(card_for("spots", "endless"), endless())
    with start_server(repository.root, tmp_path / "log", "--load-seconds", "0.5") as server:
        with channel(server.control) as opened, server.client() as client:
            weights = [control_pb2.RouteWeight(variant="endless", weight=1)]
            request = control_pb2.SetRouteRequest(model="spots", weights=weights)
            error = refusal(lambda: control(opened).SetRoute(request))
            assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert "not loaded within 0.5 s" in error.details()
            assert client.detect("spots", spot_jpeg).variant == "a"
            assert client.set_route("spots", {"b": 1}).revision == 1
        assert server.stop() == 0
