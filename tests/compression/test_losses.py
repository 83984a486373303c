"""Losses: nothing where networks agree, more where they do not, and what the figures are in small cases."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lathe_compression.losses import FEATURE_LOSSES, OUTPUT_LOSSES, FeatureLoss, boxes_loss, heatmap_loss

KINDS = list(FEATURE_LOSSES)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def maps(seed: int = 0) -> dict[str, Tensor]:
    heat = torch.sigmoid(random(2, 1, 6, 8, seed=seed))
    return {"heatmap": heat, "scale": random(2, 2, 6, 8, seed=seed + 1), "offset": random(2, 2, 6, 8, seed=seed + 2)}


def boxes(seed: int = 0) -> dict[str, Tensor]:
    corners = random(2, 12, 2, seed=seed) * 40
    sides = random(2, 12, 2, seed=seed + 1).abs() * 20 + 4
    return {
        "boxes": torch.cat([corners, corners + sides], dim=2),
        "scores": torch.sigmoid(random(2, 12, 3, seed=seed + 2)),
    }


ANSWERS = {"heatmap": maps, "boxes": boxes}


@pytest.mark.parametrize("decoder", OUTPUT_LOSSES)
def test_answers_that_agree_lose_nothing_and_others_do(decoder: str) -> None:
    loss, answers = OUTPUT_LOSSES[decoder], ANSWERS[decoder]
    assert float(loss(answers(), answers())) == pytest.approx(0, abs=1e-5)
    assert float(loss(answers(7), answers())) > 0.1


@pytest.mark.parametrize("decoder", OUTPUT_LOSSES)
def test_every_output_counts(decoder: str) -> None:
    loss, answers = OUTPUT_LOSSES[decoder], ANSWERS[decoder]
    for name in answers():
        changed = answers() | {name: answers(7)[name]}
        assert float(loss(changed, answers())) > 0.01, name


@pytest.mark.parametrize("decoder", OUTPUT_LOSSES)
def test_gradients_reach_the_students_answers_alone(decoder: str) -> None:
    student = {name: value.requires_grad_() for name, value in ANSWERS[decoder](7).items()}
    teacher = ANSWERS[decoder]()
    OUTPUT_LOSSES[decoder](student, teacher).backward()
    assert all(float(value.grad.abs().sum()) > 0 for value in student.values() if value.grad is not None)
    assert all(value.grad is not None for value in student.values())
    assert not any(value.requires_grad for value in teacher.values())


@pytest.mark.parametrize("decoder", OUTPUT_LOSSES)
def test_teacher_that_sees_nothing_leaves_a_number(decoder: str) -> None:
    name = {"heatmap": "heatmap", "boxes": "scores"}[decoder]
    blind = ANSWERS[decoder]() | {name: torch.zeros_like(ANSWERS[decoder]()[name])}
    assert math.isfinite(float(OUTPUT_LOSSES[decoder](ANSWERS[decoder](7), blind)))


def test_geometry_counts_only_where_the_teacher_sees_something() -> None:
    teacher = maps()
    teacher["heatmap"] = torch.zeros(2, 1, 6, 8)
    teacher["heatmap"][0, 0, 2, 3] = 1.0
    for cell, loses in {(2, 3): True, (4, 5): False}.items():
        scale = teacher["scale"].clone()
        scale[0, :, cell[0], cell[1]] += 1
        assert (float(heatmap_loss(teacher | {"scale": scale}, teacher)) > 0.5) is loses


def test_divergence_of_one_cell_is_that_of_two_coins() -> None:
    """A half against a quarter: ½ ln 2 + ½ ln ⅔, over the heat and 1."""
    one = {"heatmap": torch.full((1, 1, 1, 1), 0.25)}
    wanted = {"heatmap": torch.full((1, 1, 1, 1), 0.5)}
    assert float(heatmap_loss(one, wanted)) == pytest.approx(
        (0.5 * math.log(2) + 0.5 * math.log(2 / 3)) / 1.5, rel=1e-4
    )


@pytest.mark.parametrize(
    ("box", "lost"),
    [
        ((0, 0, 10, 10), 0.0),  # the same
        ((0, 0, 10, 5), 0.5),  # half of it
        ((10, 0, 20, 10), 1.0),  # beside it: nothing shared, nothing between
        ((20, 0, 30, 10), 1 + 1 / 3),  # a third of the hull is in neither
        ((5, 0, 15, 10), 2 / 3),
    ],
)
def test_generalized_overlap_of_small_cases(box: tuple[int, ...], lost: float) -> None:
    teacher = {"boxes": torch.tensor([[[0.0, 0, 10, 10]]]), "scores": torch.ones(1, 1, 1)}
    student = teacher | {"boxes": torch.tensor([[[float(side) for side in box]]])}
    assert float(boxes_loss(student, teacher)) == pytest.approx(lost, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_features_that_agree_lose_nothing_and_others_do(kind: str) -> None:
    feature, other = random(2, 4, 6, 8), random(2, 4, 6, 8, seed=1)
    loss = FeatureLoss(kind, [4], [torch.ones(4)])  # type: ignore[arg-type]
    assert float(loss([feature], [feature])) == pytest.approx(0, abs=1e-6)
    assert float(loss([other], [feature])) > 1e-3
    assert float(loss([feature + 0.1 * other], [feature])) < float(loss([feature + other], [feature]))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_the_students_features_and_the_adapter(kind: str) -> None:
    student, teacher = random(2, 3, 6, 8).requires_grad_(), random(2, 4, 6, 8, seed=1)
    loss = FeatureLoss(kind, [3], [torch.ones(4)])  # type: ignore[arg-type]
    loss([student], [teacher]).backward()
    assert float(student.grad.abs().sum()) > 0  # type: ignore[union-attr]
    assert all(float(weight.grad.abs().sum()) > 0 for name, weight in loss.named_parameters() if "weight" in name)


def test_adapters_stand_where_widths_differ_and_nowhere_else() -> None:
    loss = FeatureLoss("normalised", [4, 3], [torch.ones(4), torch.ones(5)])
    assert [tuple(weight.shape) for weight in loss.parameters()] == [(5, 3, 1, 1), (5,)]


def test_mean_is_over_the_features() -> None:
    feature, other = random(2, 4, 6, 8), random(2, 4, 6, 8, seed=1)
    one = FeatureLoss("normalised", [4], [torch.ones(4)])([other], [feature])
    two = FeatureLoss("normalised", [4, 4], [torch.ones(4)] * 2)([other, feature], [feature, feature])
    assert float(two) == pytest.approx(float(one) / 2)


def test_normalised_error_does_not_depend_on_a_networks_scale() -> None:
    """Features a hundred times as large, with spreads to match, lose the same."""
    feature, other, spread = random(2, 4, 6, 8), random(2, 4, 6, 8, seed=1), torch.tensor([1.0, 2.0, 3.0, 4.0])
    small = FeatureLoss("normalised", [4], [spread])([other], [feature])
    large = FeatureLoss("normalised", [4], [100 * spread])([100 * other], [100 * feature])
    assert float(small) == pytest.approx(float(large), rel=1e-4)


def test_channel_that_hardly_moves_does_not_rule_the_loss() -> None:
    spread = torch.tensor([1.0, 1.0, 1.0, 1e-6])
    feature = random(2, 4, 6, 8) * spread.reshape(1, 4, 1, 1)
    error = torch.zeros_like(feature)
    error[:, 3] = 0.01
    assert float(FeatureLoss("normalised", [4], [spread])([feature + error], [feature])) < 0.01


def test_channelwise_does_not_ask_how_much_but_where() -> None:
    feature = random(2, 4, 6, 8)
    loss = FeatureLoss("channelwise", [4], [torch.ones(4)])
    assert float(loss([feature + 3], [feature])) == pytest.approx(0, abs=1e-5)


def test_relation_asks_neither_for_the_scale_nor_for_the_channels_order() -> None:
    feature = random(2, 4, 6, 8)
    loss = FeatureLoss("relation", [4], [torch.ones(4)])
    assert float(loss([2 * feature[:, [3, 1, 0, 2]]], [feature])) == pytest.approx(0, abs=1e-6)
