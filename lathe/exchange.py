"""What a client gives and gets for a frame, to and from the contract's messages."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lathe.detections import Detections
from lathe.embeddings import Embeddings
from lathe.errors import InvalidInput
from lathe.v1 import inference_pb2


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a frame.

    Attributes:
        outcome: `answered`, `dropped_…`, `rejected` or `failed`. `dropped_disconnected` is the client's own word for a
            frame of a live stream that was with a server when the connection was cut, or became stale while there was
            none; the others are the server's, of the contract.
        variant, version: what answered; empty and 0 where nothing did.
        stage_seconds: by stage.
        age_seconds: from the capture to the answer; 0 for `dropped_disconnected`.
        error: why it was rejected or failed; empty otherwise.
        degraded: a cheaper variant answered than the route says, because of too much load.
        trace_id: 32 hex digits; empty where the server does not trace the frame.
        embeddings: None where none were asked for, or nothing answered.
        embedded_by: MODEL/VARIANT/VERSION of what made them; empty where there are none.
    """

    index: int
    outcome: str
    detections: Detections
    model: str
    variant: str
    version: int
    stage_seconds: dict[str, float]
    age_seconds: float
    error: str
    degraded: bool = False
    trace_id: str = ""
    embeddings: Embeddings | None = None
    embedded_by: str = ""

    @property
    def answered(self) -> bool:
        return self.outcome == "answered"

    @staticmethod
    def from_message(message: inference_pb2.Result) -> Result:
        found, stages, served_by = message.detections, message.stage_seconds, message.served_by
        embedder = message.embedded_by
        return Result(
            index=message.index,
            outcome=inference_pb2.Outcome.Name(message.outcome).removeprefix("OUTCOME_").lower(),
            detections=Detections(
                np.array(found.xyxy, np.float32).reshape(-1, 4),
                np.array(found.score, np.float32),
                np.array(found.class_id, np.int64),
                np.array(found.landmarks, np.float32).reshape(len(found.score), found.landmarks_per_detection, 2),
            ),
            model=served_by.model,
            variant=served_by.variant,
            version=served_by.version,
            stage_seconds={
                "decode": stages.decode,
                "queue": stages.queue,
                "preprocess": stages.preprocess,
                "infer": stages.infer,
                "postprocess": stages.postprocess,
            },
            age_seconds=message.age_seconds,
            error=message.error.message,
            degraded=message.degraded,
            trace_id=message.trace_id,
            embeddings=_embeddings(message.embeddings) if message.HasField("embeddings") else None,
            embedded_by=f"{embedder.model}/{embedder.variant}/{embedder.version}" if embedder.model else "",
        )

    @staticmethod
    def disconnected(index: int, model: str) -> Result:
        """Of a frame that was lost with the connection."""
        nothing = Result.from_message(inference_pb2.Result(index=index))
        return replace(nothing, outcome="dropped_disconnected", model=model)


def _embeddings(message: inference_pb2.Embeddings) -> Embeddings:
    vectors = np.array(message.values, np.float32).reshape(-1, message.dimensions or 1)
    return Embeddings(vectors, message.space, np.array(message.detection, np.int64))


Picture = bytes | NDArray[np.uint8]


def frame_message(index: int, picture: Picture, captured_at: float = 0.0) -> inference_pb2.Frame:
    """A frame of the contract.

    Args:
        picture: a JPEG or PNG file, or height × width × 3 RGB, or height × width grey.
        captured_at: Unix time; 0 means the time of arrival.

    Raises:
        InvalidInput: an array of another shape or type, or something else.
    """
    frame = inference_pb2.Frame(index=index, capture_time_unix_ns=int(captured_at * 1e9))
    if isinstance(picture, bytes):
        frame.encoded = picture
        return frame
    if not isinstance(picture, np.ndarray):  # a path, most likely
        raise InvalidInput(f"a picture is bytes or an array, not {type(picture).__name__}")
    is_grey = picture.ndim == 2
    if picture.dtype != np.uint8 or not (is_grey or (picture.ndim == 3 and picture.shape[2] == 3)):
        raise InvalidInput("a raw picture is uint8, height × width × 3 (RGB) or height × width (grey)")
    frame.raw.width, frame.raw.height = picture.shape[1], picture.shape[0]
    frame.raw.format = inference_pb2.PIXEL_FORMAT_GRAY8 if is_grey else inference_pb2.PIXEL_FORMAT_RGB8
    frame.raw.pixels = np.ascontiguousarray(picture).tobytes()
    return frame
