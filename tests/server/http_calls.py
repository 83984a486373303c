"""Requests to the HTTP port as a fuzz makes them: for pages and for the Open Inference Protocol."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import socket
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import quote

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from tests.calls import SECONDS
from tests.server.good_requests import DATATYPES, MODELS, ONES, PINNED, element, pictures
from tests.server.messages import MAX_BYTES, ODD_TEXTS, damaged, mixed
from tests.server.wire_calls import leaks

Json: TypeAlias = Any
Body: TypeAlias = tuple[bytes, dict[str, str]]
"""With the headers that belong to it."""

EXPECTED = frozenset({200, 400, 403, 404, 405, 409, 413, 431, 501, 503})
"""503 says of a model, too, that it is not ready."""
METHODS = ("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "CONNECT", "X")
VERBS = ("", "/ready", "/stats", "/config")
STRAY = "stray"
"""What paths and methods are for that nobody has thought of."""
SMALL_BODIES: Sequence[Json] = ({}, {"ready": True}, [], {"parameters": {"a": 1}})
JSON_LENGTH, CODING = "inference-header-content-length", "transfer-encoding"
NO_REPLY = 0


@dataclass(frozen=True)
class HttpCall:
    """Attributes:
    content: all bytes of the request.
    kind: what it is for, for the count.
    is_whole: well-formed, so that there has to be a reply.
    """

    kind: str
    method: str
    content: bytes
    is_whole: bool

    def send(self, address: str) -> tuple[int, bytes]:
        """Status and body of the reply; 0 where the connection was closed without one.

        Raises:
            TimeoutError: neither came in time.
        """
        host, _, port = address.rpartition(":")
        try:
            with socket.create_connection((host, int(port)), SECONDS) as connection:
                connection.sendall(self.content)
                connection.shutdown(socket.SHUT_WR)
                response = http.client.HTTPResponse(connection, method=self.method)
                response.begin()
                return response.status, response.read()
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException):
            return NO_REPLY, b""


def complaint(call: HttpCall, status: int, body: bytes) -> str:
    """What is wrong with a reply; empty where nothing is."""
    if status == NO_REPLY:
        return "no reply" if call.is_whole else ""
    if status not in EXPECTED:
        return "its status"
    return next(iter(leaks(body.decode("utf-8", "replace"), call.content)), "") if status >= 400 else ""


def good_bodies() -> dict[str, list[Body]]:
    """Of requests for an answer, in each way in which tensors may come, by the model that takes them."""
    x: dict[str, Json] = {"name": "x", "datatype": "FP32", "shape": list(ONES.shape)}
    image: dict[str, Json] = {"name": "image", "datatype": "BYTES", "shape": [1]}
    text = base64.b64encode(pictures()[0]).decode()
    texts = {"data": [text], "parameters": {"content_type": "base64"}}
    flat = {"id": "a call", "inputs": [x | {"data": ONES.ravel().tolist()}]}
    nested = {"inputs": [x | {"data": ONES.tolist()}], "outputs": [{"name": "y", "parameters": {"binary_data": True}}]}
    picture = {"inputs": [image | texts], "parameters": {"binary_data_output": True}}
    return {
        "double": [_json(flat), _json(nested), _behind({"inputs": [x]}, ONES.tobytes())],
        "spots": [_json(picture), _behind({"inputs": [image]}, element(pictures()[0]))],
    }


def _json(told: Json) -> Body:
    return json.dumps(told).encode(), {}


def _behind(told: dict[str, Json], content: bytes) -> Body:
    """Tensors as bytes behind the JSON."""
    told["inputs"][0]["parameters"] = {"binary_data_size": len(content)}
    head = json.dumps(told).encode()
    return head + content, {JSON_LENGTH: str(len(head))}


LEAVES: SearchStrategy[Json] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 20),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from((*DATATYPES, *MODELS, "x", "y", "image", "binary_data_size", "shape", "data", *ODD_TEXTS[:-1])),
    st.text(max_size=20),
    st.just("\ud800"),
)
VALUES: SearchStrategy[Json] = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)


def _changed(draw: DrawFn, body: Body) -> Body:
    """With another value somewhere in its JSON."""
    content, headers = body
    length = int(headers.get(JSON_LENGTH, len(content)))
    told = json.loads(content[:length])
    for _ in range(draw(st.integers(1, 3))):
        _change(draw, told)
    head = json.dumps(told).encode()
    return head + content[length:], headers | ({JSON_LENGTH: str(len(head))} if headers else {})


def _change(draw: DrawFn, told: Json) -> None:
    """Goes down a few steps and puts something else there."""
    while isinstance(told, dict | list) and told:
        keys: Sequence[Any] = sorted(told) if isinstance(told, dict) else range(min(len(told), 4))
        key = draw(st.sampled_from(keys))
        if not isinstance(told[key], dict | list) or not told[key] or draw(st.booleans()):
            if isinstance(told, dict) and draw(st.integers(0, 3)) == 3:
                del told[key]
            else:
                told[key] = draw(VALUES)
            return
        told = told[key]


def _any_json(draw: DrawFn, body: Body) -> Body:
    return _json(draw(VALUES))


def _damaged_body(draw: DrawFn, body: Body) -> Body:
    return draw(damaged(st.just(body[0]))), body[1]


def _nested(draw: DrawFn, body: Body) -> Body:
    depth = draw(st.sampled_from((20, 2000, 30_000)))
    return b'{"inputs":' + b"[" * depth + b"]" * depth + b"}", {}


def _compressed(draw: DrawFn, body: Body) -> Body:
    """As it is, cut off, or in another way than is said."""
    pack: Callable[[bytes], bytes] = draw(st.sampled_from((gzip.compress, zlib.compress)))
    content = pack(body[0])
    content = content[: draw(st.sampled_from((len(content), len(content) // 2)))]
    return content, body[1] | {"content-encoding": draw(st.sampled_from(("gzip", "deflate", "br")))}


def _chunked(draw: DrawFn, body: Body) -> Body:
    """In parts of any size, the last of which may be missing."""
    content, headers = body
    size = draw(st.sampled_from((1, 7, 1000)))
    parts = [content[place : place + size] for place in range(0, len(content), size)]
    chunks = [b"%x\r\n%b\r\n" % (len(part), part) for part in parts]
    end = draw(st.sampled_from((b"0\r\n\r\n", b"0\r\nx-after: 1\r\n\r\n", b"", b"-1\r\n")))
    return b"".join(chunks) + end, headers | {CODING: "chunked"}


def _wrong_length(draw: DrawFn, body: Body) -> Body:
    told = draw(
        st.sampled_from(("-1", "x", "0", "1", "99999999999999999999", "\xb2", "")) | st.integers(0, 500).map(str)
    )
    return body[0], {JSON_LENGTH: told}


def _as_it_is(draw: DrawFn, body: Body) -> Body:
    return body


BODIES = (
    _as_it_is,
    *[_changed] * 3,
    _any_json,
    _damaged_body,
    _nested,
    _compressed,
    _chunked,
    _wrong_length,
)
"""Ways to a body from a good one."""


def targets() -> dict[str, SearchStrategy[tuple[str, str]]]:
    """Method and path, by what they are for."""
    names = (*MODELS, *PINNED, "spots/a/versions/1", "spots/plain/versions/7", "nobody", "spots/@nobody")
    odd = (st.sampled_from(ODD_TEXTS) | st.text(max_size=20)).map(lambda text: quote(text[:300], safe="/@"))
    name = mixed({st.sampled_from(names): 2, odd: 1})
    answering = mixed({st.sampled_from(("double", "spots", "spots/a", "double/plain/versions/1")): 2, name: 1})
    part = st.sampled_from(("models", "repository", "versions", "infer", "1", "", ".", ".."))
    parts = st.lists(part | name, max_size=6).map("/".join)
    get, post = st.just("GET"), st.just("POST")
    return {
        "page": st.tuples(get, st.sampled_from(("/metrics", "/healthz", "/readyz"))),
        "server": st.tuples(get, st.sampled_from(("/v2", "/v2/health/live", "/v2/health/ready"))),
        "stats": st.tuples(get, st.just("/v2/models/stats")),
        "model": st.tuples(get, st.builds("/v2/models/{}{}".format, name, st.sampled_from(VERBS))),
        "infer": st.tuples(post, answering.map("/v2/models/{}/infer".format)),
        "index": st.tuples(post, st.just("/v2/repository/index")),
        "repository": st.tuples(
            post, st.builds("/v2/repository/models/{}/{}".format, name, st.sampled_from(("load", "unload")))
        ),
        STRAY: st.tuples(st.sampled_from(METHODS), parts.map("/v2/{}".format)),
    }


HEADERS: Mapping[str, Sequence[str]] = {
    "content-type": ("application/json", "application/octet-stream", ""),
    "origin": ("http://example.org",),
    "expect": ("100-continue",),
    "connection": ("close", "keep-alive", "upgrade"),
    "upgrade": ("h2c", "websocket"),
    CODING: ("gzip", "identity"),
    "content-length": ("-1", "x", "1", "99999999999999999999999", "100000000000"),
    "x-site": ("gate", "\xff", "x" * 20_000),
    "authorization": ("Bearer nobody",),
}


def http_calls() -> dict[str, SearchStrategy[HttpCall]]:
    """By what they are for; the simplest of them are good."""
    bodies = good_bodies()

    def calls(kind: str, target: SearchStrategy[tuple[str, str]]) -> SearchStrategy[HttpCall]:
        @st.composite
        def build(draw: DrawFn) -> HttpCall:
            method, path = draw(target)
            if draw(st.integers(0, 7)) == 7:
                method = draw(st.sampled_from(METHODS))
            content, headers = b"", dict[str, str]()
            if kind in ("infer", STRAY):
                fitting = bodies["spots" if "spots" in path else "double"]
                content, headers = draw(st.sampled_from(BODIES))(draw, draw(st.sampled_from(fitting)))
            elif method != "GET":
                content = json.dumps(draw(st.sampled_from(SMALL_BODIES) | VALUES)).encode()
            content = content[:MAX_BYTES]
            length = {} if CODING in headers else {"content-length": str(len(content))}
            headers = {"host": "127.0.0.1"} | length | headers
            is_odd = draw(st.integers(0, 4)) == 4
            if is_odd:
                for name in draw(st.lists(st.sampled_from(sorted(HEADERS)), max_size=2)):
                    headers[name] = draw(st.sampled_from(HEADERS[name]))
            whole = _request(method, path, headers) + content
            if draw(st.integers(0, 9)) == 9:
                return HttpCall(kind, method, draw(damaged(st.just(whole))), is_whole=False)
            return HttpCall(kind, method, whole, is_whole=not is_odd)

        return build()

    return {kind: calls(kind, target) for kind, target in targets().items()}


def _request(method: str, path: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")
