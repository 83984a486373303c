"""The server that one writes by hand: grpc.aio, uvloop, a thread a core. Plain bytes in and out."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import uvloop
from eyes import answerer


async def serve() -> None:
    answer = answerer(Path(os.environ["PEER_MODEL"]))
    workers = ThreadPoolExecutor(int(os.environ["PEER_WORKERS"]))

    async def detect(asked: bytes, _: object) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(workers, answer, asked)

    server = grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(detect)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("peer.Peer", {"Detect": method})])
    server.add_insecure_port(f"127.0.0.1:{os.environ['PEER_PORT']}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve())
