"""Messages made by hand are those of the contract, and answers are read as protobuf would read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lathe.v1 import inference_pb2
from lathe_loadtest.messages import Messages, StreamMessages, TensorMessages, UnaryMessages, messages_of, outcome_of
from lathe_loadtest.scenario import Cameras, Scenario, Tensor
from lathe_server.open_inference import open_inference_pb2

CAMERAS = Cameras(variant="int8", max_age_seconds=0.5, priority="high")
INDEX, CAPTURED, PICTURE = 300, 1_700_000_000_123_456_789, bytes(range(256)) * 40


def joined(messages: Messages) -> bytes:
    return b"".join(messages.request(INDEX, CAPTURED, PICTURE))


def test_a_streams_messages() -> None:
    messages = StreamMessages("face", CAMERAS, "gate-0")
    frame = inference_pb2.Frame(index=INDEX, capture_time_unix_ns=CAPTURED, encoded=PICTURE)
    assert inference_pb2.DetectStreamRequest.FromString(joined(messages)).frame == frame
    assert messages.opening
    config = inference_pb2.DetectStreamRequest.FromString(messages.opening).config
    assert (config.model, config.stream_id, config.variant) == ("face", "gate-0", "int8")
    assert (config.max_age_seconds, config.priority) == (0.5, inference_pb2.PRIORITY_HIGH)


def test_another_seed_is_another_name_by_which_the_server_draws() -> None:
    names = []
    for seed in (1, 2):
        messages = messages_of(Scenario("face", (CAMERAS,), seed=seed), CAMERAS, "gate-0")
        assert messages.opening
        names.append(inference_pb2.DetectStreamRequest.FromString(messages.opening).config.stream_id)
    assert names == ["gate-0.1", "gate-0.2"]


def test_a_calls_message() -> None:
    request = inference_pb2.DetectRequest.FromString(joined(UnaryMessages("face", CAMERAS)))
    assert request.frame == inference_pb2.Frame(index=INDEX, capture_time_unix_ns=CAPTURED, encoded=PICTURE)
    assert (request.model, request.variant, request.priority) == ("face", "int8", inference_pb2.PRIORITY_HIGH)


def test_pictures_by_the_open_inference_protocol() -> None:
    request = open_inference_pb2.ModelInferRequest.FromString(
        joined(TensorMessages(Scenario("face", (CAMERAS,)), CAMERAS))
    )
    assert request.model_name == "face/int8"
    [one] = request.inputs
    assert (one.name, one.datatype, list(one.shape)) == ("image", "BYTES", [1])
    assert request.raw_input_contents[0] == len(PICTURE).to_bytes(4, "little") + PICTURE


def test_tensors_by_the_open_inference_protocol() -> None:
    tensors = (Tensor("x", "FP32", (1, 300)), Tensor("mask", "BOOL", (4,)))
    scenario = Scenario("net", (Cameras(),), protocol="tensors", tensors=tensors)
    request = open_inference_pb2.ModelInferRequest.FromString(joined(TensorMessages(scenario, Cameras())))
    described = [(one.name, one.datatype, list(one.shape)) for one in request.inputs]
    assert described == [("x", "FP32", [1, 300]), ("mask", "BOOL", [4])]
    assert [len(one) for one in request.raw_input_contents] == [1200, 4]


@pytest.mark.parametrize("detections", [0, 1, 200])
def test_answers(detections: int) -> None:
    result = inference_pb2.Result(index=INDEX, outcome=inference_pb2.OUTCOME_ANSWERED, age_seconds=0.5)
    result.detections.xyxy.extend([1.5] * 4 * detections)
    result.detections.class_id.extend([300] * detections)
    result.served_by.variant = "int8"
    result.stage_seconds.infer = 0.01
    stream = StreamMessages("face", CAMERAS, "gate-0")
    assert stream.answer(inference_pb2.DetectStreamResponse(result=result).SerializeToString()) == (
        INDEX,
        "answered",
        "int8",
    )
    call = UnaryMessages("face", CAMERAS)
    assert call.answer(inference_pb2.DetectResponse(result=result).SerializeToString()) == (-1, "answered", "int8")
    first = inference_pb2.Result(outcome=inference_pb2.OUTCOME_DROPPED_SUPERSEDED)
    assert stream.answer(inference_pb2.DetectStreamResponse(result=first).SerializeToString()) == (
        0,
        "dropped_superseded",
        "",
    )


def test_an_answer_of_the_open_inference_protocol() -> None:
    response = open_inference_pb2.ModelInferResponse(model_name="face", raw_output_contents=[b"12345678"])
    response.parameters["trace_id"].string_param = "7"
    response.parameters["variant"].string_param = "int8"
    messages = TensorMessages(Scenario("face", (CAMERAS,)), CAMERAS)
    assert messages.answer(response.SerializeToString()) == (-1, "answered", "int8")
    response.ClearField("parameters")  # of another server
    assert messages.answer(response.SerializeToString()) == (-1, "answered", "")


@given(st.binary(max_size=60))
def test_whatever_a_server_sends_is_read_or_refused(message: bytes) -> None:
    scenario = Scenario("face", (CAMERAS,))
    for messages in (
        StreamMessages("face", CAMERAS, "x"),
        UnaryMessages("face", CAMERAS),
        TensorMessages(scenario, CAMERAS),
    ):
        try:
            messages.answer(message)  # type: ignore[attr-defined]
        except ValueError:
            continue


@pytest.mark.parametrize(
    ("code", "outcome"),
    [(3, "rejected"), (4, "dropped_deadline"), (8, "dropped_overloaded"), (13, "failed"), (14, "dropped_draining")],
)
def test_statuses_of_calls_as_outcomes(code: int, outcome: str) -> None:
    assert outcome_of(code) == outcome
