"""A lesson: what a student is compared with, and that only the student learns from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, fx
from torch.nn import functional

from lathe.errors import InvalidInput
from lathe_compression.channels import take_out
from lathe_compression.distill import Distill, Lesson, Losses
from lathe_compression.embedding_losses import cosine_loss, relation_loss, vector_loss
from lathe_compression.losses import heatmap_loss
from lathe_compression.scenes import Scene
from lathe_compression.student import Student
from lathe_compression.taps import traced
from lathe_compression.training import Schedule, train
from lathe_compression.unit_vectors import ending_in_unit_vectors
from tests.compression.networks import OUTPUTS, block_detector, planes, shaken, tiny_detector, tiny_embedder

KINDS = ("normalised", "channelwise", "relation")


def lesson(losses: Losses | None = None) -> Lesson:
    """The block detector's; its features are of the order of 1."""
    return Lesson(traced(block_detector()), OUTPUTS, heatmap_loss, losses or Losses(), [planes(2, seed=9)])


def student(*, narrow: bool = False) -> fx.GraphModule:
    """The teacher's layers with other weights; narrow, half of the channels that the second block gives."""
    network = traced(shaken(block_detector()))
    if narrow:
        take_out(network, planes(1), {"blocks.1.project": range(8)})
    return network.eval()


FACES = planes(4, 32, 32)


def embedder() -> fx.GraphModule:
    return ending_in_unit_vectors(traced(tiny_embedder())).eval()


def other_embedder() -> fx.GraphModule:
    return ending_in_unit_vectors(traced(shaken(tiny_embedder()))).eval()


def faces_lesson() -> Lesson:
    return Lesson(embedder(), ("embedding",), vector_loss, Losses(), [FACES], relation_loss=relation_loss)


def lost(losses: Losses, network: fx.GraphModule) -> float:
    return float(lesson(losses).loss_for(network)[0](planes()).detach())


@pytest.mark.parametrize("kind", KINDS)
def test_equal_networks_lose_nothing_and_others_do(kind: str) -> None:
    losses = Losses(kind=kind)  # type: ignore[arg-type]
    assert lost(losses, traced(block_detector())) == pytest.approx(0, abs=1e-5)
    assert lost(losses, student()) > 0.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("narrow", [False, True])
def test_gradients_flow_into_the_student_only(kind: str, narrow: bool) -> None:
    teacher, learner = traced(block_detector()), student(narrow=narrow)
    whole = Lesson(teacher, OUTPUTS, heatmap_loss, Losses(kind=kind), [planes(2, seed=9)])  # type: ignore[arg-type]
    loss, extra = whole.loss_for(learner)
    loss(planes()).backward()  # type: ignore[no-untyped-call]
    assert all(weight.grad is not None for weight in learner.parameters())
    assert sum(float(weight.grad.abs().sum()) > 0 for weight in learner.parameters() if weight.grad is not None) > 20
    assert all(weight.grad is None for weight in teacher.parameters())
    adapters = [weight for module in extra for weight in module.parameters()]
    assert len(adapters) == (2 if narrow else 0)
    assert all(weight.grad is not None for weight in adapters)


def test_adapters_stand_where_widths_differ() -> None:
    _, extra = lesson().loss_for(student(narrow=True))
    assert [tuple(weight.shape) for module in extra for weight in module.parameters()] == [(16, 8, 1, 1), (16,)]


@pytest.mark.parametrize(
    ("losses", "sum_of"),
    [
        (Losses(2, 0), {"outputs": 2.0}),
        (Losses(0, 3), {"features": 3.0}),
        (Losses(0.5, 2), {"outputs": 0.5, "features": 2.0}),
    ],
)
def test_parts_weigh_as_asked(losses: Losses, sum_of: dict[str, float]) -> None:
    parts = {"outputs": lost(Losses(1, 0), student()), "features": lost(Losses(0, 1), student())}
    assert lost(losses, student()) == pytest.approx(sum(parts[name] * weight for name, weight in sum_of.items()))


def test_a_steps_losses_stand_in_for_the_lessons() -> None:
    with_features, _ = lesson(Losses(1, 1)).loss_for(student(), Losses(1, 0))
    assert float(with_features(planes()).detach()) == pytest.approx(lost(Losses(1, 0), student()))


def test_features_are_compared_at_the_named_nodes_alone() -> None:
    """A student that differs in its last block alone."""
    teacher, learner = block_detector(), block_detector()
    with torch.no_grad():
        learner.blocks[3].project.weight *= 2
    for at, loses in {("add",): False, ("add_1",): True, ("add", "add_1"): True}.items():
        value = Lesson(traced(teacher), OUTPUTS, heatmap_loss, Losses(0, 1, at=at), [planes(2)]).loss_for(
            traced(learner)
        )
        assert (float(value[0](planes()).detach()) > 1e-3) is loses, at


@pytest.mark.parametrize("name", ["down_0", "blocks_0_project", "nothing"])
def test_feature_that_only_one_of_them_has_is_told(name: str) -> None:
    with pytest.raises(InvalidInput, match=f"have no feature {name} of the same height and width"):
        lesson(Losses(at=("stem_0", name))).loss_for(traced(tiny_detector()))


def test_feature_of_another_grid_is_told() -> None:
    """The student's stem does not shrink."""
    wide = block_detector()
    wide.stem[0].stride = (1, 1)
    with pytest.raises(InvalidInput, match="have no feature add of the same height and width"):
        lesson(Losses(at=("add",))).loss_for(traced(wide))


def test_nothing_left_to_compare_is_told() -> None:
    with pytest.raises(InvalidInput):
        lesson(Losses(0, 1)).loss_for(traced(tiny_detector()))[0](planes()).backward()  # type: ignore[no-untyped-call]


def test_of_vectors_the_relations_weigh_as_the_step_says() -> None:
    def lost_of(losses: Losses) -> float:
        return float(faces_lesson().loss_for(other_embedder(), losses)[0](FACES).detach())

    alone, once, thrice = (lost_of(Losses(2, 0, relations=weight)) for weight in (0, 1, 3))
    vectors = [{"embedding": network(FACES)} for network in (other_embedder(), embedder())]
    assert alone == pytest.approx(2 * float(vector_loss(*vectors).detach()), rel=1e-4)
    assert once - alone == pytest.approx(2 * float(relation_loss(*vectors).detach()), rel=1e-3)
    assert thrice - alone == pytest.approx(3 * (once - alone), rel=1e-3)


def test_picture_and_mirror_image_are_both_to_give_the_mean_of_the_teachers_vectors() -> None:
    loss, _ = faces_lesson().loss_for(other_embedder(), Losses(1, 0, relations=0, mirrored=True))
    teacher, learner = embedder(), other_embedder()
    with torch.no_grad():
        mean = functional.normalize(teacher(FACES) + teacher(FACES.flip(3)), dim=1)
        both = [float(cosine_loss(learner(planes), mean)) for planes in (FACES, FACES.flip(3))]
        assert abs(both[0] - both[1]) > 1e-4
        assert float(loss(FACES)) == pytest.approx(sum(both) / 2, rel=1e-4)


def test_teachers_weights_and_statistics_stay() -> None:
    teacher = traced(block_detector())
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    loss, _ = Lesson(teacher, OUTPUTS, heatmap_loss, Losses(), [planes(2)]).loss_for(student().train())
    loss(planes()).backward()  # type: ignore[no-untyped-call]
    after: dict[str, Tensor] = teacher.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not teacher.training


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (lambda: Losses(0, 0), "outputs and features must not be negative, nor both 0"),
        (lambda: Losses(-1, 2), "outputs and features must not be negative, nor both 0"),
        (lambda: Distill(0), "pictures must be at least 1, and rate between 0 and 1"),
        (lambda: Distill(8, rate=1.0), "pictures must be at least 1, and rate between 0 and 1"),
        (lambda: Distill(8, rate=0.0), "pictures must be at least 1, and rate between 0 and 1"),
    ],
)
def test_wrong_settings_are_told(settings: type, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        settings()


def test_settings_describe_themselves() -> None:
    assert Distill(400).describe() == "distill: 400 scenes"
    narrow = Distill(400, student=Student(width=0.5, depth=0.75)).describe()
    assert narrow.startswith("distill into a student of 50% of the width and 75% of the residual blocks: 400 scenes")


def test_a_lesson_gives_the_same_weights_whatever_the_number_of_threads(tmp_path: Path) -> None:
    """With the teacher's answers, its features, and adapters that learn too."""
    made = []
    for threads in (1, 2):
        torch.set_num_threads(1)  # the lesson's own measurements
        learner = student(narrow=True)
        loss, extra = lesson().loss_for(learner)
        torch.set_num_threads(threads)
        train(learner, loss, noise, Schedule(24, 8), tmp_path / f"{threads}.pt", lambda moment: None, extra)
        made.append([value.clone() for module in (learner, *extra) for value in module.state_dict().values()])
    assert all(torch.equal(one, other) for one, other in zip(*made, strict=True))


def noise(number: int) -> Scene:
    return Scene(np.random.default_rng(number).integers(0, 256, (64, 96, 3), np.uint8))
