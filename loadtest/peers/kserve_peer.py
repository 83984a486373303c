"""KServe: a model of one's own behind its Python server, a process a core. JPEG in as a binary tensor, JSON out."""

from __future__ import annotations

import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any

from eyes import detector, faces
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer

from lathe_server.vision import Detector


class Faces(Model):  # type: ignore[misc]
    """Its worker processes get it pickled, so each makes its network at its first picture."""

    def __init__(self) -> None:
        super().__init__("face")
        self.ready = True

    @cached_property
    def _detector(self) -> Detector:
        return detector(Path(os.environ["PEER_MODEL"]))

    def predict(self, payload: InferRequest, headers: Any = None, response_headers: Any = None) -> InferResponse:
        answer = json.dumps(faces(self._detector, payload.inputs[0].as_numpy().tobytes()))
        output = InferOutput("faces", [1], "BYTES", [answer])
        return InferResponse(payload.id or "", self.name, [output])


if __name__ == "__main__":
    server = ModelServer(
        http_port=int(os.environ["PEER_PORT"]),
        enable_grpc=False,
        workers=int(os.environ["PEER_WORKERS"]),
        enable_latency_logging=False,
    )
    server.start([Faces()])
