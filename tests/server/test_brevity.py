"""Networks that are next to nothing: run where the call is, as long as they are so quick."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lathe.cli import main
from lathe.repository import Repository, VariantRef
from lathe_server.brevity import BRIEF_SECONDS, MIN_RUNS, Brevity
from lathe_server.servable import BRIEF_BYTES, Servable, load_servable
from lathe_server.tensors import Tensors
from lathe_server.vision import EncodedPicture
from tests.models import bright_spots, card_for, doubler

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


def practised(servable: Servable) -> Servable:
    assert servable.brevity
    for _ in range(MIN_RUNS):
        servable.brevity.ran(BRIEF_SECONDS / 2)
    return servable


def test_a_network_is_brief_once_it_has_shown_it_and_until_it_takes_longer() -> None:
    brevity = Brevity()
    for _ in range(MIN_RUNS - 1):
        brevity.ran(BRIEF_SECONDS / 2)
    assert not brevity.is_brief
    brevity.ran(BRIEF_SECONDS / 2)
    assert brevity.is_brief
    brevity.ran(BRIEF_SECONDS * 100)
    runs = 0
    while not brevity.is_brief:
        brevity.ran(BRIEF_SECONDS / 2)
        runs += 1
    assert 100 < runs < 1000


def test_little_is_asked_of_it_at_once(tmp_path: Path) -> None:
    servable = practised(loaded(tmp_path, doubler(WIDTH)))
    assert servable.is_brief(asked())
    assert not servable.is_brief(asked(BRIEF_BYTES))


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


@pytest.mark.parametrize("rows", [1, 3])
def test_answers_are_the_same_before_and_after(tmp_path: Path, rows: int) -> None:
    servable = practised(loaded(tmp_path, doubler(WIDTH)))
    answer = servable.judge(asked(rows))
    assert np.array_equal(answer.outputs["y"], asked(rows).inputs["x"] * 2)  # type: ignore[union-attr]
