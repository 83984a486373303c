"""Tokens: who comes in, and what for."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lathe import Connection
from lathe.cli import main
from lathe.client import Client, ServerError
from lathe.errors import InvalidInput, NotFound, Overloaded, PermissionDenied, Unauthenticated
from lathe.repository import Repository
from lathe_server.access.gate import Gate
from lathe_server.access.tokens import Identity, Tokens, digest, new_token
from lathe_server.health import Health
from lathe_server.open_inference import open_inference_pb2 as pb
from tests.calls import channel, metric, until
from tests.conftest import RunningServer, start_server

SEE, RULE, OLD = "token-to-see", "token-to-rule", "token-of-old"


def entry(name: str, token: str, role: str = "infer", more: str = "") -> str:
    return f'[[tokens]]\nname = "{name}"\nrole = "{role}"\nsha256 = "{digest(token)}"\n{more}\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """`cameras` may infer, `ops` may do everything, `gone` has expired."""
    path = tmp_path / "tokens.toml"
    past = f"{datetime.now(UTC) - timedelta(seconds=1):%Y-%m-%dT%H:%M:%SZ}"
    path.write_text(
        entry("cameras", SEE) + entry("ops", RULE, "control") + entry("gone", OLD, "control", f"expires = {past}")
    )
    return path


@pytest.mark.fault(59)
@pytest.mark.parametrize(
    "authorization",
    ["", SEE, "Bearer", "Bearer ", "Bearer sea", f"Basic {SEE}", f"Bearer {OLD}", "Bearer " + "x" * 5000],
)
def test_what_is_no_good_token_is_nobody(file: Path, authorization: str) -> None:
    with pytest.raises(Unauthenticated, match="a token is needed"):
        Tokens(file).identify(authorization)


def test_a_good_token_says_who_it_is_and_what_it_is_good_for(file: Path) -> None:
    tokens = Tokens(file)
    assert tokens.identify(f"Bearer {SEE}") == Identity("cameras", "infer")
    assert tokens.identify(f"bearer {RULE}") == Identity("ops", "control")
    assert tokens.identify(f"Bearer {RULE}").may("infer")
    assert not tokens.identify(f"Bearer {SEE}").may("control")


def test_a_changed_file_is_read_anew_and_a_broken_one_changes_nothing(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("lathe_server.access.tokens.LOOK_SECONDS", 0.0)
    tokens = Tokens(file)
    file.write_text(entry("cameras", "new"))
    assert tokens.identify("Bearer new").name == "cameras"
    with pytest.raises(Unauthenticated):
        tokens.identify(f"Bearer {SEE}")
    for broken in ("[[tokens]", entry("a", "x", "king"), entry("a", "x") * 2):
        file.write_text(broken)
        assert tokens.identify("Bearer new").name == "cameras"
    file.unlink()
    assert tokens.identify("Bearer new").name == "cameras"
    assert "those before go on being good" in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        "tokens = 1",
        entry("A", "x"),
        entry("a", "x", "king"),
        '[[tokens]]\nname = "a"\nrole = "infer"\nsha256 = "secret"',
        entry("a", "x", more="expires = 2027-01-01T00:00:00"),
        entry("a", "x", more="max_streams = -1"),
        entry("a", "x") * 2,
        entry("a", "x") + entry("b", "x"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(content)
    with pytest.raises(InvalidInput):
        Tokens(path)
    with pytest.raises(NotFound):
        Tokens(tmp_path / "none")


def test_a_gate_without_tokens_lets_others_infer_and_this_machine_control() -> None:
    refusals: list[str] = []
    gate = Gate(None, refusals.append)
    assert gate.admit("", "infer") is None
    assert gate.admit("", "control", is_here=True) is None
    with pytest.raises(PermissionDenied):
        gate.admit("Bearer anything", "control")
    assert refusals == ["PERMISSION_DENIED"]


def test_calls_and_streams_are_limited_by_identity(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(
        entry("slow", "a", more="max_calls_per_second = 2\nmax_streams = 1")
        + entry("fast", "b", more="max_streams = 0")
    )
    now = [0.0]
    gate = Gate(Tokens(path), clock=lambda: now[0])
    slow = gate.admit("Bearer a", "infer")
    gate.admit("Bearer a", "infer")
    with pytest.raises(Overloaded, match="slow may make 2 calls a second"):
        gate.admit("Bearer a", "infer")
    for _ in range(100):
        fast = gate.admit("Bearer b", "infer")
    now[0] = 0.5
    gate.admit("Bearer a", "infer")
    with gate.stream(slow), gate.stream(fast), gate.stream(fast), pytest.raises(Overloaded), gate.stream(slow):
        pytest.fail("a second stream")
    with gate.stream(slow):
        pass


def test_the_command_makes_tokens_that_are_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tokens.toml"
    assert main(["token", str(path), "cameras"]) == 0
    assert main(["token", str(path), "ops", "--role", "control", "--days", "30"]) == 0
    cameras, ops = capsys.readouterr().out.split()
    tokens = Tokens(path)
    assert tokens.identify(f"Bearer {cameras}") == Identity("cameras", "infer")
    assert tokens.identify(f"Bearer {ops}") == Identity("ops", "control")
    assert (path.stat().st_mode & 0o077, cameras in path.read_text()) == (0, False)
    assert main(["token", str(path), "ops"]) == 1
    assert "has a token; remove its entry first" in capsys.readouterr().err
    assert new_token() != new_token()
    path.write_text("tokens = []\n")
    assert main(["token", str(path), "ops"]) == 1
    assert (path.read_text(), [one.name for one in tmp_path.iterdir()]) == ("tokens = []\n", ["tokens.toml"])


@pytest.fixture
def guarded(repository: Repository, file: Path, tmp_path: Path) -> Iterator[RunningServer]:
    with start_server(repository.root, tmp_path / "log", "--tokens", str(file)) as running:
        yield running


def client(server: RunningServer, token: str) -> Client:
    return Client(server.grpc, server.control, Connection(token))


@pytest.mark.fault(59)
def test_each_port_asks_for_a_token_that_is_good_for_it(guarded: RunningServer, spot_jpeg: bytes) -> None:
    for token in ("", "forged-token", OLD):
        with client(guarded, token) as caller:
            for act in (
                lambda: caller.detect("spots", spot_jpeg),
                lambda: list(caller.detect_stream("spots", [(spot_jpeg, 0.0)])),
                lambda: caller.set_route("spots", {"b": 1}),
                lambda: next(caller.events()),
            ):
                with pytest.raises(ServerError, match="a token is needed") as caught:
                    act()
                assert caught.value.code.name == "UNAUTHENTICATED"
    with client(guarded, SEE) as cameras:
        assert cameras.detect("spots", spot_jpeg).variant == "a"
        assert [one.variant for one in cameras.detect_stream("spots", [(spot_jpeg, 0.0)])] == ["a"]
        with pytest.raises(ServerError, match="the token of cameras is not good for this") as caught:
            cameras.set_route("spots", {"b": 1})
        assert caught.value.code.name == "PERMISSION_DENIED"
    with client(guarded, RULE) as ops:
        assert ops.detect("spots", spot_jpeg).variant == "a"
        assert ops.set_route("spots", {"b": 1}, author="ada").author == "ops (ada)"
        assert next(ops.events()).model == "spots"
    assert metric(guarded, "lathe_turned_away_total", status="UNAUTHENTICATED") == 12
    assert metric(guarded, "lathe_turned_away_total", status="PERMISSION_DENIED") == 1
    log = guarded.log.read_text()
    assert re.search(r"SetRoute by ops \[lathe.audit\].* model=spots outcome=OK", log)
    assert not [secret for secret in ("forged-token", "Bearer", SEE, RULE, OLD) if secret in log]


@pytest.mark.fault(59)
def test_the_open_protocol_asks_too(guarded: RunningServer) -> None:
    def load(token: str) -> str:
        with channel(guarded.grpc) as opened:
            method = "/inference.GRPCInferenceService/RepositoryModelLoad"
            send: Any = opened.unary_unary(
                method, pb.RepositoryModelLoadRequest.SerializeToString, pb.RepositoryModelLoadResponse.FromString
            )
            try:
                send(
                    pb.RepositoryModelLoadRequest(model_name="spots/b"), metadata=[("authorization", f"Bearer {token}")]
                )
            except grpc.RpcError as error:
                return str(error.code().name)  # type: ignore[attr-defined]
        return "OK"

    assert [load(token) for token in ("", SEE, RULE)] == ["UNAUTHENTICATED", "PERMISSION_DENIED", "OK"]

    def ask(method: str, path: str, token: str) -> int:
        connection = http.client.HTTPConnection(guarded.http, timeout=10)
        connection.request(method, path, headers={"Authorization": f"Bearer {token}"} if token else {})
        response = connection.getresponse()
        body = response.read()
        connection.close()
        assert response.status < 400 or "error" in json.loads(body)
        return response.status

    for path, method, codes in (
        ("/v2/models/spots", "GET", [401, 200, 200]),
        ("/v2/repository/models/spots/b/unload", "POST", [401, 403, 200]),
        ("/v2/repository/index", "POST", [401, 200, 200]),
    ):
        assert [ask(method, path, token) for token in ("", SEE, RULE)] == codes
    assert ask("GET", "/healthz", "") == ask("GET", "/metrics", "") == 200


def test_probes_need_no_token_and_reflection_does(guarded: RunningServer) -> None:
    for address in (guarded.grpc, guarded.control):
        with channel(address) as opened:
            health = health_pb2_grpc.HealthStub(opened)
            answer = health.Check(health_pb2.HealthCheckRequest(), timeout=5)  # type: ignore[attr-defined]
            assert answer.status == health_pb2.HealthCheckResponse.SERVING  # type: ignore[attr-defined]
            method = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
            with pytest.raises(grpc.RpcError) as caught:
                list(opened.stream_stream(method)(iter([b""]), timeout=5))
            assert caught.value.code().name == "UNAUTHENTICATED"  # type: ignore[attr-defined]


def test_a_withdrawn_token_is_good_for_nothing_within_a_second_or_two(
    guarded: RunningServer, file: Path, spot_jpeg: bytes
) -> None:
    with client(guarded, SEE) as cameras:
        cameras.detect("spots", spot_jpeg)
        file.write_text(entry("ops", RULE, "control"))

        def is_refused() -> bool:
            try:
                cameras.detect("spots", spot_jpeg)
            except ServerError as error:
                return bool(error.code.name == "UNAUTHENTICATED")
            return False

        until(is_refused)


def test_streams_of_one_identity_are_limited_on_the_server(
    repository: Repository, tmp_path: Path, spot_jpeg: bytes
) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(entry("one", "a", more="max_streams = 1"))
    with start_server(repository.root, tmp_path / "log", "--tokens", str(path)) as server:
        with client(server, "a") as first, client(server, "a") as second:
            results = first.detect_stream("spots", iter([(spot_jpeg, 0.0)] * 1000))
            assert next(results).variant == "a"
            with pytest.raises(ServerError, match="one may have 1 streams open"):
                list(second.detect_stream("spots", [(spot_jpeg, 0.0)]))
            results.close()
        with client(server, "a") as third:

            def is_free() -> bool:
                try:
                    return len(list(third.detect_stream("spots", [(spot_jpeg, 0.0)]))) == 1
                except ServerError:
                    return False

            until(is_free)


@pytest.mark.fault(59)
@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
def test_control_is_not_opened_to_others_without_tokens(
    repository: Repository, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(repository.root), "--control", address]) == 1
    assert "control may be opened to other machines with tokens or tls_client_ca only" in capsys.readouterr().err


def test_a_page_in_a_browser_on_this_machine_changes_nothing(server: RunningServer) -> None:
    def unload(**headers: str) -> int:
        connection = http.client.HTTPConnection(server.http, timeout=10)
        connection.request("POST", "/v2/repository/models/spots/a/unload", headers=headers)
        status = connection.getresponse().status
        connection.close()
        return status

    assert unload(Origin="http://evil.example") == unload(Host="evil.example") == unload(Host="127.evil.example") == 403
    assert unload() == 409  # it is on the route


def test_a_token_goes_in_plain_text_to_this_machine_only() -> None:
    with pytest.raises(InvalidInput, match="would cross the network in plain text"):
        Connection("token").channel("gate.example:8500")
    environment = {"LATHE_TOKEN": "token", "LATHE_PLAIN_TEXT": "yes", "OTHER": "x"}
    assert Connection.from_environment(environment) == Connection("token", plain_text="yes")
    assert "token" not in repr(Connection("token")).replace("token=", "")


def test_health_waits_for_no_watcher() -> None:
    async def act() -> list[int]:
        health = Health()
        health.set("", 1)
        request = health_pb2.HealthCheckRequest()  # type: ignore[attr-defined]
        idle, watching = health.Watch(request, None), health.Watch(request, None)  # type: ignore[arg-type]
        await anext(idle)  # and takes no more
        heard = [(await anext(watching)).status]
        health.set("", 2)
        heard.append((await anext(watching)).status)
        health.close()
        heard += [one.status async for one in watching]
        await idle.aclose()
        return heard

    assert asyncio.run(act()) == [1, 2]
