"""A server whose service times are known, and that writes down for each frame how long it had it.

    python -m tests.loadtest.truth_server '{"kind": "constant", "seconds": 0.04}' TRUTH.npy

It speaks lathe.v1: prints its port, and on SIGTERM writes two columns, a row a frame: the seconds from its arrival to
its answer, and from its capture to its answer.
Kinds: `constant`; `exponential`, with a mean and a fixed seed; `none`, at once. With `stall_at` (frames) no answer
leaves for `stall_seconds` once so many have arrived: those that come meanwhile wait for its end. With `die_at` it is
gone with so many, and with `tell_at` it prints their number.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from grpc import aio

from lathe.v1 import inference_pb2, inference_pb2_grpc


class Service(inference_pb2_grpc.InferenceServiceServicer):
    def __init__(
        self,
        kind: str,
        seconds: float = 0.0,
        stall_at: int = -1,
        stall_seconds: float = 0.0,
        die_at: int = -1,
        tell_at: int = -1,
    ):
        self._kind, self._seconds = kind, seconds
        self._stall_at, self._stall_seconds, self._die_at = stall_at, stall_seconds, die_at
        self._tell_at = tell_at
        self._random = np.random.default_rng(7)
        self._frames = 0
        self._stalled_until = 0.0
        self.truth: list[tuple[float, float]] = []

    def _answer_at(self, arrived: float) -> float:
        self._frames += 1
        if self._frames == self._stall_at:
            self._stalled_until = arrived + self._stall_seconds
        if self._frames == self._tell_at:
            print(self._frames, flush=True)
        if self._frames == self._die_at:
            os._exit(1)
        service = self._random.exponential(self._seconds) if self._kind == "exponential" else self._seconds
        return max(arrived + service, self._stalled_until)

    def _note(self, arrived: float, frame: Any) -> None:
        self.truth.append((time.monotonic() - arrived, time.time() - frame.capture_time_unix_ns / 1e9))

    async def Detect(self, request: Any, context: Any) -> Any:  # noqa: N802
        arrived = time.monotonic()
        await _until(self._answer_at(arrived))
        self._note(arrived, request.frame)
        return inference_pb2.DetectResponse(result=_result(0))

    async def DetectStream(self, requests: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        owed: asyncio.Queue[tuple[Any, float, float] | None] = asyncio.Queue()

        async def read() -> None:
            async for request in requests:
                if request.WhichOneof("message") == "frame":
                    arrived = time.monotonic()
                    owed.put_nowait((request.frame, arrived, self._answer_at(arrived)))
            owed.put_nowait(None)

        reading = asyncio.create_task(read())
        try:
            while (one := await owed.get()) is not None:
                frame, arrived, answer_at = one
                if self._kind != "none":
                    await _until(answer_at)
                    self._note(arrived, frame)
                yield inference_pb2.DetectStreamResponse(result=_result(frame.index))
        finally:
            reading.cancel()


def _result(index: int) -> Any:
    result = inference_pb2.Result(index=index, outcome=inference_pb2.OUTCOME_ANSWERED, age_seconds=0.1)
    result.served_by.variant = "known"
    result.detections.score.append(0.5)
    return result


async def _until(at: float) -> None:
    while (left := at - time.monotonic()) > 0:  # noqa: ASYNC110  loops wake to the millisecond, and too early
        await asyncio.sleep(left)


async def serve(settings: dict[str, Any], truth: Path) -> None:
    server = aio.server(options=[("grpc.so_reuseport", 0)])
    service = Service(**settings)
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    print(port, flush=True)
    await over.wait()
    np.save(truth, np.array(service.truth).reshape(-1, 2))
    await server.stop(None)


if __name__ == "__main__":
    uvloop.run(serve(json.loads(sys.argv[1]), Path(sys.argv[2])))
