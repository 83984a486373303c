"""Streams whose server is restarted or whose connection is cut: they go on, and each frame has one result."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Self

import pytest

from lathe import Client, Connection, connection, resuming
from lathe import client as client_module
from lathe.client import AsyncClient
from lathe.exchange import Result
from lathe.repository import Repository
from lathe_loadtest.fault_proxy import Proxy
from lathe_server.access.tokens import digest
from tests.calls import eventually, metric, until
from tests.certificates import Authority
from tests.conftest import RunningServer, start_server
from tests.fakes import FakeStreams, served
from tests.films import Film, is_complete, outcomes

LONG = 60.0
"""Seconds within which a server surely starts, however busy the machine is."""

Ending = Callable[[RunningServer], object]
ENDINGS = [
    pytest.param(RunningServer.stop, id="SIGTERM"),
    pytest.param(RunningServer.close, id="kill -9"),
]


class Beside(threading.Thread):
    """Does something beside the test; its failure is the test's."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._act = act
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._act()
        except BaseException as error:  # noqa: BLE001  raised where it is joined
            self._error = error

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if not kind:
            self.join(LONG)
            if self._error:
                raise self._error


def again(server: RunningServer, repository: Repository) -> Any:
    """Another server in its place."""
    ports = ("--grpc", server.grpc, "--control", server.control)
    return start_server(repository.root, server.log.with_name("again.log"), *ports)


@pytest.mark.fault(71)
@pytest.mark.parametrize("end", ENDINGS)
def test_a_recording_whose_server_is_restarted_loses_no_frame(
    server: RunningServer, repository: Repository, spot_jpeg: bytes, end: Ending
) -> None:
    film = Film(spot_jpeg)
    results: list[Result] = []

    def restart() -> None:
        until(lambda: len(results) > 20, LONG)
        end(server)
        seen = len(results)
        with again(server, repository):
            until(lambda: len(results) > seen + 20, LONG)
            film.has_ended = True
            until(lambda: is_complete(results, film), LONG)

    with server.client() as client, Beside(restart):
        for result in client.detect_stream("spots", film, reconnect_seconds=LONG):
            results += [result]
    assert is_complete(results, film)
    assert outcomes(results) == ["answered"]


@pytest.mark.fault(71)
@pytest.mark.parametrize("end", ENDINGS)
def test_a_camera_whose_server_is_restarted_drops_frames_meanwhile_and_goes_on(
    server: RunningServer, repository: Repository, spot_jpeg: bytes, end: Ending
) -> None:
    film = Film(spot_jpeg, fps=100)
    results: list[Result] = []

    def lost() -> int:
        return sum(result.outcome == "dropped_disconnected" for result in results)

    def restart() -> None:
        until(lambda: any(result.answered for result in results), LONG)
        end(server)
        until(lambda: lost() > 50, LONG)  # results come while there is no server
        with again(server, repository):
            until(lambda: results[-1].answered, LONG)
            film.has_ended = True
            until(lambda: is_complete(results, film), LONG)

    with server.client() as client, Beside(restart):
        for result in client.detect_stream("spots", film, live=True, reconnect_seconds=LONG):
            results += [result]
    assert is_complete(results, film)
    assert {"answered", "dropped_disconnected"} <= set(outcomes(results))
    of_lost = next(result for result in results if result.outcome == "dropped_disconnected")
    assert (of_lost.model, of_lost.variant, of_lost.version, len(of_lost.detections)) == ("spots", "", 0, 0)
    assert of_lost.stage_seconds == dict.fromkeys(results[0].stage_seconds, 0.0)


@pytest.mark.fault(71, 79)
def test_streams_outlive_a_restart_that_is_far_away(repository: Repository, tmp_path: Path, spot_jpeg: bytes) -> None:
    """Their new calls reach the old server while gRPC closes there, and are told CANCELLED."""

    async def one(client: AsyncClient, film: Film, results: list[Result]) -> None:
        async for result in client.detect_stream("spots", film, reconnect_seconds=LONG):
            results += [result]

    async def act() -> None:
        films = [Film(spot_jpeg, fps=20) for _ in range(12)]
        found: list[list[Result]] = [[] for _ in films]
        with start_server(repository.root, tmp_path / "server.log") as server, Proxy(server.grpc, 0.03) as proxy:
            async with AsyncClient(proxy.address) as client:
                playing = asyncio.gather(*(one(client, *both) for both in zip(films, found, strict=True)))
                await eventually(lambda: all(len(results) > 3 for results in found), LONG)
                assert await asyncio.to_thread(server.stop) == 0
                seen = [len(results) for results in found]
                with again(server, repository):
                    pairs = list(zip(found, seen, strict=True))
                    await eventually(lambda: all(len(results) > was + 3 for results, was in pairs), LONG)
                    for film in films:
                        film.has_ended = True
                    await asyncio.wait_for(playing, LONG)
        assert all(is_complete(results, film) for results, film in zip(found, films, strict=True))

    asyncio.run(act())


@pytest.mark.fault(71)
@pytest.mark.parametrize("how", ["reset", "close"])
@pytest.mark.parametrize("live", [False, True], ids=["recording", "live"])
def test_a_connection_that_is_cut_again_and_again_ends_no_stream(
    shared_server: RunningServer, spot_jpeg: bytes, live: bool, how: Literal["reset", "close"]
) -> None:
    film = Film(spot_jpeg, fps=200 if live else 0)
    results: list[Result] = []
    with Proxy(shared_server.grpc) as proxy, Client(proxy.address, shared_server.control) as client:
        for result in client.detect_stream("spots", film, live=live, reconnect_seconds=LONG):
            results += [result]
            if result.answered and len(results) > 10 * proxy.taken and proxy.taken < 5:
                proxy.cut(how)
            film.has_ended |= result.answered and proxy.taken == 5
        assert proxy.taken == 5
    assert is_complete(results, film)
    if not live:
        assert outcomes(results) == ["answered"]


@pytest.mark.fault(71)
def test_a_stream_goes_on_behind_tls_with_its_token(repository: Repository, tmp_path: Path, spot_jpeg: bytes) -> None:
    authority, tokens = Authority(tmp_path), tmp_path / "tokens.toml"
    pair = authority.issue("server")
    tokens.write_text(f'[[tokens]]\nname = "camera"\nrole = "infer"\nsha256 = "{digest("token-to-see")}"\n')
    flags = ("--tls-certificate", str(pair.certificate), "--tls-key", str(pair.key), "--tokens", str(tokens))
    known = Connection(token="token-to-see", ca=str(authority.file))
    film = Film(spot_jpeg)
    with (
        start_server(repository.root, tmp_path / "log", *flags) as server,
        Proxy(server.grpc) as proxy,
        Client(proxy.address, server.control, known) as client,
    ):
        results = []
        for result in client.detect_stream("spots", film, reconnect_seconds=LONG):
            results += [result]
            if len(results) == 20:
                proxy.cut("reset")
            film.has_ended |= proxy.taken == 2
    assert is_complete(results, film)
    assert outcomes(results) == ["answered"]


@pytest.mark.fault(71)
@pytest.mark.parametrize("how", ["reset", "close"])
@pytest.mark.parametrize("live", [False, True], ids=["recording", "live"])
def test_an_idle_connection_that_is_cut_is_replaced_when_there_is_a_frame(
    shared_server: RunningServer, spot_jpeg: bytes, live: bool, how: Literal["reset", "close"]
) -> None:
    results: list[Result] = []

    async def now_and_then() -> AsyncIterator[tuple[bytes, float]]:
        while proxy.taken < 4 or not results[-1].answered:
            yield spot_jpeg, 0.0
            drawn.append(len(drawn))
            await eventually(lambda: len(results) == len(drawn))
            if results[-1].answered:  # a live frame is lost where the client has not noticed the cut yet
                proxy.cut(how)
        # The source ends without a connection, and all is answered: none is needed.

    async def play() -> None:
        nonlocal results
        async with AsyncClient(proxy.address, shared_server.control) as client:
            async for result in client.detect_stream("spots", now_and_then(), live=live):
                results += [result]

    drawn: list[int] = []
    with Proxy(shared_server.grpc) as proxy:
        asyncio.run(play())
        assert proxy.taken == 4
    assert [result.index for result in results] == drawn
    assert set(outcomes(results)) <= ({"answered", "dropped_disconnected"} if live else {"answered"})
    assert sum(result.answered for result in results) == 4


@pytest.mark.fault(71)
@pytest.mark.parametrize("live", [False, True], ids=["recording", "live"])
def test_a_stream_that_stood_for_a_while_goes_on_though_nothing_was_answered_yet(
    shared_server: RunningServer, spot_jpeg: bytes, live: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a camera that shows nothing at first."""
    monkeypatch.setattr(resuming, "TAKEN_SECONDS", 0.0)
    before = metric(shared_server, "lathe_streams")

    def late() -> Iterator[tuple[bytes, float]]:
        until(lambda: metric(shared_server, "lathe_streams") == before + 1)
        proxy.cut("reset")
        until(lambda: metric(shared_server, "lathe_streams") == before)
        yield spot_jpeg, 0.0

    with Proxy(shared_server.grpc) as proxy, Client(proxy.address, shared_server.control) as client:
        (result,) = client.detect_stream("spots", late(), live=live)
        assert result.answered
        assert proxy.taken == 2


@pytest.mark.fault(71)
@pytest.mark.parametrize("live", [False, True], ids=["recording", "live"])
def test_a_connection_that_falls_silent_is_noticed(
    shared_server: RunningServer, spot_jpeg: bytes, live: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever lies between has forgotten it and tells nobody; only that pings are not answered shows it."""
    monkeypatch.setattr(client_module, "PING_SECONDS", 1.0)
    monkeypatch.setattr(connection, "_PONG_SECONDS", 1.0)
    film = Film(spot_jpeg, fps=100)
    results: list[Result] = []
    with Proxy(shared_server.grpc) as proxy, Client(proxy.address, shared_server.control) as client:
        for result in client.detect_stream("spots", film, live=live, reconnect_seconds=LONG):
            results += [result]
            if len(results) == 10:
                proxy.cut("silence")
            film.has_ended |= proxy.taken > 1 and result.answered
        assert proxy.taken > 1
    assert is_complete(results, film)
    assert ("dropped_disconnected" in outcomes(results)) is live


@pytest.mark.fault(71)
@pytest.mark.parametrize("live", [False, True], ids=["recording", "live"])
def test_a_server_that_sends_connections_away_by_their_age_keeps_its_streams(live: bool) -> None:
    """GOAWAY, and a moment later the end."""
    fake = FakeStreams()
    film = Film(fps=500)
    with (
        served(fake, max_connection_age_ms=200, max_connection_age_grace_ms=50) as address,
        Client(address, address) as client,
    ):
        results = []
        for result in client.detect_stream("spots", film, live=live, reconnect_seconds=LONG):
            results += [result]
            film.has_ended |= len(fake.calls) > 3
    assert is_complete(results, film)
    if not live:
        assert outcomes(results) == ["answered"]
    sent = list(itertools.chain.from_iterable(fake.calls))
    assert all(indices == list(range(indices[0], indices[-1] + 1)) for indices in fake.calls if indices)
    assert set(sent) | {result.index for result in results if not result.answered} == set(range(film.drawn))
