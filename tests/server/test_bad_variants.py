"""Variants that must not be loaded: SetRoute says which check they failed, and the old one goes on serving."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lathe.errors import BadVariant
from lathe.machine import cpu_name
from lathe.repository import Repository
from lathe.v1 import card_pb2, control_pb2
from lathe_server.engines import default_engine
from lathe_server.engines.golden import golden_answers, golden_picture
from lathe_server.loading import load_servable
from tests.calls import channel, control, metric, refusal
from tests.conftest import RunningServer
from tests.models import bright_spots, card_for

MODEL = bright_spots()


def changed(change: Callable[[onnx.ModelProto], None]) -> bytes:
    model = onnx.load_from_string(MODEL)
    change(model)
    return bytes(model.SerializeToString())


def external(location: str, **how: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        onnx.external_data_helper.set_external_data(tensor, location)
        for key, value in how.items():
            tensor.external_data.add(key=key, value=value)
        tensor.ClearField("raw_data")

    return change


def foreign_operator(model: onnx.ModelProto) -> None:
    model.opset_import.add(domain="ai.onnx.contrib", version=1)
    model.graph.node[4].domain = "ai.onnx.contrib"


def input_of(dtype: int = TensorProto.UINT8, shape: tuple[object, ...] = ("n", "h", "w", 3)) -> bytes:
    def change(model: onnx.ModelProto) -> None:
        model.graph.input[0].CopyFrom(helper.make_tensor_value_info("pixels", dtype, shape))

    return changed(change)


def two_inputs(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))


def constant(name: str, value: float) -> bytes:
    def change(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            if tensor.name == name:
                array = numpy_helper.to_array(tensor)
                tensor.CopyFrom(numpy_helper.from_array(np.full_like(array, value), name))

    return changed(change)


def fewer_landmarks(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.name == "twelve":
            tensor.CopyFrom(numpy_helper.from_array(np.array([6], np.int64), "twelve"))


def scores_of_double(model: onnx.ModelProto) -> None:
    model.graph.node[4].CopyFrom(helper.make_node("Cast", ["cells"], ["heatmap"], to=TensorProto.DOUBLE))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def rename(model: onnx.ModelProto) -> None:
    model.graph.node[5].output[0] = model.graph.output[1].name = "sizes"


class Trap:
    """Unpickled, it would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self._path,))


BAD = {
    "empty": (b"", "ONNX"),
    "random": (np.random.default_rng(0).bytes(5000), "ONNX"),
    "text": (b"hello", "ONNX"),
    "truncated": (MODEL[: len(MODEL) // 2], "ONNX"),
    "one byte short": (MODEL[:-1], "ONNX"),
    "zeros": (bytes(1000), "ONNX"),
    "external data above": (changed(external("../secret")), "other files"),
    "external data, absolute": (changed(external("/etc/passwd")), "other files"),
    "external data, endless": (changed(external("/dev/zero", length="12")), "other files"),
    "external data, negative offset": (changed(external("x", offset="-8")), "other files"),
    "unknown operator": (changed(lambda m: setattr(m.graph.node[4], "op_type", "Divine")), "cannot load"),
    "custom domain": (changed(foreign_operator), "operators outside"),
    "newer IR": (bright_spots(ir_version=99), "IR version 99; the runtime reads up to "),
    "newer opset": (bright_spots(opset=99), "opset 99; the runtime supports up to "),
    "float input": (input_of(TensorProto.FLOAT), "input must be uint8"),
    "input of rank 3": (input_of(shape=("h", "w", 3)), "cannot load"),
    "planar input": (input_of(shape=("n", 3, "h", "w")), "input must be uint8"),
    "fixed input": (input_of(shape=("n", 128, 160, 3)), "must be free"),
    "two inputs": (changed(two_inputs), "2 inputs"),
    "output missing": (changed(rename), "lacks the output scale"),
    "fewer landmarks": (changed(fewer_landmarks), "output landmarks has the shape"),
    "double output": (changed(scores_of_double), "float32"),
    "NaN": (constant("size_bias", math.nan), "NaN or infinity"),
    "infinity": (constant("mean", math.inf), "NaN or infinity"),
}


@pytest.mark.fault(31, 32, 33, 34, 35, 39)
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_model_is_refused_by_the_check_that_it_failed(repository: Repository, kind: str) -> None:
    content, check = BAD[kind]
    ref = repository.publish(card_for("spots", "bad"), content)
    with pytest.raises(BadVariant, match=check) as caught:
        load_servable(repository, ref, max_pixels=10**7, max_model_bytes=10**8)
    assert "/" not in caught.value.message.replace("1/1", "")


@pytest.mark.fault(31, 39, 40, 41, 42)
def test_a_swap_to_a_bad_variant_is_refused_and_the_old_one_goes_on_serving(
    server: RunningServer, repository: Repository, spot_jpeg: bytes
) -> None:
    ref = repository.publish(card_for("spots", "tampered"), MODEL)
    tampered = repository.folder(ref) / "model.onnx"
    tampered.write_bytes(MODEL[:-1] + b"\0")
    marker = repository.root / "unpickled"
    with server.client() as client, channel(server.control) as opened:
        for kind in ("empty", "truncated", "external data, absolute", "unknown operator", "newer opset", "NaN"):
            repository.publish(card_for("spots", "bad"), BAD[kind][0])
            error = refusal(lambda: control(opened).SetRoute(_to("bad")))
            assert error.code().name == "FAILED_PRECONDITION"
            assert BAD[kind][1] in error.details()
            assert str(repository.root) not in error.details()
            assert client.detect("spots", spot_jpeg).variant == "a"
        assert "sha256" in refusal(lambda: control(opened).SetRoute(_to("tampered"))).details()
        repository.publish(card_for("spots", "pickled"), pickle.dumps(Trap(marker)))
        assert "ONNX" in refusal(lambda: control(opened).SetRoute(_to("pickled"))).details()
        assert refusal(lambda: control(opened).SetRoute(_to("b", "bad"))).code().name == "FAILED_PRECONDITION"
        states = {status.card.variant: status.state for status in client.variants("spots")}
    assert not marker.exists()
    assert states["a"] == control_pb2.SERVABLE_STATE_READY
    assert states["b"] == control_pb2.SERVABLE_STATE_FOUND
    assert {states[name] for name in ("bad", "tampered")} == {control_pb2.SERVABLE_STATE_FAILED}
    assert repository.route("spots") is None
    assert metric(server, "lathe_swaps_total", model="spots", result="refused") == 9


@pytest.mark.fault(35, 41)
@pytest.mark.parametrize(
    ("field", "value", "check"),
    [
        ("serving_size", card_pb2.PictureSize(width=2**32 - 32, height=2**32 - 32), "serving size"),
        ("serving_size", card_pb2.PictureSize(width=100, height=128), "serving size"),
        ("serving_size", card_pb2.PictureSize(), "serving size"),
        ("thresholds", card_pb2.Thresholds(min_score=math.nan, nms=0.3, max_detections=10), "thresholds"),
        ("thresholds", card_pb2.Thresholds(min_score=0.5, nms=0.3), "thresholds"),
        ("classes", [], "0 classes"),
        ("classes", ["spot", "stripe"], "2 classes"),
        ("decoder", card_pb2.DECODER_UNSPECIFIED, "decoder"),
        ("decoder", card_pb2.DECODER_BOXES, "lacks the output boxes"),
        ("variant", "other", "another variant"),
    ],
)
def test_a_card_that_makes_no_sense_is_refused(repository: Repository, field: str, value: object, check: str) -> None:
    card = card_for("spots", "bad")
    card.ClearField(field)  # type: ignore[arg-type]
    if isinstance(value, list):
        card.classes.extend(value)
    elif isinstance(value, (int, str)):
        setattr(card, field, value)
    else:
        getattr(card, field).CopyFrom(value)
    ref = repository.publish(card, MODEL)
    if field == "variant":
        repository.folder(ref).rename(repository.root / "spots/b/7")
        ref = type(ref)("spots", "b", 7)
    with pytest.raises(BadVariant, match=check):
        load_servable(repository, ref, max_pixels=10**7, max_model_bytes=10**8)


def remembered(model: bytes) -> card_pb2.Card:
    """A card that holds what a network answers to the golden picture."""
    card = card_for("spots", "golden")
    card.golden.extend(golden_answers(default_engine(model, (160, 128)).run(golden_picture((160, 128)))))
    return card


@pytest.mark.fault(39)
def test_a_variant_that_answers_the_golden_picture_as_its_card_says_is_loaded(repository: Repository) -> None:
    ref = repository.publish(remembered(MODEL), MODEL)
    assert load_servable(repository, ref, max_pixels=10**7, max_model_bytes=10**8).ref == ref


@pytest.mark.fault(39)
@pytest.mark.parametrize(
    ("change", "check"),
    [
        (lambda card: None, "the output scale is off by"),
        (lambda card: setattr(card.golden[0], "output", "else"), "another output else"),
        (lambda card: card.golden[0].values.pop(), "another output heatmap"),
        (lambda card: card.golden[0].values.__setitem__(0, math.nan), "the output heatmap is off by nan"),
    ],
    ids=["another network's", "an output that is not there", "of another size", "NaN"],
)
def test_one_that_answers_something_else_is_refused(
    repository: Repository, change: Callable[[card_pb2.Card], object], check: str
) -> None:
    card = remembered(bright_spots(box_pixels=30.0))
    change(card)
    ref = repository.publish(card, MODEL)
    with pytest.raises(BadVariant, match=check):
        load_servable(repository, ref, max_pixels=10**7, max_model_bytes=10**8)


def test_one_that_takes_much_longer_than_its_card_says_of_this_processor_is_refused(repository: Repository) -> None:
    card = card_for("spots", "slow")
    stages = card_pb2.StageSeconds(infer=1e-6)
    card.latency.add(size=card.serving_size, cpu=cpu_name(), stages=stages)
    ref = repository.publish(card, MODEL)
    with pytest.raises(BadVariant, match=r"ms of CPU time; its card says 0\.0 ms on this processor"):
        load_servable(repository, ref, max_pixels=10**7, max_model_bytes=10**8, max_slowdown=4.0)
    assert load_servable(repository, ref, max_pixels=10**7, max_model_bytes=10**8).ref == ref
    card.latency[0].cpu = "another"
    ref = repository.publish(card, MODEL)
    assert load_servable(repository, ref, max_pixels=10**7, max_model_bytes=10**8, max_slowdown=4.0).ref == ref


@pytest.mark.fault(41)
@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b'{"modle": "x"}', b"\xff\xfe", b'{"notices": ["' + b"x" * 2**20 + b'"]}', b"null"],
    ids=["empty", "list", "cut", "unknown field", "not UTF-8", "over 1 MiB", "null"],
)
def test_a_card_that_is_none_is_refused(repository: Repository, content: bytes) -> None:
    ref = repository.newest("spots", "a")
    (repository.folder(ref) / "card.json").write_bytes(content)
    with pytest.raises(BadVariant):
        repository.card(ref)


@pytest.mark.fault(38)
def test_a_model_over_the_limit_is_refused_unread(repository: Repository) -> None:
    ref = repository.newest("spots", "a")
    with pytest.raises(BadVariant, match="at most 100"):
        load_servable(repository, ref, max_pixels=10**7, max_model_bytes=100)
    with (repository.folder(ref) / "model.onnx").open("r+b") as file:
        file.truncate(2**40)  # a terabyte of holes, where the card says a few kilobytes
    with pytest.raises(BadVariant, match="size"):
        load_servable(repository, ref, max_pixels=10**7, max_model_bytes=10**8)


def _to(*variants: str) -> control_pb2.SetRouteRequest:
    return control_pb2.SetRouteRequest(
        model="spots", weights=[control_pb2.RouteWeight(variant=variant, weight=1) for variant in variants]
    )


@pytest.mark.fault(43)
def test_an_embedding_model_that_names_no_space_is_refused_and_the_old_one_goes_on_serving(
    server: RunningServer, repository: Repository, spot_jpeg: bytes
) -> None:
    ref = repository.publish(card_for("spots", "embedder"), MODEL)
    card = repository.folder(ref) / "card.json"
    card.write_text(card.read_text().replace("TASK_DETECTION", "TASK_EMBEDDING"))
    with server.client() as client, channel(server.control) as opened:
        error = refusal(lambda: control(opened).SetRoute(_to("embedder")))
        assert error.code().name == "FAILED_PRECONDITION"
        assert error.details() == "the card of an embedding network names no embedding space"
        assert client.detect("spots", spot_jpeg).variant == "a"
