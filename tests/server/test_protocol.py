"""Detect over a real port, called by clients that break the contract."""

from __future__ import annotations

import random

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from lathe.v1 import inference_pb2
from tests.calls import DETECT, DETECT_STREAM, channel, config, frame, inference, outcomes, refusal, send_bytes, stream
from tests.conftest import RunningServer

BAD = grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.fault(1)
@pytest.mark.parametrize(
    "request_",
    [
        inference_pb2.DetectRequest(),
        inference_pb2.DetectRequest(model="spots"),
        inference_pb2.DetectRequest(model="spots", frame=inference_pb2.Frame(index=3)),
        inference_pb2.DetectRequest(model="spots", frame=inference_pb2.Frame(encoded=b"")),
        inference_pb2.DetectRequest(model="spots", frame=inference_pb2.Frame(raw=inference_pb2.RawPicture())),
    ],
    ids=["nothing", "no frame", "no picture", "empty picture", "empty raw picture"],
)
def test_an_empty_request_is_an_invalid_argument(
    shared_server: RunningServer, request_: inference_pb2.DetectRequest
) -> None:
    with channel(shared_server.grpc) as opened:
        assert refusal(lambda: inference(opened).Detect(request_)).code() is BAD


@pytest.mark.fault(2, 19)
def test_random_bytes_as_a_message_are_refused_and_the_server_lives(
    shared_server: RunningServer, spot_jpeg: bytes
) -> None:
    dice = random.Random(7)
    whole = inference_pb2.DetectRequest(model="spots", frame=inference_pb2.Frame(encoded=spot_jpeg))
    with channel(shared_server.grpc) as opened:
        for length in (1, 2, 3, 10, 100, 1000, 10_000):
            for method in (DETECT, DETECT_STREAM):
                noise = dice.randbytes(length)
                assert refusal(lambda m=method, n=noise: send_bytes(opened, m, n)).code() in (
                    BAD,
                    grpc.StatusCode.INTERNAL,
                )
        assert len(inference(opened).Detect(whole).result.detections.score) == 1


@pytest.mark.fault(3)
def test_unknown_fields_are_ignored(shared_server: RunningServer, spot_jpeg: bytes) -> None:
    message = inference_pb2.DetectRequest(model="spots", frame=inference_pb2.Frame(encoded=spot_jpeg))
    unknown = b"\xba\x3e\x05hello" + b"\xc0\x3e\x2a"  # field 999 as bytes, field 1000 as a number
    with channel(shared_server.grpc) as opened:
        answer = send_bytes(opened, DETECT, message.SerializeToString() + unknown)
    assert len(inference_pb2.DetectResponse.FromString(answer).result.detections.score) == 1


@pytest.mark.fault(4)
def test_a_message_over_the_limit_is_refused_and_other_streams_live(
    shared_server: RunningServer, spot_jpeg: bytes
) -> None:
    def frames(own: list[str]) -> object:
        yield config()
        yield frame(0, spot_jpeg)
        large = inference_pb2.DetectRequest(model="spots", frame=inference_pb2.Frame(encoded=bytes(33 * 2**20)))
        own.append(refusal(lambda: inference(opened).Detect(large)).code().name)
        yield frame(1, spot_jpeg)

    own: list[str] = []
    with channel(shared_server.grpc) as opened:
        assert outcomes(stream(opened, frames(own))) == ["answered", "answered"]
    assert own == ["RESOURCE_EXHAUSTED"]


@pytest.mark.fault(5)
def test_five_million_repetitions_of_a_field_are_refused(shared_server: RunningServer) -> None:
    many = b"\x0a\x01x" * 5_000_000  # the model's name, again and again: the last one holds, and is none of ours
    with channel(shared_server.grpc) as opened:
        assert refusal(lambda: send_bytes(opened, DETECT, many)).code() in (BAD, grpc.StatusCode.NOT_FOUND)


@pytest.mark.fault(9)
@pytest.mark.parametrize(
    "name",
    [b"\xff\xfe\xfd", b"spots\0", b"x" * 2**20, b"spots\n", b"Spots", b"../spots", "späts".encode()],
    ids=["not UTF-8", "NUL", "1 MB", "newline", "upper case", "path", "umlaut"],
)
@pytest.mark.parametrize("field", [0x0A, 0x12], ids=["model", "variant"])
def test_a_name_that_is_none_is_an_invalid_argument(
    shared_server: RunningServer, spot_jpeg: bytes, field: int, name: bytes
) -> None:
    model = b"" if field == 0x0A else b"\x0a\x05spots"
    picture = inference_pb2.DetectRequest(frame=inference_pb2.Frame(encoded=spot_jpeg)).SerializeToString()
    message = model + bytes([field]) + _varint(len(name)) + name + picture
    with channel(shared_server.grpc) as opened:
        error = refusal(lambda: send_bytes(opened, DETECT, message))
    assert error.code() is BAD
    assert len(error.details() or "") < 200


@pytest.mark.fault(10)
def test_an_unknown_pixel_format_is_an_invalid_argument(shared_server: RunningServer) -> None:
    raw = inference_pb2.RawPicture(width=2, height=2, format=99, pixels=bytes(12))  # type: ignore[arg-type]
    with channel(shared_server.grpc) as opened:
        call = inference_pb2.DetectRequest(model="spots", frame=inference_pb2.Frame(raw=raw))
        assert refusal(lambda: inference(opened).Detect(call)).code() is BAD


@pytest.mark.fault(15)
def test_metadata_of_20_kb_is_refused(shared_server: RunningServer) -> None:
    with channel(shared_server.grpc) as opened:
        error = refusal(lambda: send_bytes(opened, DETECT, b"", metadata=[("note", "x" * 20_000)]))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.fault(16)
@pytest.mark.parametrize(
    "method", ["/lathe.v1.InferenceService/Divine", "/lathe.v9.Nothing/Detect", "/lathe.v1.ControlService/SetRoute"]
)
def test_an_unknown_method_or_service_is_unimplemented(shared_server: RunningServer, method: str) -> None:
    with channel(shared_server.grpc) as opened:
        assert refusal(lambda: send_bytes(opened, method, b"")).code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_model_that_is_not_served_is_not_found(shared_server: RunningServer, spot_jpeg: bytes) -> None:
    message = inference_pb2.DetectRequest(model="faces", frame=inference_pb2.Frame(encoded=spot_jpeg))
    with channel(shared_server.grpc) as opened:
        assert refusal(lambda: inference(opened).Detect(message)).code() is grpc.StatusCode.NOT_FOUND


def test_a_pinned_variant_that_does_not_exist_is_not_found(shared_server: RunningServer, spot_jpeg: bytes) -> None:
    message = inference_pb2.DetectRequest(model="spots", variant="b", frame=inference_pb2.Frame(encoded=spot_jpeg))
    with channel(shared_server.grpc) as opened:
        assert refusal(lambda: inference(opened).Detect(message)).code() is grpc.StatusCode.NOT_FOUND


def test_a_pinned_variant_that_is_published_but_not_loaded_is_refused(server: RunningServer, spot_jpeg: bytes) -> None:
    message = inference_pb2.DetectRequest(model="spots", variant="b", frame=inference_pb2.Frame(encoded=spot_jpeg))
    with channel(server.grpc) as opened:
        error = refusal(lambda: inference(opened).Detect(message))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "not loaded" in (error.details() or "")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def test_errors_carry_details_that_programs_read(shared_server: RunningServer, spot_jpeg: bytes) -> None:
    def told(model: str, picture: bytes) -> tuple[str, list[str]]:
        request = inference_pb2.DetectRequest(model=model, frame=inference_pb2.Frame(encoded=picture))
        with channel(shared_server.grpc) as opened, pytest.raises(grpc.RpcError) as caught:
            inference(opened).Detect(request, timeout=10)
        status = rpc_status.from_call(caught.value)
        assert status
        info = error_details_pb2.ErrorInfo()
        assert status.details[0].Unpack(info)
        assert info.domain == "lathe"
        return info.reason, [one.type_url.rpartition(".")[2] for one in status.details]

    assert told("nobody", spot_jpeg) == ("NOT_FOUND", ["ErrorInfo", "RequestInfo"])
    assert told("spots", b"no picture") == ("BAD_PICTURE", ["ErrorInfo", "RequestInfo", "BadRequest"])
