"""The Python client, asyncio and blocking.

A stream sends frames and yields one result for each, in order. Two ways to feed it: *live* sends every frame
at once, as a camera must, and lets the server drop what is stale; otherwise the server reads no faster than it
judges, the sender is held back, and nothing is dropped. A stream goes on by itself when its connection is cut, and
calls that change nothing are asked again (`lathe.connection.RETRIED`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lathe.connection import PING_SECONDS, Connection
from lathe.control_calls import ControlCalls
from lathe.errors import InvalidInput
from lathe.exchange import Picture, Result, frame_message
from lathe.gallery_calls import AsyncGallery, Gallery
from lathe.resuming import ResumingStream
from lathe.server_error import ServerError, translated
from lathe.v1 import control_pb2, control_pb2_grpc, experiment_pb2, gallery_pb2_grpc, inference_pb2, inference_pb2_grpc

__all__ = ["AsyncClient", "Client", "ServerError", "from_thread"]

T = TypeVar("T")


def _priority(*, high: bool) -> inference_pb2.Priority.ValueType:
    return inference_pb2.PRIORITY_HIGH if high else inference_pb2.PRIORITY_UNSPECIFIED


class AsyncClient(ControlCalls):
    """For asyncio. Use as an async context, or `await close()`.

    Args:
        address: HOST:PORT of the inference port.
        control: HOST:PORT of the control port, where routes are read or set.
        connection: token and certificates; those of the environment where there is none.
    """

    def __init__(
        self,
        address: str = "127.0.0.1:8500",
        control: str = "127.0.0.1:8502",
        connection: Connection | None = None,
    ) -> None:
        how = connection or Connection.from_environment()
        self._channel = how.channel(address, ping_seconds=PING_SECONDS)
        self._control_channel = how.channel(control)
        self._inference: Any = how.on(inference_pb2_grpc.InferenceServiceStub(self._channel))
        self.gallery = AsyncGallery(how.on(gallery_pb2_grpc.GalleryServiceStub(self._channel)))
        self._control: Any = how.on(control_pb2_grpc.ControlServiceStub(self._control_channel))

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._channel.close(None)
        await self._control_channel.close(None)

    async def detect(
        self,
        model: str,
        picture: Picture,
        *,
        variant: str = "",
        timeout_seconds: float | None = 10.0,
        high_priority: bool = False,
    ) -> Result:
        """Judges one picture.

        Args:
            timeout_seconds: for all tries together; None waits for ever.

        Raises:
            Unavailable: no server answers there, or the connection was lost, at each of four tries.
            ServerError: with the server's status.
        """
        request = inference_pb2.DetectRequest(
            model=model, variant=variant, frame=frame_message(0, picture), priority=_priority(high=high_priority)
        )
        response = await translated(self._inference.Detect(request, timeout=timeout_seconds))
        return Result.from_message(response.result)

    async def embed(
        self,
        model: str,
        picture: Picture,
        *,
        landmarks: NDArray[np.floating] | None = None,
        variant: str = "",
        timeout_seconds: float | None = 10.0,
        high_priority: bool = False,
    ) -> Result:
        """Embeds the faces of one picture, as a pipeline finds them, or one face, by an embedding network.

        Args:
            model: a pipeline, or an embedding network.
            landmarks: for an embedding network, of the one face: 5 × 2, x and y in pixels of the upright picture (eyes,
                nose, corners of the mouth, the left ones of the picture first); without them the picture is an aligned
                face, in the network's own size.
            variant: of an embedding network; a pipeline follows the routes of its models.
            timeout_seconds: for all tries together; None waits for ever.

        Raises:
            InvalidInput: landmarks of another shape.
            Unavailable: no server answers there, or the connection was lost, at each of four tries.
            ServerError: with the server's status.
        """
        if landmarks is not None and np.shape(landmarks) != (5, 2):
            raise InvalidInput(f"a face's landmarks are 5 × 2, not {' × '.join(map(str, np.shape(landmarks)))}")
        request = inference_pb2.EmbedRequest(
            model=model,
            variant=variant,
            frame=frame_message(0, picture),
            priority=_priority(high=high_priority),
            landmarks=[] if landmarks is None else np.ravel(landmarks).tolist(),
        )
        response = await translated(self._inference.Embed(request, timeout=timeout_seconds))
        return Result.from_message(response.result)

    def detect_stream(
        self,
        model: str,
        frames: AsyncIterable[tuple[Picture, float]],
        *,
        stream_id: str = "",
        variant: str = "",
        max_age_seconds: float = 0.0,
        live: bool = False,
        high_priority: bool = False,
        embeddings: bool = False,
        reconnect_seconds: float = 30.0,
    ) -> AsyncGenerator[Result, None]:
        """Judges the frames of one camera.

        A stream that was begun and is then cut, because the connection was lost or the server goes, goes on at the
        next server that is found: the indices count on. A recording's unanswered frames are sent again, and while
        there is no server no more are drawn. Of a live stream the newest frame waits, and the others that have no
        answer are `dropped_disconnected`.

        Args:
            frames: pictures with their capture (Unix time, 0 for now).
            live: the newest frame wins; otherwise the server holds the sender back and drops none.
            high_priority: its frames' turns come before those of other streams.
            embeddings: of the frames' largest faces are wanted, too; the model is a pipeline.
            reconnect_seconds: how long a server is looked for after a cut, until one answers; 0 never, inf for ever.

        Yields:
            One result a frame, in order of index from 0.

        Raises:
            InvalidInput: reconnect_seconds is negative.
            Unavailable: no server answers there at the beginning, or after a cut in time.
            ServerError: the server ended the stream.
            Exception: what `frames` raised, after the results of the frames before.
        """
        config = inference_pb2.StreamConfig(
            model=model,
            stream_id=stream_id,
            variant=variant,
            max_age_seconds=max_age_seconds,
            keep_all=not live,
            priority=_priority(high=high_priority),
            embeddings=embeddings,
        )
        return ResumingStream(self._inference.DetectStream, config, reconnect_seconds).results(frames)


class Client:
    """The same, blocking: its own event loop runs in the calling thread. Not for several threads at once."""

    def __init__(
        self,
        address: str = "127.0.0.1:8500",
        control: str = "127.0.0.1:8502",
        connection: Connection | None = None,
    ) -> None:
        self._runner = asyncio.Runner()
        self._runner.get_loop()
        self._client: AsyncClient = self._runner.run(_connect(address, control, connection))
        self.gallery = Gallery(self._runner, self._client.gallery)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._runner.run(self._client.close())
        self._runner.close()

    def detect(
        self,
        model: str,
        picture: Picture,
        *,
        variant: str = "",
        timeout_seconds: float | None = 10.0,
        high_priority: bool = False,
    ) -> Result:
        """See `AsyncClient.detect`."""
        return self._runner.run(
            self._client.detect(
                model, picture, variant=variant, timeout_seconds=timeout_seconds, high_priority=high_priority
            )
        )

    def embed(
        self,
        model: str,
        picture: Picture,
        *,
        landmarks: NDArray[np.floating] | None = None,
        variant: str = "",
        timeout_seconds: float | None = 10.0,
        high_priority: bool = False,
    ) -> Result:
        """See `AsyncClient.embed`."""
        return self._runner.run(
            self._client.embed(
                model,
                picture,
                landmarks=landmarks,
                variant=variant,
                timeout_seconds=timeout_seconds,
                high_priority=high_priority,
            )
        )

    def detect_stream(
        self,
        model: str,
        frames: Iterable[tuple[Picture, float]],
        *,
        stream_id: str = "",
        variant: str = "",
        max_age_seconds: float = 0.0,
        live: bool = False,
        high_priority: bool = False,
        embeddings: bool = False,
        reconnect_seconds: float = 30.0,
    ) -> Iterator[Result]:
        """See `AsyncClient.detect_stream`; the frames are drawn on a thread of their own."""
        results = self._client.detect_stream(
            model,
            from_thread(frames),
            stream_id=stream_id,
            variant=variant,
            max_age_seconds=max_age_seconds,
            live=live,
            high_priority=high_priority,
            embeddings=embeddings,
            reconnect_seconds=reconnect_seconds,
        )
        try:
            while (result := self._runner.run(_next(results))) is not None:
                yield result
        finally:
            self._runner.run(_close(results))

    def variants(self, model: str = "") -> list[control_pb2.VariantStatus]:
        return self._runner.run(self._client.variants(model))

    def route(self, model: str) -> control_pb2.Route:
        return self._runner.run(self._client.route(model))

    def set_route(self, model: str, weights: dict[str, int], **how: Any) -> control_pb2.Route:
        """See `AsyncClient.set_route`."""
        return self._runner.run(self._client.set_route(model, weights, **how))

    def rollback(self, model: str, **how: Any) -> control_pb2.Route:
        """See `AsyncClient.rollback`."""
        return self._runner.run(self._client.rollback(model, **how))

    def load(self, model: str, variant: str) -> str:
        """See `AsyncClient.load`."""
        return self._runner.run(self._client.load(model, variant))

    def unload(self, model: str, variant: str, *, force: bool = False, author: str = "") -> str:
        """See `AsyncClient.unload`."""
        return self._runner.run(self._client.unload(model, variant, force=force, author=author))

    def events(self, model: str = "") -> Iterator[control_pb2.Event]:
        """See `AsyncClient.events`."""
        events = self._client.events(model)
        try:
            while (event := self._runner.run(_next(events))) is not None:
                yield event
        finally:
            self._runner.run(_close(events))

    def start_experiment(self, spec: experiment_pb2.ExperimentSpec, *, author: str = "") -> experiment_pb2.Experiment:
        """See `AsyncClient.start_experiment`."""
        return self._runner.run(self._client.start_experiment(spec, author=author))

    def experiment(self, model: str, name: str = "") -> experiment_pb2.Experiment:
        """See `AsyncClient.experiment`."""
        return self._runner.run(self._client.experiment(model, name))

    def stop_experiment(self, model: str, reason: str = "", *, promote: bool = False) -> experiment_pb2.Experiment:
        """See `AsyncClient.stop_experiment`."""
        return self._runner.run(self._client.stop_experiment(model, reason, promote=promote))


async def _connect(address: str, control: str, connection: Connection | None) -> AsyncClient:
    return AsyncClient(address, control, connection)  # its channels belong to the running loop


async def _next(results: AsyncIterator[T]) -> T | None:
    return await anext(results, None)


async def _close(results: Any) -> None:
    await results.aclose()


async def from_thread(items: Iterable[T]) -> AsyncIterator[T]:
    """Draws a blocking iterable on a thread, one item ahead at most."""
    end = object()
    iterator = iter(items)
    while (item := await asyncio.to_thread(next, iterator, end)) is not end:
        yield item  # type: ignore[misc]
