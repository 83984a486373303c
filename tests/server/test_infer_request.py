"""Large requests of the Open Inference Protocol, read without copying what they carry."""

from __future__ import annotations

import random

import numpy as np
import pytest
from google.protobuf.message import DecodeError

from lathe.errors import InvalidInput
from lathe_server.open_inference import open_inference_pb2 as pb
from lathe_server.open_inference.encoding import from_raw
from lathe_server.open_inference.infer_request import LARGE_BYTES, MAX_FIELDS, InferRequest, without_field

PIXELS = np.random.default_rng(0).random((1, 96, 80, 3), np.float32)


def large(**how: object) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name="face", id="7", **how)  # type: ignore[arg-type]
    message.parameters["binary_data_output"].bool_param = True
    message.inputs.add(name="pixels", datatype="FP32", shape=PIXELS.shape)
    message.raw_input_contents.extend([PIXELS.tobytes(), b"", b"end"])
    return message


def test_a_large_message_is_read_as_protobuf_reads_it() -> None:
    message = large()
    read = InferRequest.parse(message.SerializeToString())
    assert read.size > LARGE_BYTES
    assert not read.takes_time
    assert [bytes(one) for one in read.raw] == list(message.raw_input_contents)
    del message.raw_input_contents[:]
    assert read.message == message


@pytest.mark.parametrize("shift", range(5))
def test_a_tensor_is_whole_wherever_it_lies_in_the_message(shift: int) -> None:
    read = InferRequest.parse(large(model_version="1" * shift).SerializeToString())
    value = from_raw("pixels", "FP32", PIXELS.shape, read.raw[0])
    assert value.flags.aligned
    assert np.array_equal(value, PIXELS)


def test_a_small_message_is_left_to_protobuf() -> None:
    small = pb.ModelInferRequest(raw_input_contents=[b"abc"])
    read = InferRequest.parse(small.SerializeToString())
    assert (read.message, list(read.raw), read.takes_time) == (small, [b"abc"], False)


@pytest.mark.parametrize("kind", ["elements", "texts"])
def test_what_is_read_one_by_one_takes_time(kind: str) -> None:
    message = pb.ModelInferRequest()
    one = message.inputs.add(name="x", datatype="BYTES" if kind == "texts" else "FP32")
    if kind == "texts":
        message.raw_input_contents.append(bytes(LARGE_BYTES))
    else:
        one.contents.fp32_contents.extend([0.5] * LARGE_BYTES)
    assert InferRequest.parse(message.SerializeToString()).takes_time


@pytest.mark.fault(3)
def test_unknown_fields_of_every_kind_are_left_where_they_are() -> None:
    unknown = b"\xb8\x3e\xff\xff\x01" + b"\xb9\x3e" + bytes(8) + b"\xba\x3e\x02hi" + b"\xbd\x3e" + bytes(4)
    rest, values = without_field(unknown + b"\x3a\x02ab" + unknown, 7)
    assert (rest, values) == (unknown * 2, [b"ab"])


@pytest.mark.fault(2)
@pytest.mark.parametrize(
    "content",
    [
        b"\x3a",
        b"\x3a\x05abc",
        b"\x3a" + b"\xff" * 11,
        b"\xff" * 20,
        b"\x3b",
        b"\x39abc",
        b"\x3f",
        b"\x3a\xff\xff\xff\xff\x0f",
    ],
    ids=["no length", "too short", "no end", "no key", "group", "half a number", "no kind", "4 GB"],
)
def test_bytes_that_are_no_message_are_refused(content: bytes) -> None:
    with pytest.raises(DecodeError):
        without_field(content, 7)


@pytest.mark.fault(5)
def test_millions_of_fields_are_refused_at_once() -> None:
    with pytest.raises(InvalidInput, match=f"at most {MAX_FIELDS} fields"):
        InferRequest.parse(b"\x3a\x00" * 5_000_000)


@pytest.mark.fault(2)
def test_damaged_messages_are_read_as_protobuf_reads_them_or_refused() -> None:
    whole = large().SerializeToString()
    dice = random.Random(3)
    for _ in range(500):
        content = bytearray(whole)
        for _ in range(dice.randint(1, 4)):
            content[dice.randrange(120) if dice.random() < 0.9 else dice.randrange(len(whole))] ^= 1 << dice.randrange(
                8
            )
        try:
            read = InferRequest.parse(bytes(content))
        except (DecodeError, InvalidInput):
            continue
        message = pb.ModelInferRequest.FromString(bytes(content))
        assert [bytes(one) for one in read.raw] == list(message.raw_input_contents)
        assert read.message.model_name == message.model_name
