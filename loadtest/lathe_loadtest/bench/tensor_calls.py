"""Unary calls of tensors by the Open Inference Protocol, beside the bare loop: large ones, and next to nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import grpc
import numpy as np
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from lathe.cli import main
from lathe.demo.workspace import fresh_folder
from lathe.errors import Refused
from lathe.repository import Repository
from lathe.scrape import scrape
from lathe.server_process import ServerProcess
from lathe_loadtest.bench.h2load import drive, grpc_message
from lathe_loadtest.bench.peers import Peer, installed, running
from lathe_loadtest.bench.rig import Rig
from lathe_loadtest.bench.scenarios import CALLERS, Figures, ask_peer

INFER = "inference.GRPCInferenceService/ModelInfer"
LARGE, TINY = "large", "tiny"
SIZE_HW = (256, 320)
TINY_CALLERS, TINY_WIDTH = 16, 256
TINY_PEERS = ("aio", "mosec")
WORKERS = 2


def tensor_calls(rig: Rig, variant: str, environments: Path) -> Figures:
    """On two cores, which the driver shares; what is next to nothing beside servers that do nothing else with it.

    Args:
        variant: whose network takes the large tensors, 983 KB of float32 pixels, and gives 307 KB.
        environments: of the peers.
    """
    repository = Repository(fresh_folder(rig.folder / "tensors"))
    large = float_pixels((rig.version(variant) / "model.onnx").read_bytes())
    _publish(rig, repository, LARGE, large, f"pixels=1,{SIZE_HW[0]},{SIZE_HW[1]},3")
    _publish(rig, repository, TINY, tiny(), f"x=1,{TINY_WIDTH}")
    shares, tiny_rates, tiny_raws, raws = [], [], [], []
    with ExitStack() as stack:
        flags = ("--workers", str(WORKERS))
        server = stack.enter_context(ServerProcess(repository.root, rig.folder / "server.log", flags))
        rig.place(server, WORKERS)
        peers = [
            stack.enter_context(_peer(rig, repository, name, environments))
            for name in TINY_PEERS
            if name in installed(environments)
        ]
        peer_rates: dict[str, list[float]] = {peer.name: [] for peer in peers}
        for _ in range(rig.rounds):
            raws.append(_raw(rig, repository, LARGE))
            tiny_raws.append(_raw(rig, repository, TINY))
            best = max(_per_second(rig, server, LARGE, {"pixels": (1, *SIZE_HW, 3)}, callers) for callers in CALLERS)
            shares.append(best / raws[-1]["frames_per_second"])
            tiny_rates.append(_per_second(rig, server, TINY, {"x": (1, TINY_WIDTH)}, TINY_CALLERS))
            for peer in peers:
                peer_rates[peer.name].append(ask_peer(rig, peer, TINY_CALLERS).per_second)
        server.stop()
    return {
        "network_ms": median(raw["infer_ms"] for raw in raws),
        "raw_fps": median(raw["frames_per_second"] for raw in raws),
        "share_of_raw": median(shares),
        "tiny_ms": median(raw["infer_ms"] for raw in tiny_raws),
        "tiny_raw_per_second": median(raw["frames_per_second"] for raw in tiny_raws),
        "tiny_per_second": median(tiny_rates),
        **{f"tiny_{name}_per_second": median(found) for name, found in peer_rates.items()},
    }


@contextmanager
def _peer(rig: Rig, repository: Repository, name: str, environments: Path) -> Iterator[Peer]:
    """Takes the tiny network's tensor as plain bytes."""
    tensor = rig.folder / "tensor"
    tensor.write_bytes(np.full((1, TINY_WIDTH), 7, np.float32).tobytes())
    model, log = repository.folder(repository.newest(TINY, "plain")), rig.folder / f"{name}.log"

    def is_answer(content: bytes) -> bool:
        return len(content) == tensor.stat().st_size

    cores = rig.cores(WORKERS)
    with running(name, environments, model, tensor, log, workers=WORKERS, cores=cores, is_answer=is_answer) as peer:
        yield peer


def _publish(rig: Rig, repository: Repository, model: str, content: bytes, shape: str) -> None:
    """
    Raises:
        Refused: it cannot be served.
    """
    file = rig.folder / f"{model}.onnx"
    file.write_bytes(content)
    if main(["repo", "publish", str(repository.root), str(file), f"{model}/plain", "--shape", shape]):
        raise Refused(f"{model} cannot be published")


def _raw(rig: Rig, repository: Repository, model: str) -> dict[str, float]:
    command = [sys.executable, "-m", "lathe_server.raw", str(repository.root), model, "plain"]
    command += ["--seconds", str(rig.seconds), "--threads", str(WORKERS)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, preexec_fn=rig.pinned(WORKERS))
    told: dict[str, float] = json.loads(done.stdout)
    return told


def _per_second(rig: Rig, server: ServerProcess, model: str, shapes: dict[str, tuple[int, ...]], callers: int) -> float:
    """Answered calls, by the server's own counters: an error of gRPC hides behind HTTP's 200."""
    request = _request(server, model, shapes)

    def answered() -> float:
        return scrape(server.http).total("lathe_frames_total", outcome="answered", model=model)

    before = answered()
    calls = drive(
        f"http://{server.grpc}/{INFER}",
        grpc_message(request),
        rig.folder,
        seconds=rig.seconds,
        clients=callers,
    )
    assert answered() - before >= calls.count, "some calls were refused"
    return calls.per_second


def _request(server: ServerProcess, model: str, shapes: dict[str, tuple[int, ...]]) -> bytes:
    """As a client makes it that knows the protocol from the server's reflection alone."""
    with grpc.insecure_channel(server.grpc) as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        request: Any = GetMessageClass(pool.FindMessageTypeByName("inference.ModelInferRequest"))()
    request.model_name = model
    for name, shape in shapes.items():
        request.inputs.add(name=name, datatype="FP32", shape=shape)
        request.raw_input_contents.append(np.full(shape, 7, np.float32).tobytes())
    return bytes(request.SerializeToString())


def float_pixels(model: bytes) -> bytes:
    """The same network with pixels as float32, four times as many bytes."""
    import onnx
    from onnx import TensorProto, helper

    graph = onnx.load_from_string(model).graph
    image = graph.input[0]
    image.type.tensor_type.elem_type = TensorProto.FLOAT
    name = image.name
    for node in graph.node:
        for place, used in enumerate(node.input):
            if used == name:
                node.input[place] = f"{name}_bytes"
    graph.node.insert(0, helper.make_node("Cast", [name], [f"{name}_bytes"], to=TensorProto.UINT8))
    whole = onnx.load_from_string(model)
    whole.graph.CopyFrom(graph)
    return bytes(whole.SerializeToString())


def tiny() -> bytes:
    """Two layers of numbers, some hundredths of a millisecond."""
    from onnx import TensorProto, helper, numpy_helper

    random: Callable[..., Any] = np.random.default_rng(0).normal
    weights = [
        numpy_helper.from_array(random(0, 0.05, (TINY_WIDTH, TINY_WIDTH)).astype(np.float32), name)
        for name in ("first", "second")
    ]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "first"], ["between"]),
            helper.make_node("Relu", ["between"], ["positive"]),
            helper.make_node("MatMul", ["positive", "second"], ["y"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", TINY_WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", TINY_WIDTH])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
