"""The protocol over HTTP: JSON, with the extension that carries tensors as bytes behind it."""

from __future__ import annotations

import asyncio
import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import unquote

from numpy.typing import NDArray

from lathe.connection import is_loopback
from lathe.errors import InvalidInput, LatheError, NotFound, Refused
from lathe_server.access.gate import Gate
from lathe_server.access.tokens import Role
from lathe_server.boundary import for_caller
from lathe_server.http import Reply, Request
from lathe_server.open_inference.data_plane import EXTENSIONS, NAME, DataPlane, Inferred, durations
from lathe_server.open_inference.description import Description, Tensor
from lathe_server.open_inference.encoding import to_elements, to_raw
from lathe_server.open_inference.json_tensors import listed, parameters_of, read_inputs, text_of
from lathe_server.open_inference.names import target
from lathe_server.origin import REQUEST_ID, Origin, current
from lathe_server.tensors import datatype_of

PREFIX = "/v2"
JSON_LENGTH = b"inference-header-content-length"
"""Header with the length of the JSON before the bytes of tensors."""

LARGE_BYTES = 65_536
"""Of what is read or written beside the event loop."""
MAX_JSON_BYTES = 8 << 20
"""Parsing holds up everything else in the process, so it must not take long."""
_WINDOWS = {b"gzip": 31, b"deflate": 15}
"""As zlib tells its formats apart."""

T = TypeVar("T")

_STATUS = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "FAILED_PRECONDITION": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


class Rest:
    """A thin layer over the data plane.

    Args:
        max_body: bytes of a request, once it is unpacked.
        on_end: told of each request's method and status, by the names that gRPC has for them.
    """

    def __init__(
        self,
        plane: DataPlane,
        gate: Gate,
        max_body: int,
        on_end: Callable[[str, str], None] = lambda method, status: None,
    ) -> None:
        self._on_end = on_end
        self._plane = plane
        self._gate = gate
        self._max_body = max_body

    def admit(self, head: Request) -> Reply | None:
        """Looks at the token before the body comes. Where none are asked for, changes are for callers on this machine,
        and a page in a browser is none, wherever it runs."""
        is_change = _parts(head)[:2] == ["repository", "models"]
        host = head.headers.get(b"host", b"").decode("latin-1")
        names_us = is_loopback(host) or is_loopback(f"{host}:")  # with its port or without
        is_here = head.is_from_here and b"origin" not in head.headers and names_us
        role: Role = "control" if is_change else "infer"
        origin = Origin([(key.decode("latin-1"), value.decode("latin-1")) for key, value in head.headers.items()])
        current.set(origin)
        try:
            origin.caller = self._gate.admit(origin.header("authorization"), role, is_here=is_here)
        except LatheError as error:
            return _error(error)
        return None

    async def answer(self, request: Request) -> Reply:
        """Of a request whose path begins with /v2; raises nothing."""
        method, status = f"/v2 {_verb(_parts(request))}", "CANCELLED"
        try:
            reply = await self._answer(request, _parts(request))
            status = "OK"
            return reply
        except Exception as error:  # noqa: BLE001  the boundary of the process
            known = for_caller(error)
            status = known.status
            return _error(known)
        finally:
            self._on_end(method, status)

    async def _answer(self, request: Request, parts: list[str]) -> Reply:
        plane = self._plane
        match _method(request), parts:
            case "GET", []:
                return _json({"name": NAME, "version": plane.version, "extensions": EXTENSIONS})
            case "GET", ["health", "live"]:
                return _json({"live": True})
            case "GET", ["health", "ready"]:
                return _json({"ready": plane.is_ready()}, 200 if plane.is_ready() else 503)
            case "GET", ["models", "stats"]:
                return self._statistics()
            case "POST", ["repository", "index"]:
                return await self._index(bool(_parsed(request.body).get("ready")))
            case "POST", ["repository", "models", *name, ("load" | "unload") as verb]:
                if _parsed(request.body).get("parameters") and verb == "load":
                    raise InvalidInput("a load takes no parameters: files and settings come from the repository")
                await (plane.load if verb == "load" else plane.unload)("/".join(name))
                return _json({})
            case _, ["models", *rest] if rest:
                return await self._of_model(request, rest)
        raise NotFound("there is no such resource")

    async def _of_model(self, request: Request, parts: list[str]) -> Reply:
        """MODEL[/VARIANT][/versions/VERSION][/VERB]."""
        verb = parts.pop() if parts[-1] in _VERBS and len(parts) > 1 else ""
        version = ""
        if len(parts) > 2 and parts[-2] == "versions":
            version = parts.pop()
            parts.pop()
        name = "/".join(parts)
        match _method(request), verb:
            case "POST", "infer":
                return await self._infer(request, name, version)
            case "GET", "ready":
                ready = self._plane.is_model_ready(target(name, version))
                return _json({"name": name, "ready": ready}, 200 if ready else 503)
            case "GET", "stats":
                return self._statistics(name, version)
            case "GET", "":
                return _json(_metadata(name, await self._plane.describe(target(name, version))))
            case "GET", "config":
                return _json(_config(name, await self._plane.describe(target(name, version))))
        raise NotFound("there is no such resource")

    async def _infer(self, request: Request, name: str, version: str) -> Reply:
        asked = target(name, version)

        def read() -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
            body = _unpacked(request, self._max_body)
            length = _json_length(request.headers, len(body))
            told = _parsed(body[:length])
            return told, read_inputs(told, body[length:])

        is_large = len(request.body) > LARGE_BYTES or b"content-encoding" in request.headers
        told, inputs = await _aside(read, is_large)
        wanted = listed(told, "outputs")
        inferred = await self._plane.infer(
            asked,
            inputs,
            [text_of(one, "name") for one in wanted],
            deadline=math.inf,
        )
        by_bytes = {text_of(one, "name") for one in wanted if parameters_of(one).get("binary_data")}
        if parameters_of(told).get("binary_data_output"):
            by_bytes |= inferred.outputs.keys()
        is_large = any(value.nbytes > LARGE_BYTES or value.dtype == object for value in inferred.outputs.values())
        return await _aside(lambda: _reply(name, told.get("id"), inferred, by_bytes), is_large)

    def _statistics(self, name: str = "", version: str = "") -> Reply:
        rows = [
            {
                "name": told,
                "version": number,
                "inference_count": totals.answered,
                "execution_count": totals.answered,
                "inference_stats": {
                    kind: {"count": count, "ns": nanoseconds}
                    for kind, (count, nanoseconds) in durations(totals).items()
                },
                "batch_stats": [],
            }
            for told, number, totals in self._plane.statistics(name, version)
        ]
        return _json({"model_stats": rows})

    async def _index(self, only_ready: bool) -> Reply:
        lines = await self._plane.index(only_ready=only_ready)
        return _json(
            [{"name": one.name, "version": one.version, "state": one.state, "reason": one.reason} for one in lines]
        )


async def _aside(work: Callable[[], T], is_large: bool) -> T:
    """Numbers as JSON take their time: many of them are read and written beside the event loop."""
    return await asyncio.to_thread(work) if is_large else work()


def _method(request: Request) -> str:
    """HEAD is GET whose body is not sent."""
    return "GET" if request.method == "HEAD" else request.method


_VERBS = frozenset({"infer", "ready", "stats", "config"})


def _verb(parts: list[str]) -> str:
    """What is asked, as a label: one of a few words.

    >>> [_verb(path.split("/")) for path in ("models/face/int8/infer", "models/face", "repository/index", "made/up")]
    ['infer', 'metadata', 'index', 'other']
    """
    match parts:
        case ["models", *_, ("infer" | "ready" | "stats" | "config") as verb]:
            return verb
        case ["models", _, *_] | []:
            return "metadata"
        case ["repository", "index"]:
            return "index"
        case ["repository", "models", *_, ("load" | "unload") as verb]:
            return verb
        case ["health", ("live" | "ready") as verb]:
            return verb
    return "other"


def _parts(request: Request) -> list[str]:
    return [unquote(part) for part in request.path.split("/")[2:] if part]


def _error(error: LatheError) -> Reply:
    status = _STATUS.get(error.status, 500)
    headers = [(REQUEST_ID, current.get().request_id)]
    if status == HTTPStatus.UNAUTHORIZED:
        headers.append(("www-authenticate", "Bearer"))
    return replace(_json({"error": error.message}, status), headers=headers)


def _json(content: object, status: int = 200) -> Reply:
    return Reply(status, json.dumps(content).encode(), "application/json")


def _parsed(body: bytes) -> dict[str, Any]:
    """
    Raises:
        InvalidInput: it is not a JSON object.
    """
    if len(body) > MAX_JSON_BYTES:
        raise InvalidInput(f"JSON is at most {MAX_JSON_BYTES} bytes; large tensors come as bytes behind it")
    try:
        content = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise InvalidInput("the body is not JSON") from error
    if not isinstance(content, dict):
        raise InvalidInput("the body is not a JSON object")
    return content


def _unpacked(request: Request, most: int) -> bytes:
    """The body as it was before it was compressed.

    Raises:
        InvalidInput: it is compressed in another way, damaged, or longer than so many bytes.
    """
    encoding = request.headers.get(b"content-encoding", b"identity").lower()
    if encoding == b"identity":
        return request.body
    if encoding not in _WINDOWS:
        raise InvalidInput("a body is compressed by gzip or deflate")
    unpacking = zlib.decompressobj(_WINDOWS[encoding])
    try:
        body = unpacking.decompress(request.body, most)
    except zlib.error as error:
        raise InvalidInput("the body is not what its content-encoding says") from error
    if not unpacking.eof or unpacking.unused_data:
        raise InvalidInput(f"the body is longer than {most} bytes, or not whole")
    return body


def _json_length(headers: Mapping[bytes, bytes], size: int) -> int:
    """Of the body's beginning that is JSON.

    Args:
        size: of the body.
    """
    told = headers.get(JSON_LENGTH)
    if told is None:
        return size
    if not told.isdigit() or len(told) > 12 or int(told) > size:
        raise InvalidInput(f"{JSON_LENGTH.decode()} is the length of the JSON at the body's beginning")
    return int(told)


def _reply(name: str, call_id: object, inferred: Inferred, by_bytes: set[str]) -> Reply:
    outputs: list[dict[str, Any]] = []
    contents = []
    for output, value in inferred.outputs.items():
        told: dict[str, Any] = {"name": output, "datatype": datatype_of(value), "shape": list(value.shape)}
        if output in by_bytes:
            contents.append(to_raw(value))
            told["parameters"] = {"binary_data_size": len(contents[-1])}
        elif value.dtype == object:
            told["data"] = [element.decode("utf-8", "replace") for element in to_elements(value)]
        else:
            told["data"] = to_elements(value)
        outputs.append(told)
    content: dict[str, Any] = {"model_name": name, "model_version": str(inferred.ref.version), "outputs": outputs}
    content["parameters"] = {"variant": inferred.ref.variant}
    if inferred.trace_id:
        content["parameters"]["trace_id"] = inferred.trace_id
    if isinstance(call_id, str):
        content["id"] = call_id
    try:
        head = json.dumps(content, allow_nan=False).encode()
    except ValueError as error:
        raise Refused("the answer holds NaN or infinity, which JSON has not; ask for it as binary data") from error
    if not contents:
        return Reply(200, head, "application/json")
    length = ((JSON_LENGTH.decode(), str(len(head))),)
    return Reply(200, b"".join((head, *contents)), "application/octet-stream", length)


def _metadata(name: str, found: Description) -> dict[str, Any]:
    def told(tensors: Sequence[Tensor]) -> list[dict[str, Any]]:
        return [{"name": one.name, "datatype": one.datatype, "shape": list(one.shape)} for one in tensors]

    return {
        "name": name,
        "versions": [str(found.ref.version)],
        "platform": found.platform,
        "inputs": told(found.inputs),
        "outputs": told(found.outputs),
    }


def _config(name: str, found: Description) -> dict[str, Any]:
    inner = slice(1 if found.max_batch else 0, None)

    def told(one: Tensor) -> dict[str, Any]:
        kind = "STRING" if one.datatype == "BYTES" else one.datatype
        return {"name": one.name, "data_type": f"TYPE_{kind}", "dims": list(one.shape[inner])}

    return {
        "name": name,
        "platform": found.platform,
        "backend": found.platform.partition("_")[0],
        "max_batch_size": found.max_batch,
        "input": [told(one) | {"optional": one.optional} for one in found.inputs],
        "output": [told(one) for one in found.outputs],
        "model_transaction_policy": {"decoupled": False},
    }
