"""InferenceService: pictures and streams of frames in, results out."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace

from lathe.card import check_name
from lathe.errors import BadPicture, InvalidInput, LatheError, Unavailable
from lathe.v1 import inference_pb2, inference_pb2_grpc
from lathe_server.boundary import internal_error
from lathe_server.brake import ReadingPace
from lathe_server.calls import Calls, Context, deadline_of
from lathe_server.frames import Frame, Result, capture_on_monotonic
from lathe_server.metrics import Metrics
from lathe_server.origin import Headers, Origin, current
from lathe_server.pipeline import LABEL, Pipeline
from lathe_server.places import Places
from lathe_server.scheduler import Lane
from lathe_server.tensors import Tensors
from lathe_server.vision import EncodedPicture, Picture, Portrait
from lathe_server.wire import check_stream_id, fill, to_landmarks, to_picture

MAX_PENDING = 256
"""Frames of one stream without their response; while there are so many, no more are read."""

_PRIORITIES = frozenset(inference_pb2.Priority.values())


class InferenceService(inference_pb2_grpc.InferenceServiceServicer):
    """A thin layer over the pipeline.

    Args:
        places: that streams take.
    """

    def __init__(self, pipeline: Pipeline, calls: Calls, metrics: Metrics, places: Places) -> None:
        self._pipeline = pipeline
        self._calls = calls
        self._metrics = metrics
        self._places = places

    async def Detect(  # noqa: N802  the contract's name
        self, request: inference_pb2.DetectRequest, context: Context
    ) -> inference_pb2.DetectResponse:
        config = inference_pb2.StreamConfig(model=request.model, variant=request.variant, priority=request.priority)
        origin = current.get()
        await self._check(config, origin.headers)
        config.stream_id = self._calls.new_stream_id()
        frame, error = _to_frame(request.frame, config, origin, deadline_of(context), self._metrics, is_call=True)
        result = await self._calls.answer(frame, high=request.priority == inference_pb2.PRIORITY_HIGH, error=error)
        response = inference_pb2.DetectResponse()
        fill(response.result, result)
        return response

    async def Embed(  # noqa: N802
        self, request: inference_pb2.EmbedRequest, context: Context
    ) -> inference_pb2.EmbedResponse:
        config = inference_pb2.StreamConfig(model=request.model, variant=request.variant, priority=request.priority)
        config.embeddings = self._pipeline.is_pipeline(request.model)
        if config.embeddings and request.landmarks:
            raise InvalidInput(f"{request.model} is a pipeline, which finds the faces and their landmarks itself")
        landmarks = to_landmarks(request.landmarks)
        origin = current.get()
        await self._check(config, origin.headers)
        config.stream_id = self._calls.new_stream_id()
        frame, error = _to_frame(request.frame, config, origin, deadline_of(context), self._metrics, is_call=True)
        if not config.embeddings:
            assert not isinstance(frame.asked, Tensors | Portrait), "a message's frame is a picture"
            frame = replace(frame, asked=Portrait(frame.asked, landmarks))
        result = await self._calls.answer(frame, high=request.priority == inference_pb2.PRIORITY_HIGH, error=error)
        response = inference_pb2.EmbedResponse()
        fill(response.result, result)
        return response

    async def DetectStream(  # noqa: N802
        self, requests: AsyncIterator[inference_pb2.DetectStreamRequest], context: Context
    ) -> AsyncIterator[inference_pb2.DetectStreamResponse]:
        with self._places.taken() as place:
            first = await anext(requests, None)
            if first is None or first.WhichOneof("message") != "config":
                raise InvalidInput("the first message of a stream is its configuration")
            origin = current.get()
            await self._check(first.config, origin.headers)
            origin.about = {"model": first.config.model, "stream": first.config.stream_id}
            stream = _Stream(first.config, origin, self._pipeline, self._metrics, deadline_of(context))
            place.on_end = lambda: stream.end(Unavailable("the server is shutting down"))
            if place.ended:
                place.on_end()
            reader = asyncio.create_task(stream.read(requests))
            try:
                async with aclosing(stream.responses()) as responses:
                    async for response in responses:
                        yield response
            finally:
                reader.cancel()
                stream.abandon()
                origin.about["frames"] = stream.frames

    async def _check(self, config: inference_pb2.StreamConfig, headers: Headers) -> None:
        """Refuses what could not be answered, before any frame is looked at.

        Raises:
            InvalidInput: a name or a number that makes no sense, or embeddings of what is no pipeline.
            NotFound: no such model or variant.
            Refused: the pinned variant is published but not loaded, or a pipeline's models do not go together.
        """
        _check_config(config)
        await self._calls.check(config.model, config.stream_id, config.variant, headers, embeddings=config.embeddings)


class _Stream:
    """One camera: frames in, results out in the order of arrival.

    Attributes:
        frames: that have arrived.

    `_pending` holds a slot for each frame that has arrived, in order; results are handed out from its head.
    """

    def __init__(
        self,
        config: inference_pb2.StreamConfig,
        origin: Origin,
        pipeline: Pipeline,
        metrics: Metrics,
        deadline: float,
    ) -> None:
        self._config = config
        self._origin = origin
        self._pipeline = pipeline
        self._metrics = metrics
        self._deadline = deadline
        self._lane = Lane(high=config.priority == inference_pb2.PRIORITY_HIGH)
        self._pending: deque[_Slot] = deque()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._last_index = -1
        self.frames = 0
        self._ended = False
        self._error: LatheError | None = None

    async def read(self, requests: AsyncIterator[inference_pb2.DetectStreamRequest]) -> None:
        """Takes messages until the client has no more, or breaks the protocol."""
        pace = ReadingPace(time.monotonic())
        try:
            async for request in requests:
                if request.WhichOneof("message") != "frame":
                    raise InvalidInput("after its configuration a stream holds frames only")
                while len(self._pending) >= MAX_PENDING:
                    self._room.clear()
                    await self._room.wait()
                if self._ended:
                    break
                self._take(request.frame)
                if self._config.keep_all:
                    await self._lane.free()
                elif pause := pace.pause(time.monotonic()):
                    await asyncio.sleep(pause)
            self.end(None)
        except LatheError as error:
            self.end(error)
        except Exception as error:  # noqa: BLE001  a reader that died unseen would leave its stream open for ever
            self.end(internal_error(error))

    def _take(self, message: inference_pb2.Frame) -> None:
        self.frames += 1
        slot = _Slot()
        self._pending.append(slot)

        def reply(result: Result) -> None:
            slot.response = inference_pb2.DetectStreamResponse()
            fill(slot.response.result, result)
            if self._pending and self._pending[0] is slot:
                self._changed.set()

        frame, error = _to_frame(message, self._config, self._origin, self._deadline, self._metrics)
        if message.index <= self._last_index:
            error = InvalidInput(f"frame indices count up; {message.index} follows {self._last_index}")
        else:
            self._last_index = message.index
        if error:
            self._pipeline.reject(frame, error, reply)
        else:
            self._pipeline.submit(self._lane, frame, reply)

    async def responses(self) -> AsyncGenerator[inference_pb2.DetectStreamResponse, None]:
        """Results in order, until the stream has ended and every frame has its result.

        Raises:
            LatheError: what ended it, after the last result.
        """
        while True:
            while self._pending and (response := self._pending[0].response):
                self._pending.popleft()
                self._room.set()
                yield response
            if self._ended and not self._pending:
                break
            self._changed.clear()
            await self._changed.wait()
        if self._error:
            raise self._error

    def end(self, error: LatheError | None) -> None:
        self._ended = True
        self._error = self._error or error
        self._changed.set()

    def abandon(self) -> None:
        """The client is gone, or has everything: no frame of the stream may take a turn any more."""
        self._pipeline.cancel(self._lane)


class _Slot:
    """A frame's place in line. Its result waits as a message, because a `Result` holds the picture."""

    __slots__ = ("response",)

    def __init__(self) -> None:
        self.response: inference_pb2.DetectStreamResponse | None = None


def _check_config(config: inference_pb2.StreamConfig) -> None:
    check_name(config.model, "model")
    if config.variant:
        check_name(config.variant.removeprefix(LABEL), "variant")
    check_stream_id(config.stream_id)
    if config.priority not in _PRIORITIES:
        raise InvalidInput("priority is PRIORITY_NORMAL or PRIORITY_HIGH")
    if not 0 <= config.max_age_seconds < math.inf:
        raise InvalidInput("max_age_seconds is 0 (no limit) or above")


def _to_frame(
    message: inference_pb2.Frame,
    config: inference_pb2.StreamConfig,
    origin: Origin,
    deadline: float,
    metrics: Metrics,
    *,
    is_call: bool = False,
) -> tuple[Frame, LatheError | None]:
    """A message as a frame, and what is wrong with it already."""
    now = time.monotonic()
    captured, clamped = capture_on_monotonic(message.capture_time_unix_ns, time.time_ns(), now)
    if clamped:
        metrics.clamped.inc()
    error: LatheError | None = None
    picture: Picture = EncodedPicture(b"")
    try:
        picture = to_picture(message)
    except BadPicture as bad:
        error = bad
    frame = Frame(
        model=config.model,
        stream_id=config.stream_id,
        variant=config.variant,
        index=message.index,
        asked=picture,
        captured=captured,
        arrived=now,
        max_age_seconds=config.max_age_seconds or math.inf,
        deadline=deadline,
        is_call=is_call,
        origin=origin,
        embeddings=config.embeddings,
    )
    return frame, error
