"""Networks that are next to nothing: run where the call is, as long as they are so quick."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import onnx
from onnx import TensorProto, helper

from lathe.cli import main
from lathe.repository import Repository, VariantRef
from lathe.v1 import card_pb2
from lathe_server.brevity import BRIEF_SECONDS, MAX_SHAPES, MIN_RUNS, Brevity
from lathe_server.engines import Engine
from lathe_server.frames import Frame
from lathe_server.judgement import Judgement
from lathe_server.loading import load_servable
from lathe_server.servable import Servable
from lathe_server.tensors import Tensors
from lathe_server.vision import EncodedPicture
from tests.calls import channel
from tests.conftest import RunningServer
from tests.models import bright_spots, card_for, doubler, echo_of_every_type
from tests.server.test_open_inference import call, doubled, refusal

WIDTH = 16


def loaded(tmp_path: Path, network: bytes) -> Servable:
    root, file = tmp_path / "models", tmp_path / "network.onnx"
    root.mkdir()
    file.write_bytes(network)
    assert main(["repo", "publish", str(root), str(file), "double/plain"]) == 0
    ref = VariantRef("double", "plain", 1)
    return load_servable(Repository(root), ref, max_pixels=1000, max_model_bytes=1 << 20)


def asked(rows: int = 1) -> Tensors:
    return Tensors({"x": np.ones((rows, WIDTH), np.float32)})


def practised(servable: Servable, rows: int = 1) -> Servable:
    for _ in range(MIN_RUNS):
        servable.ran(asked(rows), BRIEF_SECONDS / 2)
    return servable


def test_a_network_is_brief_once_it_has_shown_it_and_until_it_takes_longer() -> None:
    brevity, shape = Brevity(), [(1, WIDTH)]
    for _ in range(MIN_RUNS - 1):
        brevity.ran(shape, BRIEF_SECONDS / 2)
    assert not brevity.is_brief(shape)
    brevity.ran(shape, BRIEF_SECONDS / 2)
    assert brevity.is_brief(shape)
    brevity.ran(shape, BRIEF_SECONDS * 100)
    runs = 0
    while not brevity.is_brief(shape):
        brevity.ran(shape, BRIEF_SECONDS / 2)
        runs += 1
    assert 100 < runs < 1000


def test_more_than_it_has_been_quick_with_goes_to_a_worker(tmp_path: Path) -> None:
    servable = practised(loaded(tmp_path, doubler(WIDTH)))
    assert servable.is_brief(asked())
    assert not servable.is_brief(asked(2))


def test_no_more_shapes_are_remembered_than_a_few(tmp_path: Path) -> None:
    servable = loaded(tmp_path, doubler(WIDTH))
    for rows in range(1, MAX_SHAPES + 2):
        practised(servable, rows)
    assert servable.is_brief(asked(MAX_SHAPES))
    assert not servable.is_brief(asked(MAX_SHAPES + 1))


def test_a_network_whose_inputs_may_be_sizes_is_never_brief(tmp_path: Path) -> None:
    root, file = tmp_path / "models", tmp_path / "network.onnx"
    root.mkdir()
    file.write_bytes(echo_of_every_type())
    assert main(["repo", "publish", str(root), str(file), "echo/plain"]) == 0
    ref = VariantRef("echo", "plain", 1)
    assert load_servable(Repository(root), ref, max_pixels=1000, max_model_bytes=1 << 20).brevity is None


def test_what_branches_or_loops_is_never_brief(tmp_path: Path) -> None:
    assert loaded(tmp_path, _with_a_branch()).brevity is None


def test_pictures_are_for_workers(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    repository.publish(card_for("spots", "a"), bright_spots())
    ref = VariantRef("spots", "a", 1)
    servable = load_servable(repository, ref, max_pixels=1 << 20, max_model_bytes=1 << 20)
    assert servable.brevity is None
    assert not servable.is_brief(EncodedPicture(b""))


def _with_a_branch() -> bytes:
    """Whichever way it goes, it doubles."""
    model = onnx.load_from_string(doubler(WIDTH))

    def way(name: str) -> onnx.GraphProto:
        given = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node("Add", ["x", "x"], [name])], name, [], [given])

    always = helper.make_node("Constant", [], ["always"], value=helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    branch = helper.make_node("If", ["always"], ["y"], then_branch=way("one"), else_branch=way("other"))
    del model.graph.node[:]
    model.graph.node.extend([always, branch])
    return bytes(model.SerializeToString())


def test_calls_that_are_refused_make_nothing_brief_and_a_brief_network_goes_on_answering(
    open_server: RunningServer,
) -> None:
    wrong, right = doubled(), doubled()
    wrong.inputs[0].name = "no such input"
    with channel(open_server.grpc) as opened:
        for _ in range(MIN_RUNS + 5):
            assert refusal(lambda: call(opened, "ModelInfer", wrong))[0] == "INVALID_ARGUMENT"
        answers = {call(opened, "ModelInfer", right).raw_output_contents[0] for _ in range(MIN_RUNS * 3)}
    assert answers == {(np.frombuffer(right.raw_input_contents[0], np.float32) * 2).tobytes()}


def test_what_is_refused_was_not_quick() -> None:
    servable = Servable(VariantRef("m", "v", 1), card_pb2.Card(), cast(Engine, None), brevity=Brevity())
    frame = Frame("m", "", "", 0, asked(), 0.0, 0.0)
    for _ in range(MIN_RUNS):
        judgement = Judgement(frame, servable, lambda: None, lambda result, seconds: None, degraded=[False])
        judgement.run()  # fails: there is no engine
        judgement.done(0.0, 0.0, 0.0)
    assert not servable.is_brief(asked())
