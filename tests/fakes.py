"""Servers that say what a test has them say, for answers that no real one can be brought to give on time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

from lathe.v1 import inference_pb2, inference_pb2_grpc

Answers = Callable[[int, inference_pb2.Frame, grpc.ServicerContext], inference_pb2.Outcome.ValueType]


def all_answered(call: int, frame: inference_pb2.Frame, context: grpc.ServicerContext) -> Any:
    return inference_pb2.OUTCOME_ANSWERED


class FakeStreams(inference_pb2_grpc.InferenceServiceServicer):
    """Gives each frame the outcome that `answers` gives, or ends the call where that aborts.

    Attributes:
        calls: the indices that came, by call.
    """

    def __init__(self, answers: Answers = all_answered) -> None:
        self.calls: list[list[int]] = []
        self._answers = answers

    def DetectStream(  # noqa: N802  the contract's name
        self, requests: Iterator[inference_pb2.DetectStreamRequest], context: grpc.ServicerContext
    ) -> Iterator[inference_pb2.DetectStreamResponse]:
        call, seen = len(self.calls), list[int]()
        self.calls.append(seen)
        assert next(requests).HasField("config")
        for request in requests:
            seen.append(request.frame.index)
            outcome = self._answers(call, request.frame, context)
            yield inference_pb2.DetectStreamResponse(result={"index": request.frame.index, "outcome": outcome})


class FakeCalls(grpc.GenericRpcHandler):
    """Every method is unary, and answers with nothing, or UNAVAILABLE at first.

    Args:
        unavailable: how often each method is so, one call after the other.

    Attributes:
        seen: how often each was called.
    """

    def __init__(self, unavailable: int, before: Callable[[], object] = lambda: None) -> None:
        self.seen: Counter[str] = Counter()
        self._unavailable = unavailable
        self._before = before

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        name = details.method

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.seen[name] += 1
            self._before()
            if self.seen[name] <= self._unavailable:
                context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@contextmanager
def served(handler: FakeStreams | FakeCalls, **options: int) -> Iterator[str]:
    """The address of a server of it, with options of gRPC."""
    given = [(f"grpc.{name}", value) for name, value in options.items()]
    with ThreadPoolExecutor(8) as threads:
        server = grpc.server(threads, options=[("grpc.max_receive_message_length", -1), *given])
        if isinstance(handler, FakeStreams):
            inference_pb2_grpc.add_InferenceServiceServicer_to_server(handler, server)
        else:
            server.add_generic_rpc_handlers((handler,))
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        yield address
        server.stop(0).wait()
