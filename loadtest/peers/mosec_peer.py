"""mosec: a Rust front, and a worker process a core. JPEG in, JSON out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from eyes import detector, faces
from mosec import Server, Worker


class Detect(Worker):
    def __init__(self) -> None:
        super().__init__()
        self._detector = detector(Path(os.environ["PEER_MODEL"]))

    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: bytes) -> dict[str, Any]:
        return faces(self._detector, data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(Detect, num=int(os.environ["PEER_WORKERS"]))
    server.run()
