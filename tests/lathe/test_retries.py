"""Calls that change nothing are asked again where no server answered; all others are sent once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc._cython import cygrpc

from lathe import Client
from lathe.connection import _OPTIONS, RETRIED, Connection, _pings
from lathe.repository import Repository
from lathe.server_error import ServerError
from lathe.v1 import control_pb2, inference_pb2
from lathe_loadtest.fault_proxy import Proxy
from tests.conftest import RunningServer, start_server
from tests.fakes import FakeCalls, served

SERVICES = [
    inference_pb2.DESCRIPTOR.services_by_name["InferenceService"],
    control_pb2.DESCRIPTOR.services_by_name["ControlService"],
]
UNARY = [
    f"/{service.full_name}/{method.name}"
    for service in SERVICES
    for method in service.methods
    if not method.client_streaming and not method.server_streaming
]
AGAIN = [f"/{service}/{method}" for service, methods in RETRIED.items() for method in methods]
TRIES = 4


def test_what_is_asked_again_reads_only() -> None:
    assert set(AGAIN) < set(UNARY)
    reading = ("Get", "List", "Detect", "Embed", "Verify", "Identify", "Describe")
    assert [name for name in UNARY if name.rpartition("/")[2].startswith(reading)] == sorted(AGAIN, key=UNARY.index)


@pytest.mark.parametrize("method", UNARY)
def test_only_what_reads_is_sent_more_than_once(method: str) -> None:
    never = FakeCalls(unavailable=1000)

    async def call(address: str) -> grpc.StatusCode:
        async with Connection().channel(address) as channel:
            asked = channel.unary_unary(method)(b"")
            return await asked.code()

    with served(never) as address:
        assert asyncio.run(call(address)) is grpc.StatusCode.UNAVAILABLE
    assert never.seen[method] == (TRIES if method in AGAIN else 1)


def test_options_have_the_names_that_grpc_knows() -> None:
    """It says nothing about others, and does nothing."""
    known = Path(cygrpc.__file__).read_bytes()
    for name, _ in [*_OPTIONS, *_pings(1.0)]:
        assert name.encode() + b"\0" in known


def test_a_server_that_comes_back_in_time_is_found() -> None:
    handler = FakeCalls(unavailable=TRIES - 1)
    with served(handler) as address, Client(address, address) as client:
        assert client.variants() == []
        client.detect("spots", b"x")
    assert set(handler.seen.values()) == {TRIES}


def test_a_route_is_not_set_twice() -> None:
    handler = FakeCalls(unavailable=1)
    with served(handler) as address, Client(address, address) as client:
        with pytest.raises(ServerError, match="not now") as raised:
            client.set_route("spots", {"a": 1})
        assert raised.value.code is grpc.StatusCode.UNAVAILABLE
        assert handler.seen == {"/lathe.v1.ControlService/SetRoute": 1}


@pytest.mark.fault(71)
@pytest.mark.parametrize("size", [8, 1200], ids=["small", "larger than what gRPC keeps by itself"])
def test_a_picture_whose_connection_is_cut_is_sent_again(size: int) -> None:
    def cut_the_first() -> None:
        if proxy.taken == 1:
            proxy.cut("reset")

    handler = FakeCalls(unavailable=0, before=cut_the_first)
    with served(handler) as address, Proxy(address) as proxy, Client(proxy.address, proxy.address) as client:
        client.detect("spots", np.zeros((size, size, 3), np.uint8))
        assert proxy.taken == 2
    assert handler.seen == {"/lathe.v1.InferenceService/Detect": 2}


def test_a_client_goes_on_with_a_server_that_was_restarted(
    server: RunningServer, repository: Repository, tmp_path: Path, spot_jpeg: bytes
) -> None:
    with server.client() as client:
        assert client.detect("spots", spot_jpeg).answered
        server.process.kill()
        server.process.wait()
        ports = ("--grpc", server.grpc, "--control", server.control)
        with start_server(repository.root, tmp_path / "again.log", *ports):
            assert client.detect("spots", spot_jpeg).answered
            assert client.set_route("spots", {"b": 1}).revision == 1
