"""What a fuzz of all messages has found, each with the least that brings it about."""

from __future__ import annotations

import asyncio
import gc
import threading
from pathlib import Path

import grpc
import numpy as np
from grpc_health.v1 import health_pb2
from onnx import TensorProto, helper

from lathe.errors import NotFound
from lathe.repository import Repository
from lathe.v1 import card_pb2
from lathe_server.access.audit import through
from tests.calls import channel, metric, send_bytes, until
from tests.conftest import RunningServer, start_server
from tests.models import bright_spots, card_for, model_bytes
from tests.server.conftest import publish_tensors
from tests.server.test_open_inference import call, image_request


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


def test_pictures_of_one_call_that_meet_a_swap_to_other_landmarks_are_asked_for_again(
    repository: Repository, tmp_path: Path, spot_jpeg: bytes
) -> None:
    bare = card_for("spots", "bare")
    bare.decoder = card_pb2.DECODER_BOXES
    repository.publish(bare, without_landmarks())
    over, ends = threading.Event(), list[tuple[str, str]]()

    def swap(server: RunningServer) -> None:
        with server.client() as client:
            while not over.is_set():
                for variant in ("bare", "a"):
                    client.set_route("spots", {variant: 1})

    def meets_a_swap() -> bool:
        try:
            call(opened, "ModelInfer", image_request(*[spot_jpeg] * 64))
        except grpc.RpcError as error:
            ends.append((error.code().name, error.details() or ""))
        return bool(ends)

    with start_server(repository.root, tmp_path / "log") as server, channel(server.grpc) as opened:
        swapping = threading.Thread(target=swap, args=(server,))
        swapping.start()
        until(meets_a_swap)
        over.set()
        swapping.join()
    assert ends == [("UNAVAILABLE", "another variant took over between the pictures; ask again")]


def test_a_change_that_is_refused_once_its_caller_has_gone_is_no_error_of_the_server() -> None:
    told: list[dict[str, object]] = []
    go = asyncio.Event()

    async def refused() -> None:
        await go.wait()
        raise NotFound("no such variant")

    async def leave() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        caller = asyncio.create_task(through("UnloadVariant", "spots", refused()))
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        go.set()
        for _ in range(3):
            await asyncio.sleep(0)
        gc.collect()

    asyncio.run(leave())
    assert told == []


def without_landmarks() -> bytes:
    """A detector that finds one box in every picture, and no landmarks."""
    constants = {
        "nothing": np.zeros((1, 1, 1), np.float32),
        "box": np.array([[[10, 10, 20, 20]]], np.float32),
        "score": np.array([[[0.9]]], np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["pixels"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["numbers"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "nothing"], ["zero"]),
        helper.make_node("Add", ["zero", "box"], ["boxes"]),
        helper.make_node("Add", ["zero", "score"], ["scores"]),
    ]
    return model_bytes(nodes, constants, outputs=("boxes", "scores"))
