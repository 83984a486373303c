"""Single calls: one picture, or one set of tensors, asked and answered."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from itertools import count
from typing import Any, TypeAlias

from grpc import aio

from lathe.errors import LatheError, NotFound, Refused
from lathe_server.frames import Frame, Result
from lathe_server.origin import Headers
from lathe_server.pipeline import Pipeline, as_error
from lathe_server.scheduler import Lane

Context: TypeAlias = "aio.ServicerContext[Any, Any]"  # generic in the stubs only


class Calls:
    """Asks the pipeline for one answer.

    Args:
        variants: the published ones of a model; blocking, asked only when a pinned one is not loaded.
    """

    def __init__(self, pipeline: Pipeline, variants: Callable[[str], list[str]]) -> None:
        self._pipeline = pipeline
        self._variants = variants
        self._numbers = count()

    def new_stream_id(self) -> str:
        """Each call is a stream of its own, so that calls follow the route's weights. No stream has such a name, and
        no prefix fits it."""
        return f"\n{next(self._numbers)}"

    async def check(
        self, model: str, stream_id: str, pinned: str, headers: Headers, *, embeddings: bool = False
    ) -> None:
        """Refuses what could not be answered, before any frame is looked at.

        Args:
            embeddings: of a pipeline are wanted.

        Raises:
            InvalidInput: embeddings of what is no pipeline, or a pipeline's variant.
            NotFound: no such model or variant.
            Refused: the pinned variant is published but not loaded, or a pipeline's models do not go together.
        """
        try:
            self._pipeline.choose(model, stream_id, pinned, headers)
        except Refused:
            variant = pinned.partition("/")[0]
            variants = await asyncio.to_thread(self._variants, model)
            if variant in variants:
                raise
            raise NotFound(f"model {model} has no variant {variant}; it has {', '.join(variants)}") from None
        if embeddings:
            self._pipeline.check_embeddings(model, stream_id, headers)

    async def answer(self, frame: Frame, *, high: bool = False, error: LatheError | None = None) -> Result:
        """The result of a frame that came alone.

        Args:
            error: is known to be wrong with it already; it is counted as any other frame.

        Raises:
            LatheError: it was not answered.
        """
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

        def reply(result: Result) -> None:
            if not done.done():
                done.set_result(result)

        lane = Lane(high=high, once=True)
        try:
            if error:
                self._pipeline.reject(frame, error, reply)
            else:
                self._pipeline.submit(lane, frame, reply)
            result = await done
        finally:
            self._pipeline.cancel(lane)
        if result.outcome != "answered":
            raise as_error(result)
        return result


def deadline_of(context: Context) -> float:
    """On the monotonic clock; infinite where the caller set none."""
    remaining = context.time_remaining()
    return math.inf if remaining is None else time.monotonic() + remaining
