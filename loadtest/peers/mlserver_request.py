"""Prints what MLServer's gRPC port takes for a picture, as bytes: only its own environment has the stubs."""

from __future__ import annotations

import sys
from pathlib import Path

from mlserver.grpc import dataplane_pb2

tensor = dataplane_pb2.ModelInferRequest.InferInputTensor(name="jpeg", datatype="BYTES", shape=[1])
tensor.contents.bytes_contents.append(Path(sys.argv[1]).read_bytes())
sys.stdout.buffer.write(dataplane_pb2.ModelInferRequest(model_name="face", inputs=[tensor]).SerializeToString())
