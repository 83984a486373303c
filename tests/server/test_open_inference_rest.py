"""The Open Inference Protocol over HTTP, as curl or any library would speak it."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import socket
import struct
import zlib
from typing import Any

import numpy as np
import pytest

from tests.conftest import RunningServer

JSON_LENGTH = "Inference-Header-Content-Length"


def ask(
    server: RunningServer, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, Any, bytes]:
    """Status, JSON, and the bytes behind it."""
    connection = http.client.HTTPConnection(server.http, timeout=20)
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    connection.request(method, path, content, headers or {})
    response = connection.getresponse()
    content = response.read()
    length = int(response.getheader(JSON_LENGTH) or len(content))
    connection.close()
    return response.status, json.loads(content[:length]) if length else None, content[length:]


def doubled(**changes: Any) -> dict[str, Any]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [2, 16], "data": [1.5] * 32}
    return {"id": "a call", "inputs": [tensor | changes]}


def test_numbers_in_json_come_back_in_json(open_server: RunningServer) -> None:
    for data in ([1.5] * 32, [[1.5] * 16, [1.5] * 16]):
        status, told, _ = ask(open_server, "POST", "/v2/models/double/infer", doubled(data=data))
        assert status == 200
        assert told == {
            "id": "a call",
            "model_name": "double",
            "model_version": "1",
            "parameters": {"variant": "plain"},
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 16], "data": [3.0] * 32}],
        }


def test_bytes_behind_the_json_come_back_as_bytes(open_server: RunningServer) -> None:
    values = np.arange(32, dtype=np.float32)
    tensor = {"name": "x", "datatype": "FP32", "shape": [2, 16], "parameters": {"binary_data_size": values.nbytes}}
    for asked in (
        {"parameters": {"binary_data_output": True}},
        {"outputs": [{"name": "y", "parameters": {"binary_data": True}}]},
    ):
        head = json.dumps({"inputs": [tensor], **asked}).encode()
        path = "/v2/models/double/plain/versions/1/infer"
        status, told, content = ask(open_server, "POST", path, head + values.tobytes(), {JSON_LENGTH: str(len(head))})
        assert (status, told["model_name"]) == (200, "double/plain")
        assert told["outputs"][0]["parameters"] == {"binary_data_size": 128}
        assert np.frombuffer(content, np.float32).tolist() == (2 * values).tolist()


def test_a_picture_may_come_as_base64_or_as_bytes(open_server: RunningServer, spot_jpeg: bytes) -> None:
    with open_server.client() as client:
        expected = client.detect("spots", spot_jpeg).detections.xyxy[0].tolist()
    image = {"name": "image", "datatype": "BYTES", "shape": [1]}
    text = base64.b64encode(spot_jpeg).decode()
    asked = {"inputs": [image | {"data": [text], "parameters": {"content_type": "base64"}}]}
    element = struct.pack("<I", len(spot_jpeg)) + spot_jpeg
    head = json.dumps({"inputs": [image | {"parameters": {"binary_data_size": len(element)}}]}).encode()
    for body, headers in ((asked, None), (head + element, {JSON_LENGTH: str(len(head))})):
        status, told, _ = ask(open_server, "POST", "/v2/models/spots/infer", body, headers)
        assert status == 200
        outputs = {one["name"]: one["data"] for one in told["outputs"]}
        assert outputs["xyxy"] == pytest.approx(expected)
        assert outputs["image_index"] == [0]


def test_texts_and_truths_come_back(open_server: RunningServer) -> None:
    status, told, _ = ask(open_server, "GET", "/v2/models/echo")
    assert status == 200
    data = {"BYTES": ["a", "é", ""], "BOOL": [True, False, True], "FP16": [0.5, 1.0, -2.0], "UINT64": [0, 2**64 - 1, 1]}
    inputs = [
        {
            "name": one["name"],
            "datatype": one["datatype"],
            "shape": [1, 3],
            "data": data.get(one["datatype"], [1, 2, 3]),
        }
        for one in told["inputs"]
    ]
    status, told, _ = ask(open_server, "POST", "/v2/models/echo/infer", {"inputs": inputs})
    assert status == 200
    found = {one["datatype"]: one["data"] for one in told["outputs"]}
    assert found == {one["datatype"]: one["data"] for one in inputs}


@pytest.mark.fault(5, 6, 7, 8, 9)
@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        ("double", doubled(shape=[2, 15]), 400, "x has 32 elements; its shape needs 30"),
        ("double", doubled(shape=[-1, 16]), 400, "none below 0"),
        ("double", doubled(shape=[2**31, 2**31]), 400, "larger than any message"),
        ("double", doubled(shape=[2.0, 16]), 400, "a list of whole numbers"),
        ("double", doubled(shape="2x16"), 400, "a list of whole numbers"),
        ("double", doubled(datatype="FP31"), 400, "is one of BOOL"),
        ("double", doubled(datatype=7), 400, "has a datatype, which is a text"),
        ("double", doubled(data=["1.5"] * 32), 400, "no FP32"),
        ("double", doubled(data=[None] * 32), 400, "no FP32"),
        ("double", doubled(data=[float("nan")] * 32), 400, "NaN or infinity"),
        ("double", doubled(data=[1e39] * 32), 400, "NaN or infinity"),
        ("double", doubled(data=[[1.5] * 32, 7]), 400, "nested by its shape or flat"),
        ("double", doubled(data={"a": 1}), 400, "nested by its shape or flat"),
        ("double", doubled(datatype="INT8", data=[200] * 32), 400, "no INT8"),
        ("double", doubled(datatype="UINT64", data=[-1] * 32), 400, "no UINT64"),
        ("double", doubled(datatype="INT64", data=[2**70] * 32), 400, "no INT64"),
        ("double", doubled(datatype="BOOL", data=[2] * 32), 400, "no BOOL"),
        ("double", doubled(datatype="BYTES", data=[2] * 32), 400, "no texts"),
        ("double", doubled(datatype="BYTES", data=["\ud800"] * 32), 400, "neither base64 nor texts"),
        ("double", doubled(data=[3e38] * 32), 409, "ask for it as binary data"),
        ("double", doubled(name="x" * 20_000, data=[1.5]), 400, "has 1 elements"),
        ("double", doubled(data=[1] * (1 << 20) + [1]), 400, "come as raw bytes"),
        ("double", b"[" + b" " * (8 << 20), 400, "JSON is at most"),
        ("double", doubled(parameters=[1]), 400, "parameters are an object"),
        ("double", doubled(parameters={"binary_data_size": 128}), 400, "beyond the body"),
        ("double", doubled(parameters={"binary_data_size": -1}), 400, "beyond the body"),
        ("double", doubled(parameters={"shared_memory_region": "a"}), 400, "shared memory is not served"),
        ("double", {"inputs": {}}, 400, "a list of objects"),
        ("double", {"inputs": [doubled()["inputs"][0]] * 2}, 400, "named once"),
        ("double", [], 400, "not a JSON object"),
        ("double", b"{", 400, "not JSON"),
        ("double", b"[" * 100_000, 400, "not JSON"),
        ("double", b"\xff", 400, "not JSON"),
        ("nobody", doubled(), 404, "no such model"),
        ("double/nobody", doubled(), 404, "has no variant"),
        ("double/plain/versions/9", doubled(), 409, "not loaded"),
        ("double/plain/versions/x", doubled(), 400, "a whole number"),
        ("A%00", doubled(), 400, "is named by"),
    ],
)
def test_what_cannot_be_answered_is_refused(
    open_server: RunningServer, path: str, body: Any, status: int, told: str
) -> None:
    found, answer, _ = ask(open_server, "POST", f"/v2/models/{path}/infer", body)
    assert (found, told in answer["error"]) == (status, True), answer
    assert ask(open_server, "POST", "/v2/models/double/infer", doubled())[0] == 200


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "99999999999999999999"])
def test_a_length_that_is_none_is_refused(open_server: RunningServer, length: str) -> None:
    assert ask(open_server, "POST", "/v2/models/double/infer", doubled(), {JSON_LENGTH: length})[0] == 400


def test_what_there_is_is_told(open_server: RunningServer) -> None:
    status, told, _ = ask(open_server, "GET", "/v2")
    assert (status, told["name"]) == (200, "lathe")
    assert ask(open_server, "HEAD", "/v2")[0] == 200
    assert ask(open_server, "GET", "/v2/health/live")[1] == {"live": True}
    assert ask(open_server, "GET", "/v2/models/double/ready")[1] == {"name": "double", "ready": True}
    for path, expected in (
        ("health/live", 200),
        ("health/ready", 200),
        ("models/double/ready", 200),
        ("models/double/plain/versions/1/ready", 200),
        ("models/spots/b/ready", 503),
        ("models/nobody/ready", 503),
        ("nothing", 404),
        ("models", 404),
        ("models/double/nothing/at/all", 400),
    ):
        assert ask(open_server, "GET", f"/v2/{path}")[0] == expected, path
    assert ask(open_server, "DELETE", "/v2/models/double")[0] == 404
    _, config, _ = ask(open_server, "GET", "/v2/models/double/config")
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [16], "optional": False}]
    _, index, _ = ask(open_server, "POST", "/v2/repository/index")
    assert {"name": "double/plain", "version": "1", "state": "READY", "reason": ""} in index
    before = ask(open_server, "GET", "/v2/models/double/stats")[1]["model_stats"][0]
    ask(open_server, "POST", "/v2/models/double/infer", doubled())
    after = ask(open_server, "GET", "/v2/models/double/stats")[1]["model_stats"][0]
    assert after["inference_count"] - before["inference_count"] == 1
    assert len(ask(open_server, "GET", "/v2/models/stats")[1]["model_stats"]) >= 3


def test_variants_are_loaded_and_unloaded(open_server: RunningServer) -> None:
    assert ask(open_server, "POST", "/v2/repository/models/spots/b/load", {})[0] == 200
    assert ask(open_server, "GET", "/v2/models/spots/b/ready")[0] == 200
    assert ask(open_server, "POST", "/v2/repository/models/spots/b/unload", {})[0] == 200
    assert ask(open_server, "GET", "/v2/models/spots/b/ready")[0] == 503
    assert ask(open_server, "POST", "/v2/repository/models/spots/a/unload", {})[0] == 409
    assert ask(open_server, "POST", "/v2/repository/models/spots/b/load", {"parameters": {"config": "{}"}})[0] == 400
    assert ask(open_server, "POST", "/v2/repository/models/spots/nobody/load", {})[0] == 404


def test_a_body_waits_for_its_100_and_may_not_be_too_long(open_server: RunningServer) -> None:
    host, _, port = open_server.http.rpartition(":")
    body = json.dumps(doubled()).encode()
    head = b"POST /v2/models/double/infer HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as opened:
        opened.sendall(head % len(body) + b"expect: 100-continue\r\n\r\n")
        assert opened.recv(1000).startswith(b"HTTP/1.1 100 ")
        opened.sendall(body)
        assert opened.recv(1000).startswith(b"HTTP/1.1 200 ")
    with socket.create_connection((host, int(port)), timeout=10) as opened:
        opened.sendall(head % (1 << 40) + b"\r\n")
        assert opened.recv(1000).startswith(b"HTTP/1.1 413 ")
    endless = b"POST /v2/models/double/infer HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as opened:
        opened.sendall(endless)
        parts = (opened.sendall(b"100000\r\n" + b"x" * (1 << 20) + b"\r\n") for _ in range(200))
        with pytest.raises(ConnectionError):
            list(parts)


def test_a_body_may_be_packed_but_not_without_end(open_server: RunningServer) -> None:
    path, body = "/v2/models/double/infer", json.dumps(doubled()).encode()
    for encoding, packed in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body)), ("identity", body)):
        assert ask(open_server, "POST", path, packed, {"Content-Encoding": encoding})[0] == 200
    bomb = gzip.compress(bytes(1 << 28))
    for encoding, packed, told in (
        ("gzip", bomb, "longer than 33554432 bytes"),
        ("gzip", gzip.compress(body)[:-1], "not whole"),
        ("gzip", body, "not what its content-encoding says"),
        ("br", body, "compressed by gzip or deflate"),
    ):
        status, answer, _ = ask(open_server, "POST", path, packed, {"Content-Encoding": encoding})
        assert (status, told in answer["error"]) == (400, True)
