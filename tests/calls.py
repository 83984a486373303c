"""Raw calls over a real port, for what the client is too polite to send, and waiting with a bound."""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from lathe.v1 import control_pb2_grpc, inference_pb2, inference_pb2_grpc
from tests.conftest import RunningServer

DETECT = "/lathe.v1.InferenceService/Detect"
DETECT_STREAM = "/lathe.v1.InferenceService/DetectStream"
SECONDS = 10.0
INTERNALS = ("/tmp", "site-packages", ".py", "Traceback", "Error(", "Exception", "<class", "onnxruntime")
"""Words that a message to a client never holds."""


@contextmanager
def channel(address: str, *options: tuple[str, int]) -> Iterator[grpc.Channel]:
    own = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options=[*own, *options]) as opened:
        yield opened


def inference(opened: grpc.Channel) -> Any:
    return inference_pb2_grpc.InferenceServiceStub(opened)


def control(opened: grpc.Channel) -> Any:
    return control_pb2_grpc.ControlServiceStub(opened)


def send_bytes(opened: grpc.Channel, method: str, message: bytes, **how: Any) -> bytes:
    """A unary call of any method with any bytes."""
    call = opened.unary_unary(method, request_serializer=None, response_deserializer=None)
    answer: bytes = call(message, timeout=SECONDS, **how)
    return answer


def refusal(call: Callable[[], object]) -> grpc.RpcError:
    """The error that a call ends in; its text holds nothing of the server's inside."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert not any(word in (caught.value.details() or "") for word in INTERNALS)
    return caught.value


def config(model: str = "spots", **how: Any) -> inference_pb2.DetectStreamRequest:
    return inference_pb2.DetectStreamRequest(config=inference_pb2.StreamConfig(model=model, **how))


def frame(index: int, encoded: bytes, **how: Any) -> inference_pb2.DetectStreamRequest:
    return inference_pb2.DetectStreamRequest(frame=inference_pb2.Frame(index=index, encoded=encoded, **how))


def stream(
    opened: grpc.Channel, requests: Iterable[inference_pb2.DetectStreamRequest], timeout: float | None = SECONDS
) -> Iterator[inference_pb2.Result]:
    """Sends the messages and yields each frame's result."""
    for response in inference(opened).DetectStream(iter(requests), timeout=timeout):
        yield response.result


def outcomes(results: Iterable[inference_pb2.Result]) -> list[str]:
    return [inference_pb2.Outcome.Name(result.outcome).removeprefix("OUTCOME_").lower() for result in results]


def until(condition: Callable[[], Any], seconds: float = SECONDS) -> None:
    """Polls a condition, and fails where it does not come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.01)


async def eventually(condition: Callable[[], Any], seconds: float = SECONDS) -> None:
    """`until`, on an event loop."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  what is waited for lies in another thread, or in the server
            await asyncio.sleep(0.005)


def exposition(server: RunningServer) -> str:
    with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=SECONDS) as response:
        return str(response.read(), "utf-8")


def metric(server: RunningServer, name: str, **labels: str) -> float:
    """Sum of a metric's samples that carry these labels; 0 where there is none."""
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in exposition(server).splitlines()
        if line.split("{")[0].split(" ")[0] == name and all(label in line for label in wanted)
    )
