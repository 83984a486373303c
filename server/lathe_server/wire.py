"""Between the contract's messages and the server's own values."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
import numpy as np
from numpy.typing import NDArray

from lathe.embeddings import Embeddings
from lathe.errors import BadPicture, InvalidInput
from lathe.repository import VariantRef
from lathe.v1 import inference_pb2
from lathe_server.frames import OUTCOMES, Result
from lathe_server.vision import Answer, EncodedPicture, Picture, RawPicture
from lathe_server.vision.align import LANDMARKS

_FORMATS = {
    inference_pb2.PIXEL_FORMAT_RGB8: "rgb8",
    inference_pb2.PIXEL_FORMAT_BGR8: "bgr8",
    inference_pb2.PIXEL_FORMAT_GRAY8: "gray8",
}
_OUTCOMES = {outcome: inference_pb2.Outcome.Value(f"OUTCOME_{outcome.upper()}") for outcome in OUTCOMES}
MAX_STREAM_ID = 256


def check_stream_id(stream_id: str) -> str:
    """Returns a stream's name if it is one.

    Raises:
        InvalidInput: too long, or with characters that do not print.
    """
    if len(stream_id) > MAX_STREAM_ID or not stream_id.isprintable():
        raise InvalidInput(f"a stream_id is at most {MAX_STREAM_ID} printable characters")
    return stream_id


def to_picture(frame: inference_pb2.Frame) -> Picture:
    """The frame's picture, not yet looked into.

    Raises:
        BadPicture: there is none, or its format is unknown.
    """
    kind = frame.WhichOneof("picture")
    if kind == "encoded":
        return EncodedPicture(frame.encoded)
    if kind == "raw":
        raw = frame.raw
        pixel_format = _FORMATS.get(raw.format)
        if pixel_format is None:
            raise BadPicture("a raw picture's format is RGB8, BGR8 or GRAY8")
        return RawPicture(raw.width, raw.height, raw.stride, pixel_format, raw.pixels)  # type: ignore[arg-type]
    raise BadPicture("the frame holds no picture")


def fill(message: inference_pb2.Result, result: Result) -> None:
    """Writes a result into an empty message: one that is part of another, because assigning a whole one copies it."""
    message.index = result.frame.index
    message.outcome = _OUTCOMES[result.outcome]
    message.age_seconds = result.age_seconds
    message.degraded = result.degraded
    if result.trace_id:
        message.trace_id = result.trace_id
    if ref := result.ref:
        served_by = message.served_by
        served_by.model, served_by.variant, served_by.version = ref.model, ref.variant, ref.version
    if result.error:
        message.error.code = grpc.StatusCode[result.error.status].value[0]
        message.error.message = result.error.message
    if isinstance(result.answer, Answer):
        if (embeddings := result.answer.embeddings) is not None:
            _fill_embeddings(message, embeddings)
            if ref := result.parts[-1].ref if len(embeddings) else None:
                message.embedded_by.CopyFrom(to_servable(ref))
        found, stages = result.answer.detections, result.answer.stages
        detections, seconds = message.detections, message.stage_seconds
        detections.xyxy.extend(found.xyxy.ravel().tolist())
        detections.score.extend(found.score.tolist())
        detections.class_id.extend(found.class_id.tolist())
        detections.landmarks.extend(found.landmarks.ravel().tolist())
        detections.landmarks_per_detection = found.landmarks.shape[1]
        seconds.decode, seconds.queue, seconds.preprocess = stages.decode, result.queue_seconds, stages.preprocess
        seconds.infer, seconds.postprocess = stages.infer, stages.postprocess


def _fill_embeddings(message: inference_pb2.Result, embeddings: Embeddings) -> None:
    told = message.embeddings
    told.detection.extend(embeddings.detection.tolist())
    told.values.extend(embeddings.vectors.ravel().tolist())
    told.dimensions = embeddings.vectors.shape[1]
    told.space = embeddings.space


def to_landmarks(values: Sequence[float]) -> NDArray[np.float32] | None:
    """One face's landmarks, 1 × 5 × 2; None where there are none.

    Raises:
        InvalidInput: not five pairs of coordinates.
    """
    if not values:
        return None
    if len(values) != 2 * LANDMARKS:
        raise InvalidInput(f"a face has {LANDMARKS} landmarks, x and y each, and {len(values)} numbers came")
    return np.array(values, np.float32).reshape(1, LANDMARKS, 2)


def to_servable(ref: VariantRef) -> inference_pb2.Servable:
    return inference_pb2.Servable(model=ref.model, variant=ref.variant, version=ref.version)
