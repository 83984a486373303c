"""Streams that are cut and do not go on: given up, refused, left; and how far ahead frames are drawn meanwhile."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import grpc
import pytest

from lathe import Client, ledger
from lathe.client import AsyncClient, ServerError
from lathe.errors import InvalidInput, NotFound, Unavailable
from lathe.resuming import FRAMES_AHEAD
from lathe.v1 import inference_pb2
from lathe_loadtest.fault_proxy import Proxy
from tests.calls import eventually
from tests.conftest import RunningServer
from tests.fakes import Answers, FakeStreams, served
from tests.films import Film, is_complete, outcomes

ANSWERED = inference_pb2.OUTCOME_ANSWERED
LONG = 60.0


def refusing(code: grpc.StatusCode, *, first: int = 1, last: int = 1000) -> Answers:
    """Answers, but these calls at their second frame, or at their first where another has answered before."""

    def answers(call: int, frame: inference_pb2.Frame, context: grpc.ServicerContext) -> Any:
        if first <= call <= last or (call == 0 and frame.index == 1):
            context.abort(code if call else grpc.StatusCode.UNAVAILABLE, "not now")
        return ANSWERED

    return answers


@pytest.mark.parametrize("live", [False, True], ids=["recording", "live"])
def test_a_stream_is_given_up_when_no_server_answers_in_time(
    server: RunningServer, spot_jpeg: bytes, live: bool
) -> None:
    with server.client() as client:
        results = client.detect_stream("spots", Film(spot_jpeg), live=live, reconnect_seconds=0.3)
        assert next(results).answered
        server.close()
        lost = r"^the connection to the server was lost, and no server was found for 0\.3 s$"
        with pytest.raises(Unavailable, match=lost):
            list(results)


@pytest.mark.parametrize("live", [False, True], ids=["recording", "live"])
def test_servers_that_take_calls_and_answer_none_are_given_up_too(live: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "LONGEST_PAUSE_SECONDS", 0.05)
    fake = FakeStreams(refusing(grpc.StatusCode.UNAVAILABLE, last=2000))
    with served(fake) as address, Client(address, address) as client:
        results = client.detect_stream("spots", Film(fps=1000), live=live, reconnect_seconds=0.5)
        assert next(results).index == 0
        with pytest.raises(Unavailable, match=r"^not now, and no server was found for 0\.5 s$"):
            list(results)
    assert len(fake.calls) > 2


def test_each_answer_gives_the_stream_all_its_time_again() -> None:
    """Each call answers one frame: were the pauses to grow from one to the next, they would take half a minute."""

    def one(call: int, frame: inference_pb2.Frame, context: grpc.ServicerContext) -> Any:
        if frame.index > call:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return ANSWERED

    fake, film = FakeStreams(one), Film(count=30)
    with served(fake) as address, Client(address, address) as client:
        results = list(client.detect_stream("spots", film, reconnect_seconds=5.0))
    assert is_complete(results, film)
    assert len(fake.calls) >= 30


def test_why_a_server_ended_a_stream_is_told_however_fast_frames_are_written() -> None:
    """A write that fails because of that has a status of its own."""

    def at_last(call: int, frame: inference_pb2.Frame, context: grpc.ServicerContext) -> Any:
        if frame.index == 20:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "not you")
        return ANSWERED

    with served(FakeStreams(at_last)) as address, Client(address, address) as client:
        for _ in range(30):
            results = client.detect_stream("spots", Film(bytes(20_000)), live=True)
            with pytest.raises(ServerError, match=r"^not you$") as raised:
                list(results)
            assert raised.value.code is grpc.StatusCode.PERMISSION_DENIED


def test_a_server_that_has_not_noticed_the_cut_may_say_that_there_are_too_many_streams() -> None:
    fake = FakeStreams(refusing(grpc.StatusCode.RESOURCE_EXHAUSTED, last=3))
    film = Film(count=10)
    with served(fake) as address, Client(address, address) as client:
        results = list(client.detect_stream("spots", film))
    assert is_complete(results, film)
    assert len(fake.calls) == 5


@pytest.mark.parametrize("code", ["INTERNAL", "NOT_FOUND", "PERMISSION_DENIED", "UNAUTHENTICATED"])
def test_any_other_end_is_the_end(code: str) -> None:
    status = grpc.StatusCode[code]
    fake = FakeStreams(refusing(status))
    with served(fake) as address, Client(address, address) as client:
        results = client.detect_stream("spots", Film())
        assert next(results).index == 0
        with pytest.raises(ServerError, match="not now") as raised:
            list(results)
    assert raised.value.code is status
    assert len(fake.calls) == 2


@pytest.mark.parametrize("reconnect_seconds", [0.0, 30.0])
def test_a_stream_that_no_server_has_taken_is_not_tried_again(reconnect_seconds: float) -> None:
    fake = FakeStreams(refusing(grpc.StatusCode.UNAVAILABLE, first=0))
    with served(fake) as address, Client(address, address) as client:
        with pytest.raises(ServerError, match="not now"):
            list(client.detect_stream("spots", Film(), reconnect_seconds=reconnect_seconds))
        assert len(fake.calls) == 1


def test_a_stream_that_must_not_go_on_ends_with_the_first_cut() -> None:
    fake = FakeStreams(refusing(grpc.StatusCode.UNAVAILABLE))
    with served(fake) as address, Client(address, address) as client:
        results = client.detect_stream("spots", Film(), reconnect_seconds=0)
        assert next(results).index == 0
        with pytest.raises(ServerError, match=r"^not now$"):
            list(results)
    assert len(fake.calls) == 1


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
def test_a_time_that_cannot_be_is_refused(seconds: float) -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(InvalidInput, match="reconnect_seconds"):
        list(client.detect_stream("spots", Film(), reconnect_seconds=seconds))


@pytest.mark.parametrize("reconnect_seconds", [30.0, float("inf")])
def test_what_a_server_drops_on_its_way_out_is_asked_again_of_a_recording(reconnect_seconds: float) -> None:
    def draining(call: int, frame: inference_pb2.Frame, context: grpc.ServicerContext) -> Any:
        return inference_pb2.OUTCOME_DROPPED_DRAINING if call == 0 and frame.index == 2 else ANSWERED

    fake, film = FakeStreams(draining), Film(count=4)
    with served(fake) as address, Client(address, address) as client:
        results = list(client.detect_stream("spots", film, reconnect_seconds=reconnect_seconds))
        assert is_complete(results, film)
        assert outcomes(results) == ["answered"]
        assert fake.calls == [[0, 1, 2, 3], [2, 3]]
        for how in ({"live": True}, {"reconnect_seconds": 0.0}):
            fake.calls.clear()
            results = list(client.detect_stream("spots", Film(count=4), **how))  # type: ignore[arg-type]
            assert outcomes(results) == ["answered", "dropped_draining", "answered"]


def test_a_recording_is_drawn_no_further_than_it_is_answered(server: RunningServer, spot_jpeg: bytes) -> None:
    """With a server and without one."""
    film = Film(spot_jpeg)

    async def play() -> None:
        async with AsyncClient(server.grpc, server.control) as client:
            results = client.detect_stream("spots", film)
            for count in range(1, 20):
                assert (await anext(results)).answered
                assert film.drawn <= count + FRAMES_AHEAD
            server.close()
            with suppress(TimeoutError):
                while True:  # what was answered before the end
                    assert (await asyncio.wait_for(anext(results), 1.0)).answered
                    count += 1
            assert film.drawn == count + FRAMES_AHEAD

    asyncio.run(play())


def test_a_camera_whose_server_reads_nothing_is_held_back() -> None:
    leave = threading.Event()

    def deaf(call: int, frame: inference_pb2.Frame, context: grpc.ServicerContext) -> Any:
        leave.wait(LONG)
        return ANSWERED

    film = Film(bytes(100_000))

    async def play(address: str) -> None:
        async with AsyncClient(address, address) as client:
            results = client.detect_stream("spots", film, live=True)
            reading = asyncio.ensure_future(anext(results))
            drawn = -1
            while film.drawn != drawn or not drawn:  # until it stands still
                drawn = film.drawn
                await asyncio.sleep(0.3)
            leave.set()
            assert (await reading).answered
            await results.aclose()

    with served(FakeStreams(deaf)) as address:
        asyncio.run(play(address))
    assert film.drawn < 1000


@pytest.mark.parametrize("live", [False, True], ids=["recording", "live"])
def test_a_source_that_fails_while_there_is_no_server_is_told(live: bool) -> None:
    """All it gave is answered, so no server is needed any more."""

    async def play(proxy: Proxy) -> None:
        answered = asyncio.Event()

        async def frames() -> AsyncIterator[tuple[bytes, float]]:
            yield b"x", 0.0
            await answered.wait()
            proxy.close()
            raise NotFound("the camera is gone")

        async with AsyncClient(proxy.address, proxy.address) as client:
            results = client.detect_stream("spots", frames(), live=live)
            assert (await anext(results)).answered
            answered.set()
            with pytest.raises(NotFound, match="the camera is gone"):
                await anext(results)

    with served(FakeStreams()) as address, Proxy(address) as proxy:
        asyncio.run(play(proxy))


async def left(results: Any) -> None:
    await results.aclose()


async def cancelled(results: Any) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(to_the_end(results), 0.05)


async def given_up(results: Any) -> None:
    with pytest.raises(Unavailable):
        await to_the_end(results)


async def to_the_end(results: Any) -> None:
    async for _ in results:
        pass


@pytest.mark.parametrize(
    ("leave", "is_cut"), [(left, False), (left, True), (cancelled, False), (cancelled, True), (given_up, True)]
)
@pytest.mark.parametrize("live", [False, True], ids=["recording", "live"])
def test_whoever_leaves_a_stream_leaves_nothing_behind(
    leave: Callable[[Any], Any], is_cut: bool, live: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def play(proxy: Proxy) -> None:
        async with AsyncClient(proxy.address, proxy.address) as client:
            seconds = 0.5 if leave is given_up else LONG
            results = client.detect_stream("spots", Film(fps=1000), live=live, reconnect_seconds=seconds)
            result = await anext(results)
            if is_cut:
                proxy.close()
                while live and result.outcome != "dropped_disconnected":  # a server is looked for
                    result = await anext(results)
            await leave(results)
        await eventually(lambda: len(asyncio.all_tasks()) == 1)  # gRPC's own may take a moment

    with caplog.at_level(logging.WARNING), served(FakeStreams()) as address, Proxy(address) as proxy:
        asyncio.run(play(proxy))
        gc.collect()
    assert complaints(caplog) == []


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Without what gRPC itself says when a loop is closed soon after a read was cancelled."""
    return [message for message in caplog.messages if "PollerCompletionQueue" not in message]


@pytest.mark.parametrize("live", [False, True], ids=["recording", "live"])
def test_a_blocking_client_may_leave_a_stream_that_looks_for_a_server(
    live: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), served(FakeStreams()) as address, Proxy(address) as proxy:
        with Client(proxy.address, proxy.address) as client:
            for result in client.detect_stream("spots", Film(fps=1000), live=live):
                proxy.close()
                if not live or result.outcome == "dropped_disconnected":
                    break
        gc.collect()
    assert complaints(caplog) == []
