"""mosec: a Rust front, and a worker process a core."""

from __future__ import annotations

import os
from pathlib import Path

from eyes import answerer
from mosec import Server, Worker


class Detect(Worker):
    def __init__(self) -> None:
        super().__init__()
        self._answer = answerer(Path(os.environ["PEER_MODEL"]))

    def deserialize(self, data: bytes) -> bytes:
        return data

    def serialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: bytes) -> bytes:
        return self._answer(data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(Detect, num=int(os.environ["PEER_WORKERS"]))
    server.run()
