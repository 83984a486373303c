"""Swaps under load: no frame dropped, none lost, and the new variant loaded no sooner than it must be."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from lathe.client import AsyncClient, ServerError
from lathe.control_calls import Header
from lathe.exchange import Result
from lathe.repository import Repository
from lathe.v1 import control_pb2, inference_pb2
from tests.calls import channel, eventually, exposition, inference, metric
from tests.conftest import RunningServer, start_server

STREAMS = 4
READY, FOUND = control_pb2.SERVABLE_STATE_READY, control_pb2.SERVABLE_STATE_FOUND


class Cameras:
    """Streams that send while they are on, each a frame after the other's result."""

    def __init__(self, client: AsyncClient, picture: bytes) -> None:
        self.results: list[list[Result]] = [[] for _ in range(STREAMS)]
        self.sent = [0] * STREAMS
        self._on = True
        self._picture = picture
        self._tasks = [asyncio.create_task(self._film(client, number)) for number in range(STREAMS)]

    async def _film(self, client: AsyncClient, number: int) -> None:
        frames = self._frames(number)
        async for result in client.detect_stream("spots", frames, stream_id=f"camera-{number}"):
            self.results[number].append(result)

    async def _frames(self, number: int) -> AsyncIterator[tuple[bytes, float]]:
        while self._on:
            self.sent[number] += 1
            yield self._picture, 0.0
            await eventually(lambda: not self._on or len(self.results[number]) >= self.sent[number])

    async def until_each_saw(self, variant: str, frames: int = 5) -> None:
        await eventually(lambda: all([r.variant for r in own].count(variant) >= frames for own in self.results))

    async def off(self) -> list[Result]:
        self._on = False
        await asyncio.gather(*self._tasks)
        return [result for own in self.results for result in own]


@pytest.mark.fault(53)
def test_a_swap_in_mid_stream_drops_and_loses_nothing(server: RunningServer, spot_jpeg: bytes) -> None:
    async def swap() -> tuple[Cameras, list[Result]]:
        async with AsyncClient(server.grpc, server.control) as client:
            assert await _states(client) == {"a": READY, "b": FOUND}
            cameras = Cameras(client, spot_jpeg)
            await cameras.until_each_saw("a")
            route = await client.set_route("spots", {"b": 1}, author="a test", reason="to see")
            assert [(weight.variant, weight.version, weight.weight) for weight in route.weights] == [("b", 1, 1)]
            await cameras.until_each_saw("b")
            assert await _states(client) == {"a": FOUND, "b": READY}
            return cameras, await cameras.off()

    cameras, results = asyncio.run(swap())
    assert {result.outcome for result in results} == {"answered"}
    assert len(results) == sum(cameras.sent)
    for own in cameras.results:
        assert [result.index for result in own] == list(range(len(own)))
        assert re.fullmatch("a+b+", "".join(result.variant for result in own))


@pytest.mark.fault(53, 84)
def test_many_swaps_under_load_fail_no_frame_and_turn_no_counter_back(server: RunningServer, spot_jpeg: bytes) -> None:
    counted: list[dict[str, float]] = []

    async def storm() -> list[Result]:
        async with AsyncClient(server.grpc, server.control) as client:
            cameras = Cameras(client, spot_jpeg)
            for turn in range(30):
                await client.set_route("spots", [{"b": 1}, {"a": 1}, {"a": 1, "b": 1}][turn % 3])
                if turn % 5 == 0:
                    counted.append(_counters(await asyncio.to_thread(exposition, server)))
            return await cameras.off()

    results = asyncio.run(storm())
    assert {result.outcome for result in results} == {"answered"}
    assert {result.variant for result in results} == {"a", "b"}
    for earlier, later in pairwise(counted):
        assert all(later[name] >= value for name, value in earlier.items())
    assert metric(server, "lathe_frames_total", outcome="answered") == len(results)
    assert metric(server, "lathe_swaps_total", result="done") == 30


def test_a_stream_may_pin_a_variant_that_is_loaded(server: RunningServer, spot_jpeg: bytes) -> None:
    with server.client() as client:
        client.set_route("spots", {"a": 1, "b": 1})
        for variant in ("a", "b"):
            results = client.detect_stream("spots", [(spot_jpeg, 0.0)] * 3, stream_id="camera", variant=variant)
            assert {result.variant for result in results} == {variant}


def test_a_rule_decides_for_streams_by_their_names_and_never_for_single_pictures(
    server: RunningServer, spot_jpeg: bytes
) -> None:
    with server.client() as client:
        client.set_route("spots", {"a": 1}, rules={"lobby-": "b", "1": "b"})
        for name, expected in {"lobby-7": "b", "gate": "a"}.items():
            results = client.detect_stream("spots", [(spot_jpeg, 0.0)] * 3, stream_id=name)
            assert {result.variant for result in results} == {expected}
        assert {client.detect("spots", spot_jpeg).variant for _ in range(30)} == {"a"}


def test_a_label_is_another_name_of_a_variant_that_requests_may_pin(server: RunningServer, spot_jpeg: bytes) -> None:
    with server.client() as client:
        client.set_route("spots", {"a": 1}, labels={"stable": "a", "canary": "b/1"})
        for label, expected in {"@stable": "a", "@canary": "b"}.items():
            assert client.detect("spots", spot_jpeg, variant=label).variant == expected
            results = client.detect_stream("spots", [(spot_jpeg, 0.0)] * 2, stream_id="gate", variant=label)
            assert {result.variant for result in results} == {expected}
        for label, status in {"@lost": "NOT_FOUND", "@": "INVALID_ARGUMENT", "@@stable": "INVALID_ARGUMENT"}.items():
            with pytest.raises(ServerError) as caught:
                client.detect("spots", spot_jpeg, variant=label)
            assert caught.value.code.name == status
        client.set_route("spots", {"a": 1}, labels={"stable": "b"})
        assert client.detect("spots", spot_jpeg, variant="@stable").variant == "b"


def test_rules_look_at_headers_of_streams_and_of_single_pictures(server: RunningServer, spot_jpeg: bytes) -> None:
    with server.client() as client:
        client.set_route("spots", {"a": 1}, rules={Header("x-site", "gate"): "b"})
    picture = inference_pb2.Frame(encoded=spot_jpeg)
    stream = [
        inference_pb2.DetectStreamRequest(config={"model": "spots", "stream_id": "1"}),
        inference_pb2.DetectStreamRequest(frame=picture),
    ]
    with channel(server.grpc) as opened:
        stub = inference(opened)
        for site, variant in (("gate", "b"), ("hall", "a")):
            metadata = (("x-site", site),)
            request = inference_pb2.DetectRequest(model="spots", frame=picture)
            assert stub.Detect(request, metadata=metadata).result.served_by.variant == variant
            (response,) = stub.DetectStream(iter(stream), metadata=metadata)
            assert response.result.served_by.variant == variant


def test_single_pictures_follow_the_weights(server: RunningServer, spot_jpeg: bytes) -> None:
    with server.client() as client:
        client.set_route("spots", {"a": 1, "b": 1})
        assert {client.detect("spots", spot_jpeg).variant for _ in range(60)} == {"a", "b"}


@pytest.mark.fault(60)
def test_a_restart_resumes_with_the_route_that_was_set(
    server: RunningServer, repository: Repository, spot_jpeg: bytes
) -> None:
    with server.client() as client:
        client.set_route("spots", {"b": 1})
    server.process.kill()  # no farewell
    with start_server(repository.root, server.log) as again, again.client() as client:
        assert client.detect("spots", spot_jpeg).variant == "b"
        assert client.route("spots").revision == 1


async def _states(client: AsyncClient) -> dict[str, int]:
    return {status.card.variant: status.state for status in await client.variants("spots")}


def _counters(text: str) -> dict[str, float]:
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines if "_total" in name or "_bucket" in name or "_count" in name}
