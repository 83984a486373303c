"""Other servers beside Lathe: each with the same network and the same decoding, and asked by the same h2load.

Their scripts lie in loadtest/peers, each with the packages it needs in an environment of its own.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc

from lathe.errors import Unavailable
from lathe_loadtest.bench.h2load import GRPC_HEADERS, grpc_message

SCRIPTS = Path(__file__).parents[2] / "peers"
START_SECONDS, CALL_SECONDS = 60.0, 10.0


@dataclass(frozen=True)
class Peer:
    """A server that runs.

    Attributes:
        path, message, headers: of a request that holds the picture.
        http1: over HTTP/1.1, and otherwise gRPC.
        is_answer: whether that is what comes back.
    """

    name: str
    address: str
    path: str
    message: bytes
    headers: Sequence[str]
    http1: bool
    is_answer: Callable[[bytes], bool]

    @property
    def url(self) -> str:
        return f"http://{self.address}{self.path}"

    @property
    def body(self) -> bytes:
        return self.message if self.http1 else grpc_message(self.message)

    def ask(self) -> bytes:
        """One call.

        Raises:
            Unavailable: it is not answered, or by something else.
        """
        try:
            answer = self._post() if self.http1 else self._call()
        except (OSError, urllib.error.URLError, grpc.RpcError) as error:
            raise Unavailable(f"{self.name} does not answer: {error}") from error
        if not self.is_answer(answer):
            raise Unavailable(f"{self.name} answers something else")
        return answer

    def _post(self) -> bytes:
        headers = dict(header.split(": ", 1) for header in self.headers)
        request = urllib.request.Request(self.url, self.message, headers)
        with urllib.request.urlopen(request, timeout=CALL_SECONDS) as response:
            return bytes(response.read())

    def _call(self) -> bytes:
        with grpc.insecure_channel(self.address) as channel:
            return bytes(channel.unary_unary(self.path, None, None)(self.message, timeout=CALL_SECONDS))


def installed(environments: Path) -> list[str]:
    """Peers that have an environment; the hand-written server needs none of its own."""
    return ["aio", *(name for name in ("mosec", "mlserver", "kserve") if (environments / name / "bin/python").exists())]


@contextmanager
def running(
    name: str,
    environments: Path,
    model: Path,
    asked: Path,
    log: Path,
    *,
    workers: int,
    cores: set[int],
    is_answer: Callable[[bytes], bool] = lambda answer: b"xyxy" in answer,
) -> Iterator[Peer]:
    """Starts a peer, and ends it.

    Args:
        model: folder of the version that it serves.
        asked: file of what it will be asked about, a JPEG or a tensor.
        is_answer: whether that is what comes back.
        cores: it may run on these.

    Raises:
        Unavailable: it does not come to answer.
    """
    port = _free_port()
    python = sys.executable if name == "aio" else str((environments / name / "bin/python").absolute())
    search = os.pathsep.join(str(folder) for folder in (SCRIPTS.parents[1], SCRIPTS.parents[1] / "server"))
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("LATHE_", "PYTHON"))},
        "PYTHONPATH": search,
        "PEER_MODEL": str(model.resolve()),
        "PEER_PORT": str(port),
        "PEER_WORKERS": str(workers),
    }
    arguments = ["--address", "127.0.0.1", "--port", str(port)] if name == "mosec" else []
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [python, f"{name}_peer.py", *arguments],
            cwd=SCRIPTS,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
    try:
        peer = Peer(name, f"127.0.0.1:{port}", *_request_of(name, asked, python), is_answer)
        _wait_until_it_answers(peer, process)
        yield peer
    finally:
        with suppress(ProcessLookupError):  # it ended by itself
            os.killpg(process.pid, 15)
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()


def _request_of(name: str, asked: Path, python: str) -> tuple[str, bytes, Sequence[str], bool]:
    """Path, message, headers, and whether it goes by HTTP/1.1."""
    content = asked.read_bytes()
    if name == "aio":
        return "/peer.Peer/Detect", content, GRPC_HEADERS, False
    if name == "mosec":
        return "/inference", content, ("content-type: application/octet-stream",), True
    if name == "mlserver":
        command = [python, str(SCRIPTS / "mlserver_request.py"), str(asked.resolve())]
        message = subprocess.run(command, capture_output=True, check=True).stdout
        return "/inference.GRPCInferenceService/ModelInfer", message, GRPC_HEADERS, False
    size = len(content)
    tensor = {"name": "jpeg", "shape": [size], "datatype": "UINT8", "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = ("content-type: application/octet-stream", f"inference-header-content-length: {len(head)}")
    return "/v2/models/face/infer", head + content, headers, True


def _wait_until_it_answers(peer: Peer, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            peer.ask()
            return
        except Unavailable:
            if process.poll() is not None or time.monotonic() > end:
                raise
            time.sleep(0.2)


def _free_port() -> int:
    """One whose successor is free too: MLServer wants it for HTTP."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port = int(first.getsockname()[1])
            try:
                socket.create_server(("127.0.0.1", port + 1)).close()
            except OSError:
                continue
            return port
