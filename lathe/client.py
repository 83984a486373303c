"""The Python client, asyncio and blocking.

A stream sends frames and yields one result for each, in order. Two ways to feed it: *live* sends every frame
at once, as a camera must, and lets the server drop what is stale; otherwise the server reads no faster than it
judges, the sender is held back, and nothing is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import grpc
from grpc import aio

from lathe.errors import InvalidInput, LatheError, Unavailable
from lathe.exchange import Picture, Result, frame_message
from lathe.v1 import control_pb2, control_pb2_grpc, experiment_pb2, inference_pb2, inference_pb2_grpc

T = TypeVar("T")

FRAMES_AHEAD = 4
"""Frames that a stream which is not live sends before it has the answer to the first of them: enough to keep
two workers busy, few enough that no old ones pile up in the network's buffers."""

LATEST = "@latest"

_END_OF_STREAM: Any = aio.EOF  # type: ignore[attr-defined]  # missing from the stubs

_OPTIONS = [("grpc.max_receive_message_length", 64 * 2**20), ("grpc.max_send_message_length", 64 * 2**20)]


class ServerError(LatheError):
    """The server's answer was an error.

    Attributes:
        code: its gRPC status.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def _priority(*, high: bool) -> inference_pb2.Priority.ValueType:
    return inference_pb2.PRIORITY_HIGH if high else inference_pb2.PRIORITY_UNSPECIFIED


class AsyncClient:
    """For asyncio. Use as an async context, or `await close()`.

    Args:
        address: HOST:PORT of the inference port.
        control: HOST:PORT of the control port, where routes are read or set.
    """

    def __init__(self, address: str = "127.0.0.1:8500", control: str = "127.0.0.1:8502") -> None:
        self._channel = aio.insecure_channel(address, options=_OPTIONS)
        self._control_channel = aio.insecure_channel(control, options=_OPTIONS)
        self._inference: Any = inference_pb2_grpc.InferenceServiceStub(self._channel)
        self._control: Any = control_pb2_grpc.ControlServiceStub(self._control_channel)

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

        Raises:
            ServerError: with the server's status.
        """
        request = inference_pb2.DetectRequest(
            model=model, variant=variant, frame=frame_message(0, picture), priority=_priority(high=high_priority)
        )
        response = await _translated(self._inference.Detect(request, timeout=timeout_seconds))
        return Result.from_message(response.result)

    async def detect_stream(
        self,
        model: str,
        frames: AsyncIterable[tuple[Picture, float]],
        *,
        stream_id: str = "",
        variant: str = "",
        max_age_seconds: float = 0.0,
        live: bool = False,
        high_priority: bool = False,
    ) -> AsyncIterator[Result]:
        """Judges the frames of one camera.

        Args:
            frames: pictures with their capture (Unix time, 0 for now).
            live: the newest frame wins; otherwise the server holds the sender back and drops none.
            high_priority: its frames' turns come before those of other streams.

        Yields:
            One result a frame, in order.

        Raises:
            ServerError: the server ended the stream.
            Exception: what `frames` raised, after the results of the frames before.
        """
        call = self._inference.DetectStream()
        ends: list[tuple[grpc.StatusCode, str]] = []
        call.add_done_callback(lambda ended: ends.append((_at_once(ended.code()), _at_once(ended.details()) or "")))
        ahead = asyncio.Semaphore(FRAMES_AHEAD)

        async def send() -> None:
            config = inference_pb2.StreamConfig(
                model=model,
                stream_id=stream_id,
                variant=variant,
                max_age_seconds=max_age_seconds,
                keep_all=not live,
                priority=_priority(high=high_priority),
            )
            await call.write(inference_pb2.DetectStreamRequest(config=config))
            index = 0
            try:
                async for picture, captured_at in frames:
                    if not live:
                        await ahead.acquire()
                    frame = frame_message(index, picture, captured_at)
                    await call.write(inference_pb2.DetectStreamRequest(frame=frame))
                    index += 1
            finally:  # where the source failed, too: the server answers what it has, and the stream ends
                await call.done_writing()

        sender = asyncio.create_task(send())
        try:
            while True:
                try:
                    response = await call.read()
                except aio.AioRpcError:
                    break
                if response is _END_OF_STREAM:
                    break
                ahead.release()
                yield Result.from_message(response.result)
            await call.code()
            # A write that fails because the server has ended the stream overwrites why (grpc issue 36066).
            code, details = ends[0]
            if code is not grpc.StatusCode.OK:
                raise _server_error(code, details)
            if sender.done():
                sender.result()  # what the source of the frames raised
        finally:
            sender.cancel()
            call.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    async def variants(self, model: str = "") -> list[control_pb2.VariantStatus]:
        """The newest version of every variant and any older one in use, with card and state."""
        request = control_pb2.ListVariantsRequest(model=model)
        return list((await _translated(self._control.ListVariants(request))).variants)

    async def route(self, model: str) -> control_pb2.Route:
        """The route that holds."""
        response = await _translated(self._control.GetRoute(control_pb2.GetRouteRequest(model=model)))
        route: control_pb2.Route = response.route
        return route

    async def set_route(
        self,
        model: str,
        weights: dict[str, int],
        *,
        expected_revision: int = 0,
        author: str = "",
        reason: str = "",
        degrade: Sequence[str] = (),
        degrade_after_seconds: float = 0.1,
        shadow: str = "",
        shadow_share: float = 0.1,
        rules: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> control_pb2.Route:
        """Replaces the route, all of it; returns when the new one serves.

        Args:
            weights: relative whole numbers by variant, by `variant/version`, or by `variant@latest`, whose newer
                versions take its place when they are published.
            expected_revision: fail if another one holds; 0 replaces any.
            degrade: variants that streams move to under too much load, the dearest first.
            degrade_after_seconds: they do when they wait longer for their turn.
            shadow: variant that also judges some of the answered frames, to be compared.
            shadow_share: of the frames, above 0 to 1.
            rules: variants by the beginning of the names of streams that they answer, whatever the weights say.
            labels: variants by other names, such as `stable`; a request that pins `@stable` means it.
        """
        request = control_pb2.SetRouteRequest(
            model=model, expected_revision=expected_revision, author=author, reason=reason
        )
        for name, weight in weights.items():
            if weight < 0:
                raise InvalidInput(f"the weight of {name} must not be negative")
            plain = name.removesuffix(LATEST)
            variant, version = variant_and_version(plain)
            request.weights.add(variant=variant, version=version, weight=weight, latest=plain != name)
        for name in degrade:
            variant, version = variant_and_version(name)
            request.degrade.variants.add(variant=variant, version=version)
            request.degrade.after_seconds = degrade_after_seconds
        if shadow:
            request.shadow.variant.variant, request.shadow.variant.version = variant_and_version(shadow)
            request.shadow.share = shadow_share
        for prefix, name in (rules or {}).items():
            variant, version = variant_and_version(name)
            request.rules.add(prefix=prefix, variant={"variant": variant, "version": version})
        for label, name in (labels or {}).items():
            variant, version = variant_and_version(name)
            request.labels.add(name=label, variant={"variant": variant, "version": version})
        route: control_pb2.Route = (await _translated(self._control.SetRoute(request))).route
        return route

    async def rollback(
        self, model: str, *, expected_revision: int = 0, author: str = "", reason: str = ""
    ) -> control_pb2.Route:
        """Goes back to the route before the present one, as a new revision; returns when it serves.

        Args:
            expected_revision: fail if another one holds; 0 goes back from any.
        """
        request = control_pb2.RollbackRequest(
            model=model, expected_revision=expected_revision, author=author, reason=reason
        )
        route: control_pb2.Route = (await _translated(self._control.Rollback(request))).route
        return route

    async def load(self, model: str, variant: str) -> str:
        """Brings a variant into memory without giving it frames, and keeps it there; returns `variant/version`."""
        request = control_pb2.LoadVariantRequest(model=model)
        request.variant.variant, request.variant.version = variant_and_version(variant)
        loaded = (await _translated(self._control.LoadVariant(request))).variant
        return f"{loaded.variant}/{loaded.version}"

    async def unload(self, model: str, variant: str, *, force: bool = False, author: str = "") -> str:
        """Takes a variant out of memory after its last frame; returns `variant/version`.

        Args:
            force: off the route, too, where something else is left there.
        """
        request = control_pb2.UnloadVariantRequest(model=model, force=force, author=author)
        request.variant.variant, request.variant.version = variant_and_version(variant)
        gone = (await _translated(self._control.UnloadVariant(request))).variant
        return f"{gone.variant}/{gone.version}"

    async def events(self, model: str = "") -> AsyncIterator[control_pb2.Event]:
        """The newest things that happened to a model, or to all, then each as it comes, until the server goes.

        Raises:
            ServerError: with the server's status.
        """
        call = self._control.WatchEvents(control_pb2.WatchEventsRequest(model=model))
        try:
            async for response in call:
                yield response.event
        except aio.AioRpcError as error:
            raise _server_error(error.code(), error.details() or "") from None
        finally:
            call.cancel()

    async def start_experiment(
        self, spec: experiment_pb2.ExperimentSpec, *, author: str = ""
    ) -> experiment_pb2.Experiment:
        """Puts a candidate beside the variant that serves; returns when it is in memory.

        Args:
            spec: what is 0 or empty in it takes its default.
        """
        request = control_pb2.StartExperimentRequest(spec=spec, author=author)
        begun: experiment_pb2.Experiment = (await _translated(self._control.StartExperiment(request))).experiment
        return begun

    async def experiment(self, model: str, name: str = "") -> experiment_pb2.Experiment:
        """An experiment as far as it has come.

        Args:
            name: its id; empty takes the newest.
        """
        request = control_pb2.GetExperimentRequest(model=model, id=name)
        found: experiment_pb2.Experiment = (await _translated(self._control.GetExperiment(request))).experiment
        return found

    async def stop_experiment(
        self, model: str, reason: str = "", *, promote: bool = False
    ) -> experiment_pb2.Experiment:
        """Ends the one that runs; returns when one side serves alone.

        Args:
            promote: the candidate; otherwise the baseline.
        """
        request = control_pb2.StopExperimentRequest(model=model, reason=reason, promote=promote)
        ended: experiment_pb2.Experiment = (await _translated(self._control.StopExperiment(request))).experiment
        return ended


def variant_and_version(name: str) -> tuple[str, int]:
    """Of `variant` or `variant/version`; 0 for the newest."""
    variant, _, version = name.partition("/")
    if version and not version.isdecimal():
        raise InvalidInput(f"{name} is neither VARIANT nor VARIANT/VERSION")
    return variant, int(version or 0)


async def _translated(call: Any) -> Any:
    """Awaits a call; its error becomes ours."""
    try:
        return await call
    except aio.AioRpcError as error:
        raise _server_error(error.code(), error.details() or "") from None


def _at_once(coroutine: Any) -> Any:
    """The result of a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise RuntimeError("the coroutine waits")


def _server_error(code: grpc.StatusCode, details: str) -> LatheError:
    # gRPC's own texts, which name addresses.
    if code is grpc.StatusCode.UNAVAILABLE and "failed to connect" in details.lower():
        return Unavailable("no server answers at that address")
    if code is grpc.StatusCode.UNAVAILABLE and ("connect" in details.lower() or "socket" in details.lower()):
        return Unavailable("the connection to the server was lost")
    return ServerError(code, details)


class Client:
    """The same, blocking: its own event loop runs in the calling thread. Not for several threads at once."""

    def __init__(self, address: str = "127.0.0.1:8500", control: str = "127.0.0.1:8502") -> None:
        self._runner = asyncio.Runner()
        self._runner.get_loop()
        self._client: AsyncClient = self._runner.run(_connect(address, control))

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


async def _connect(address: str, control: str) -> AsyncClient:
    return AsyncClient(address, control)  # its channels belong to the running loop


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
