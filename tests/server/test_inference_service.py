"""A stream inside the server, with a pipeline that answers when the test says so."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

from lathe.v1 import inference_pb2
from lathe_server.calls import Calls
from lathe_server.frames import Frame, Result
from lathe_server.inference_service import InferenceService
from lathe_server.metrics import Metrics
from lathe_server.pipeline import Pipeline
from lathe_server.places import Places
from lathe_server.scheduler import Lane
from tests.calls import config, frame

FRAMES, PICTURE_BYTES = 40, 1_000_000


class Pending:
    """The pipeline's part: keeps the first frame, drops the others at once."""

    draining = False

    def __init__(self) -> None:
        self.answer_first: Callable[[], None] = lambda: None

    def choose(self, *_: str) -> None: ...

    def cancel(self, lane: Lane) -> None: ...

    def submit(self, lane: Lane, frame: Frame, reply: Callable[[Result], None]) -> None:
        if frame.index:
            reply(Result(frame, "dropped_superseded"))
        else:
            self.answer_first = lambda: reply(Result(frame, "answered"))


class BareContext:
    def time_remaining(self) -> None: ...

    def invocation_metadata(self) -> None: ...


def new_service(pipeline: Pipeline) -> InferenceService:
    return InferenceService(pipeline, Calls(pipeline, lambda model: []), Metrics(), Places(1, lambda: False))


def test_results_that_wait_for_one_before_them_hold_no_pictures() -> None:
    async def run() -> tuple[int, list[int]]:
        pipeline = Pending()
        service = new_service(cast(Pipeline, pipeline))
        taken = asyncio.Event()

        async def requests() -> AsyncIterator[inference_pb2.DetectStreamRequest]:
            yield config()
            for index in range(FRAMES):
                yield frame(index, bytes(PICTURE_BYTES))
            taken.set()

        async def indices() -> list[int]:
            responses = service.DetectStream(requests(), cast(Any, BareContext()))
            return [response.result.index async for response in responses]

        answers = asyncio.create_task(indices())
        await asyncio.wait_for(taken.wait(), 10)
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
        pipeline.answer_first()
        return held, await asyncio.wait_for(answers, 10)

    tracemalloc.start()
    try:
        held, indices = asyncio.run(run())
    finally:
        tracemalloc.stop()
    assert indices == list(range(FRAMES))
    assert held < FRAMES * PICTURE_BYTES / 4
