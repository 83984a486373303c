"""MLServer: a runtime of one's own, in as many processes as there are cores. JPEG in as a raw tensor, JSON out."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

from eyes import detector, faces
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Faces(MLModel):
    async def load(self) -> bool:
        self._detector = detector(Path(os.environ["PEER_MODEL"]))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        jpeg = payload.inputs[0].data[0]
        answer = json.dumps(faces(self._detector, jpeg))
        return InferenceResponse(model_name=self.name, outputs=[StringCodec.encode_output("faces", [answer])])


async def serve() -> None:
    port = int(os.environ["PEER_PORT"])
    settings = Settings(
        host="127.0.0.1",
        grpc_port=port,
        http_port=port + 1,
        metrics_endpoint=None,
        parallel_workers=int(os.environ["PEER_WORKERS"]),
        load_models_at_startup=False,
    )
    server = MLServer(settings)
    model = ModelSettings(name="face", implementation="mlserver_peer.Faces")
    await server.start([model])


if __name__ == "__main__":
    asyncio.run(serve())
