"""Losses of embeddings: nothing where they agree, and no more than the relations where the space is only turned."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lathe_compression.embedding_losses import (
    angle_loss,
    cosine_loss,
    distance_loss,
    mean_direction,
    relation_loss,
    vector_loss,
)


def vectors(count: int = 6, dimensions: int = 8, seed: int = 0) -> Tensor:
    drawn = torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed))
    return functional.normalize(drawn, dim=1)


def turn(dimensions: int = 8) -> Tensor:
    return torch.linalg.qr(torch.randn(dimensions, dimensions, generator=torch.Generator().manual_seed(9)))[0]


@pytest.mark.parametrize("loss", [cosine_loss, distance_loss, angle_loss])
def test_what_agrees_loses_nothing_and_what_does_not_does(loss: type) -> None:
    assert float(loss(vectors(), vectors())) == pytest.approx(0, abs=1e-5)
    assert float(loss(vectors(seed=1), vectors())) > 0.01


def test_cosine_is_that_of_each_vector_to_its_own() -> None:
    own, wanted = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert float(cosine_loss(own, wanted)) == pytest.approx(0.5)


@pytest.mark.parametrize("loss", [distance_loss, angle_loss])
def test_relations_are_the_same_in_a_turned_space(loss: type) -> None:
    assert float(loss(vectors() @ turn(), vectors())) == pytest.approx(0, abs=1e-5)
    assert float(cosine_loss(vectors() @ turn(), vectors())) > 0.5


def test_distances_are_over_their_mean() -> None:
    """Three on a line at 0, 1 and 3 have the distances 1, 3 and 2, half of them at most; others 1, 1 and 1."""
    own = torch.tensor([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0]])
    wanted = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 3**0.5 / 2]])
    expected = (0.5**2 / 2 + 0.5**2 / 2 + 0) / 3
    assert float(distance_loss(own, wanted)) == pytest.approx(expected, abs=1e-5)


def test_angles_are_the_corners_of_every_three() -> None:
    own, wanted = vectors(4, 5), vectors(4, 5, seed=3)

    def corner(of: Tensor, at: int, one: int, other: int) -> Tensor:
        return functional.cosine_similarity(of[one] - of[at], of[other] - of[at], dim=0)

    differences = [
        float(corner(own, at, one, other) - corner(wanted, at, one, other)) if len({at, one, other}) == 3 else 0.0
        for at, one, other in itertools.product(range(4), repeat=3)
    ]
    expected = functional.smooth_l1_loss(torch.tensor(differences), torch.zeros(64))
    assert float(angle_loss(own, wanted)) == pytest.approx(float(expected), abs=1e-4)


def test_relations_are_of_distances_and_of_angles_twice() -> None:
    own, wanted = vectors(seed=1), vectors()
    loss = relation_loss({"embedding": own}, {"embedding": wanted})
    assert float(loss) == pytest.approx(float(distance_loss(own, wanted) + 2 * angle_loss(own, wanted)))
    assert float(vector_loss({"embedding": own}, {"embedding": wanted})) == float(cosine_loss(own, wanted))


def test_few_vectors_have_few_relations() -> None:
    own, wanted = vectors(2, seed=1), vectors(2)
    one = relation_loss({"embedding": own[:1]}, {"embedding": wanted[:1]})
    assert float(one) == 0
    assert float(relation_loss({"embedding": own}, {"embedding": wanted})) == float(distance_loss(own, wanted))


def test_gradients_are_numbers_where_two_vectors_are_the_same() -> None:
    own = vectors()[[0, 0, 1, 2]].clone().requires_grad_()
    relation_loss({"embedding": own}, {"embedding": vectors(4, seed=2)}).backward()
    assert own.grad is not None
    assert torch.isfinite(own.grad).all()
    assert own.grad.abs().sum() > 0


def test_the_mean_direction_lies_between_and_is_of_unit_length() -> None:
    one, other = vectors(), vectors(seed=1)
    mean = mean_direction(one, other)
    assert torch.allclose(mean.norm(dim=1), torch.ones(len(one)))
    assert torch.allclose((mean * one).sum(1), (mean * other).sum(1), atol=1e-6)
