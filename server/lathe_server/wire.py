"""Between the contract's messages and the server's own values."""

from __future__ import annotations

import grpc

from lathe.errors import BadPicture, InvalidInput
from lathe.repository import VariantRef
from lathe.v1 import card_pb2, inference_pb2
from lathe_server.frames import Result
from lathe_server.vision import EncodedPicture, Picture, RawPicture

_FORMATS = {
    inference_pb2.PIXEL_FORMAT_RGB8: "rgb8",
    inference_pb2.PIXEL_FORMAT_BGR8: "bgr8",
    inference_pb2.PIXEL_FORMAT_GRAY8: "gray8",
}
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


def to_result(result: Result) -> inference_pb2.Result:
    message = inference_pb2.Result(
        index=result.frame.index,
        outcome=inference_pb2.Outcome.Value(f"OUTCOME_{result.outcome.upper()}"),
        age_seconds=result.age_seconds,
        degraded=result.degraded,
    )
    if result.ref:
        message.served_by.CopyFrom(to_servable(result.ref))
    if result.error:
        message.error.code = grpc.StatusCode[result.error.status].value[0]
        message.error.message = result.error.message
    if result.answer:
        found, stages = result.answer.detections, result.answer.stages
        message.detections.xyxy.extend(found.xyxy.ravel().tolist())
        message.detections.score.extend(found.score.tolist())
        message.detections.class_id.extend(found.class_id.tolist())
        message.detections.landmarks.extend(found.landmarks.ravel().tolist())
        message.detections.landmarks_per_detection = found.landmarks.shape[1]
        message.stage_seconds.CopyFrom(
            card_pb2.StageSeconds(
                decode=stages.decode,
                queue=result.queue_seconds,
                preprocess=stages.preprocess,
                infer=stages.infer,
                postprocess=stages.postprocess,
            )
        )
    return message


def to_servable(ref: VariantRef) -> inference_pb2.Servable:
    return inference_pb2.Servable(model=ref.model, variant=ref.variant, version=ref.version)
