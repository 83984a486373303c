"""The teacher as training asks it: the same answers as in torch, from any thread, scene by scene."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import onnx
import pytest
import torch
from torch import Tensor, fx

from lathe.errors import BadVariant
from lathe_compression import teacher_answers
from lathe_compression.taps import block_outputs, traced, with_taps
from lathe_compression.teacher_answers import TeacherAnswers
from tests.compression.networks import block_detector, planes


@pytest.fixture(scope="module")
def teacher() -> fx.GraphModule:
    return traced(block_detector()).eval()


def equal(given: list[Tensor], wanted: tuple[Tensor, ...]) -> bool:
    return len(given) == len(wanted) and all(
        torch.allclose(one, other, atol=1e-4) for one, other in zip(given, wanted, strict=True)
    )


def test_answers_and_features_are_those_of_the_network(teacher: fx.GraphModule) -> None:
    taps = block_outputs(teacher)
    ask = TeacherAnswers(teacher, taps, planes(1), outputs=True)
    answers, features = ask(planes(3), taps)
    with torch.no_grad():
        wanted, wanted_features = with_taps(teacher, taps)(planes(3))
    assert equal(answers, wanted)
    assert equal(features, wanted_features)
    _, some = ask(planes(3), taps[2:0:-1])
    assert equal(some, (wanted_features[2], wanted_features[1]))


def test_features_alone(teacher: fx.GraphModule) -> None:
    taps = block_outputs(teacher)[:1]
    answers, features = TeacherAnswers(teacher, taps, planes(1), outputs=False)(planes(2), taps)
    assert answers == []
    assert [len(one) for one in features] == [2]


def test_threads_may_ask_at_the_same_time(teacher: fx.GraphModule) -> None:
    ask = TeacherAnswers(teacher, (), planes(1), outputs=True)
    batches = [planes(2, seed=seed) for seed in range(12)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda one: ask(one, ())[0], batches))
    for batch, given in zip(batches, found, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(given, ask(batch, ())[0], strict=True))


def test_graph_that_answers_otherwise_is_refused(teacher: fx.GraphModule, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoilt(graph: onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
        graph.graph.initializer[0].raw_data = bytes(len(graph.graph.initializer[0].raw_data))
        return graph, ""

    monkeypatch.setattr(teacher_answers, "clean", spoilt)
    with pytest.raises(BadVariant, match="does not answer as the teacher does"):
        TeacherAnswers(teacher, (), planes(1), outputs=True)
