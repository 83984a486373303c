"""The Open Inference Protocol over gRPC, by a client made of its published messages alone."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from lathe_server.open_inference import open_inference_pb2 as pb
from tests.calls import channel
from tests.conftest import RunningServer
from tests.models import bright_spots, echo_of_every_type

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
RAW = {
    "BOOL": np.array([[True, False, True], [False, False, True]]),
    "UINT8": np.array([[0, 255, 7]], np.uint8),
    "UINT16": np.array([[0, 65535, 7]], np.uint16),
    "UINT32": np.array([[0, 2**32 - 1, 7]], np.uint32),
    "UINT64": np.array([[0, 2**64 - 1, 7]], np.uint64),
    "INT8": np.array([[-128, 127, 0]], np.int8),
    "INT16": np.array([[-(2**15), 2**15 - 1, 0]], np.int16),
    "INT32": np.array([[-(2**31), 2**31 - 1, 0]], np.int32),
    "INT64": np.array([[-(2**63), 2**63 - 1, 0]], np.int64),
    "FP16": np.array([[0.1, -65504, 6e-8]], np.float16),
    "FP32": np.array([[0.1, -3.4e38, 1e-45]], np.float32),
    "FP64": np.array([[0.1, -1.7e308, 5e-324]], np.float64),
    "BYTES": np.array([["", "gate", "Tor für alle\0"]], object),
}
FIELDS = {
    "BOOL": "bool_contents",
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
} | {f"{sign}{bits}": f"{sign.lower()}_contents" for sign in ("INT", "UINT") for bits in (8, 16, 32)}


def call(opened: grpc.Channel, method: str, request: Any, **how: Any) -> Any:
    response = getattr(pb, SERVICE.methods_by_name[method].output_type.name)
    send = opened.unary_unary(
        f"/{SERVICE.full_name}/{method}", request.__class__.SerializeToString, response.FromString
    )
    return send(request, timeout=20, **how)


def refusal(act: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        act()
    error: Any = caught.value
    return error.code().name, error.details()


def as_bytes(value: NDArray[Any]) -> bytes:
    if value.dtype != object:
        return value.tobytes()
    return b"".join(struct.pack("<I", len(one.encode())) + one.encode() for one in value.ravel())


@pytest.fixture
def opened(open_server: RunningServer) -> Iterator[grpc.Channel]:
    with channel(open_server.grpc) as found:
        yield found


def echo_request(kinds: dict[str, NDArray[Any]], *, raw: bool) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="echo", id="a call")
    for kind, value in kinds.items():
        tensor = request.inputs.add(name=f"in_{kind}", datatype=kind, shape=value.shape)
        if raw:
            request.raw_input_contents.append(as_bytes(value))
        else:
            elements = [one.encode() for one in value.ravel()] if kind == "BYTES" else value.ravel().tolist()
            getattr(tensor.contents, FIELDS[kind]).extend(elements)
    return request


def rows(count: int, kinds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {kind: np.concatenate([value[:1]] * count) for kind, value in kinds.items()}


def test_every_type_comes_back_bit_for_bit_as_raw_bytes(opened: grpc.Channel) -> None:
    kinds = rows(2, RAW)
    response = call(opened, "ModelInfer", echo_request(kinds, raw=True))
    session = onnxruntime.InferenceSession(echo_of_every_type(), providers=["CPUExecutionProvider"])
    expected = session.run(None, {f"in_{kind}": value for kind, value in kinds.items()})
    assert [output.name for output in response.outputs] == [f"out_{kind}" for kind in kinds]
    for output, content, value in zip(response.outputs, response.raw_output_contents, expected, strict=True):
        assert (list(output.shape), content) == ([2, 3], as_bytes(value)), output.name
    assert (response.id, response.model_name, response.model_version) == ("a call", "echo", "1")
    assert response.parameters["variant"].string_param == "plain"


def test_every_type_that_has_a_field_comes_back_in_it(opened: grpc.Channel) -> None:
    kinds = rows(1, RAW)
    request = echo_request({kind: value for kind, value in kinds.items() if kind != "FP16"}, raw=False)
    assert refusal(lambda: call(opened, "ModelInfer", request))[0] == "INVALID_ARGUMENT"  # one input is missing
    half = request.inputs.add(name="in_FP16", datatype="FP16", shape=[1, 3])
    half.contents.fp32_contents.extend([1, 2, 3])
    code, told = refusal(lambda: call(opened, "ModelInfer", request))
    assert (code, "not in the field of its datatype" in told) == ("INVALID_ARGUMENT", True)
    request = echo_request({kind: kinds[kind] for kind in FIELDS}, raw=False)
    request.inputs.add(name="in_FP16", datatype="FP16", shape=[0, 3])
    for tensor in request.inputs:
        tensor.shape[0] = 0
        tensor.ClearField("contents")
    response = call(opened, "ModelInfer", request)
    assert {tuple(output.shape) for output in response.outputs} == {(0, 3)}


@pytest.mark.parametrize("kind", FIELDS)
def test_elements_in_fields_are_those_in_process(kind: str) -> None:
    from lathe_server.open_inference.encoding import from_elements, from_raw, to_elements, to_raw

    value = RAW[kind]
    elements = to_elements(value)
    there = from_elements("x", kind, value.shape, elements)
    assert (there.shape, to_elements(there)) == (value.shape, elements)
    assert to_raw(from_raw("x", kind, value.shape, to_raw(value))) == as_bytes(value)


def doubled(**changes: Any) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="double", raw_input_contents=[np.ones((2, 16), np.float32).tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=[2, 16])
    for path, value in changes.items():
        target: Any = request.inputs[0] if path in ("shape", "datatype", "name") else request
        target.ClearField(path)
        if isinstance(value, list):
            getattr(target, path).extend(value)
        else:
            setattr(target, path, value)
    return request


def floats(*values: float) -> list[bytes]:
    return [np.resize(np.array(values, np.float32), (2, 16)).tobytes()]


@pytest.mark.fault(5, 6, 7, 8, 9)
@pytest.mark.parametrize(
    ("changes", "code", "told"),
    [
        ({"raw_input_contents": [b"x" * 127]}, "INVALID_ARGUMENT", "x has 127 bytes; its shape and datatype need 128"),
        ({"shape": [2, 15]}, "INVALID_ARGUMENT", "need 120"),
        ({"shape": [32]}, "INVALID_ARGUMENT", r"has the shape [-1, 16], not [32]"),
        ({"shape": [-2, -16]}, "INVALID_ARGUMENT", "none below 0"),
        ({"shape": [2**31, 2**31]}, "INVALID_ARGUMENT", "larger than any message"),
        ({"shape": [2**62, 2**62, 2**62]}, "INVALID_ARGUMENT", "larger than any message"),
        ({"shape": [1] * 17 + [32]}, "INVALID_ARGUMENT", "at most 16 dimensions"),
        ({"shape": [0, 2**62], "raw_input_contents": [b""]}, "INVALID_ARGUMENT", "larger than any message"),
        ({"datatype": "INT32"}, "INVALID_ARGUMENT", "the input x is FP32, not INT32"),
        ({"datatype": "FP31"}, "INVALID_ARGUMENT", "the datatype of x is one of BOOL"),
        ({"datatype": "BYTES"}, "INVALID_ARGUMENT", "go beyond its bytes"),
        ({"raw_input_contents": floats(1, float("nan"))}, "INVALID_ARGUMENT", "NaN or infinity"),
        ({"raw_input_contents": floats(1, float("-inf"))}, "INVALID_ARGUMENT", "NaN or infinity"),
        ({"raw_input_contents": floats(1) * 2}, "INVALID_ARGUMENT", "1 inputs and 2 raw contents"),
        ({"name": "z"}, "INVALID_ARGUMENT", "takes the inputs x"),
        ({"inputs": [], "raw_input_contents": []}, "INVALID_ARGUMENT", "takes the inputs x"),
        ({"outputs": [pb.ModelInferRequest.InferRequestedOutputTensor(name="z")]}, "INVALID_ARGUMENT", "no output z"),
        ({"model_name": "nobody"}, "NOT_FOUND", "no such model"),
        ({"model_name": "double/nobody"}, "NOT_FOUND", "has no variant nobody; it has plain"),
        (
            {"model_name": "double/plain", "model_version": "7"},
            "FAILED_PRECONDITION",
            "plain/7 of double is not loaded",
        ),
        ({"model_name": "double", "model_version": "1"}, "INVALID_ARGUMENT", "a version goes with a variant"),
        ({"model_name": "double/plain", "model_version": "one"}, "INVALID_ARGUMENT", "a whole number"),
        ({"model_name": "double/plain", "model_version": "0"}, "INVALID_ARGUMENT", "a whole number"),
        ({"model_name": "double/plain", "model_version": str(2**32)}, "INVALID_ARGUMENT", "a whole number"),
        (
            {"model_name": "double/plain", "model_version": "0000000001" + "1" * 5000},
            "INVALID_ARGUMENT",
            "a whole number",
        ),
        ({"model_name": "a\0b"}, "INVALID_ARGUMENT", "is named by"),
        ({"model_name": "x" * 2**20}, "INVALID_ARGUMENT", "is named by"),
        ({"model_name": "double/../double"}, "INVALID_ARGUMENT", "is named by"),
        ({"model_name": ""}, "INVALID_ARGUMENT", "is named by"),
    ],
)
def test_what_cannot_be_answered_is_refused_and_the_next_call_is_served(
    opened: grpc.Channel, changes: dict[str, Any], code: str, told: str
) -> None:
    found, details = refusal(lambda: call(opened, "ModelInfer", doubled(**changes)))
    assert (found, told in details) == (code, True), details
    answer = call(opened, "ModelInfer", doubled())
    assert np.frombuffer(answer.raw_output_contents[0], np.float32).tolist() == [2.0] * 32


@pytest.mark.fault(5)
def test_five_million_elements_that_the_shape_does_not_tell_of_are_refused(open_server: RunningServer) -> None:
    request = pb.ModelInferRequest(model_name="double")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[2, 16])
    tensor.contents.fp32_contents.extend([0.0] * 5_000_000)
    with channel(open_server.grpc) as opened:
        assert refusal(lambda: call(opened, "ModelInfer", request))[0] == "INVALID_ARGUMENT"


def test_what_there_is_is_told_by_the_protocols_words(opened: grpc.Channel) -> None:
    assert call(opened, "ServerLive", pb.ServerLiveRequest()).live
    assert call(opened, "ServerReady", pb.ServerReadyRequest()).ready
    assert call(opened, "ServerMetadata", pb.ServerMetadataRequest()).name == "lathe"
    for name, version, ready in (
        ("double", "", True),
        ("double/plain", "1", True),
        ("double/plain", "2", False),
        ("spots/b", "", False),
        ("nobody", "", False),
    ):
        assert call(opened, "ModelReady", pb.ModelReadyRequest(name=name, version=version)).ready == ready
    told = call(opened, "ModelMetadata", pb.ModelMetadataRequest(name="double"))
    assert (told.versions, told.platform) == (["1"], "onnxruntime_onnx")
    assert [(one.name, one.datatype, list(one.shape)) for one in told.inputs] == [("x", "FP32", [-1, 16])]
    config = call(opened, "ModelConfig", pb.ModelConfigRequest(name="double")).config
    assert (config.max_batch_size, list(config.input[0].dims), config.input[0].data_type) == (64, [16], pb.TYPE_FP32)
    pictures = call(opened, "ModelMetadata", pb.ModelMetadataRequest(name="spots"))
    assert [(one.name, one.datatype) for one in pictures.inputs] == [("image", "BYTES"), ("pixels", "UINT8")]
    names = [one.name for one in pictures.outputs]
    assert names[:5] == ["xyxy", "score", "class_id", "landmarks_xy", "image_index"]
    assert call(opened, "ModelConfig", pb.ModelConfigRequest(name="spots")).config.input[0].optional


def image_request(*files: bytes, name: str = "spots") -> pb.ModelInferRequest:
    content = b"".join(struct.pack("<I", len(one)) + one for one in files)
    request = pb.ModelInferRequest(model_name=name, raw_input_contents=[content])
    request.inputs.add(name="image", datatype="BYTES", shape=[len(files)])
    return request


def tensors(response: pb.ModelInferResponse) -> dict[str, NDArray[Any]]:
    kinds = {"FP32": np.float32, "INT64": np.int64, "INT32": np.int32}
    return {
        output.name: np.frombuffer(content, kinds[output.datatype]).reshape(output.shape)
        for output, content in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def test_files_of_pictures_are_answered_by_detections(
    open_server: RunningServer, opened: grpc.Channel, spot_jpeg: bytes
) -> None:
    with open_server.client() as client:
        expected = client.detect("spots", spot_jpeg).detections
    found = tensors(call(opened, "ModelInfer", image_request(spot_jpeg, spot_jpeg)))
    assert found["image_index"].tolist() == [0, 1]
    for index in (0, 1):
        assert found["xyxy"][index] == pytest.approx(expected.xyxy[0])
        assert found["landmarks_xy"][index] == pytest.approx(expected.landmarks[0])
    request = image_request(spot_jpeg)
    request.outputs.add(name="score")
    assert list(tensors(call(opened, "ModelInfer", request))) == ["score"]
    request.outputs[0].name = "heatmap"
    assert refusal(lambda: call(opened, "ModelInfer", request)) == (
        "INVALID_ARGUMENT",
        "pictures have no output heatmap; they have xyxy, score, class_id, landmarks_xy, image_index",
    )
    for files in ((b"no picture",), (spot_jpeg, spot_jpeg[:100]), (spot_jpeg,) * 65):
        assert refusal(lambda files=files: call(opened, "ModelInfer", image_request(*files)))[0] == "INVALID_ARGUMENT"
    assert refusal(lambda: call(opened, "ModelInfer", image_request(spot_jpeg, name="double")))[0] == "INVALID_ARGUMENT"


def test_the_network_of_a_picture_model_answers_to_tensors_too(opened: grpc.Channel) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8)
    request = pb.ModelInferRequest(model_name="spots/a", raw_input_contents=[pixels.tobytes()])
    request.inputs.add(name="pixels", datatype="UINT8", shape=pixels.shape)
    session = onnxruntime.InferenceSession(bright_spots(), providers=["CPUExecutionProvider"])
    expected = dict(
        zip([one.name for one in session.get_outputs()], session.run(None, {"pixels": pixels}), strict=True)
    )
    found = tensors(call(opened, "ModelInfer", request))
    assert {name: value.tobytes() for name, value in found.items()} == {
        name: value.tobytes() for name, value in expected.items()
    }


def test_a_stream_answers_in_order_and_outlives_a_bad_request(opened: grpc.Channel, spot_jpeg: bytes) -> None:
    def requests() -> Iterator[pb.ModelInferRequest]:
        for number in range(40):
            request = image_request(spot_jpeg) if number % 2 else doubled()
            if number == 7:
                request = doubled(shape=[3, 16])
            request.id = str(number)
            yield request

    stream = opened.stream_stream(
        f"/{SERVICE.full_name}/ModelStreamInfer",
        pb.ModelInferRequest.SerializeToString,
        pb.ModelStreamInferResponse.FromString,
    )
    responses = list(stream(requests(), timeout=20))
    assert [one.infer_response.id for one in responses] == [str(number) for number in range(40)]
    assert [one.infer_response.id for one in responses if one.error_message] == ["7"]
    assert "need 192" in responses[7].error_message


def test_statistics_count_what_was_asked(opened: grpc.Channel) -> None:
    def totals() -> Any:
        (found,) = call(opened, "ModelStatistics", pb.ModelStatisticsRequest(name="double")).model_stats
        return found

    before = totals()
    for _ in range(3):
        call(opened, "ModelInfer", doubled())
    refusal(lambda: call(opened, "ModelInfer", doubled(name="z")))
    after = totals()
    assert after.inference_count - before.inference_count == 3
    assert after.inference_stats.fail.count - before.inference_stats.fail.count == 1
    assert after.inference_stats.compute_infer.ns > before.inference_stats.compute_infer.ns
    everything = call(opened, "ModelStatistics", pb.ModelStatisticsRequest()).model_stats
    assert {"double/plain", "echo/plain", "spots/a"} <= {one.name for one in everything}


def test_variants_are_listed_loaded_and_unloaded(opened: grpc.Channel) -> None:
    def index(**asked: Any) -> dict[str, str]:
        found = call(opened, "RepositoryIndex", pb.RepositoryIndexRequest(**asked)).models
        return {one.name: one.state for one in found}

    assert index()["spots/b"] == "UNAVAILABLE"
    assert "spots/b" not in index(ready=True)
    call(opened, "RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="spots/b"))
    assert index(ready=True)["spots/b"] == "READY"
    call(opened, "RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="spots/b"))
    assert "spots/b" not in index(ready=True)
    call(opened, "RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="spots"))
    for method, name, code in (
        ("Load", "spots/nobody", "NOT_FOUND"),
        ("Load", "nobody", "NOT_FOUND"),
        ("Unload", "spots/a", "FAILED_PRECONDITION"),
        ("Unload", "spots", "FAILED_PRECONDITION"),
    ):
        request = getattr(pb, f"RepositoryModel{method}Request")(model_name=name)
        assert refusal(lambda m=method, r=request: call(opened, f"RepositoryModel{m}", r))[0] == code
    loaded = pb.RepositoryModelLoadRequest(model_name="spots/b")
    loaded.parameters["config"].string_param = "{}"
    assert refusal(lambda: call(opened, "RepositoryModelLoad", loaded))[0] == "INVALID_ARGUMENT"


def test_a_network_may_have_an_input_that_is_called_as_that_of_pictures(opened: grpc.Channel) -> None:
    request = doubled(name="image")
    request.model_name = "named"
    answer = call(opened, "ModelInfer", request)
    assert np.frombuffer(answer.raw_output_contents[0], np.float32).tolist() == [2.0] * 32


def test_outputs_are_all_raw_or_none(opened: grpc.Channel) -> None:
    request = pb.ModelInferRequest(model_name="halves")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, 16])
    tensor.contents.fp32_contents.extend([1.5] * 16)
    both = call(opened, "ModelInfer", request)
    assert [len(content) for content in both.raw_output_contents] == [64, 32]
    assert not any(output.HasField("contents") for output in both.outputs)
    request.outputs.add(name="y")
    one = call(opened, "ModelInfer", request)
    assert (len(one.raw_output_contents), list(one.outputs[0].contents.fp32_contents)) == (0, [3.0] * 16)


@pytest.mark.fault(2)
def test_bytes_that_are_no_message_end_their_stream_after_the_answers_before(opened: grpc.Channel) -> None:
    stream = opened.stream_stream(
        f"/{SERVICE.full_name}/ModelStreamInfer", None, pb.ModelStreamInferResponse.FromString
    )
    responses = stream(iter([doubled().SerializeToString(), b"\xff\xff"]), timeout=20)
    assert next(responses).infer_response.model_name == "double"
    assert refusal(lambda: next(responses)) == ("INVALID_ARGUMENT", "the bytes are not a message of this method")


def test_statistics_of_a_label_are_those_of_its_variant(open_server: RunningServer, opened: grpc.Channel) -> None:
    with open_server.client() as client:
        client.set_route("double", {"plain": 1}, labels={"stable": "plain"})
    call(opened, "ModelInfer", doubled(model_name="double/@stable"))
    (told,) = call(opened, "ModelStatistics", pb.ModelStatisticsRequest(name="double/@stable")).model_stats
    assert (told.name, told.inference_count > 0) == ("double/plain", True)
