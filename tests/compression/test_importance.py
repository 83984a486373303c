"""What a channel is worth, and making up for those that go."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from lathe.errors import InvalidInput
from lathe_compression.channels import ChannelGroup, find_groups, take_out
from lathe_compression.distill import Lesson, Losses
from lathe_compression.importance import (
    Moments,
    by_score,
    channel_moments,
    is_linear,
    refit,
    static_ranking,
    taylor_scores,
)
from lathe_compression.losses import heatmap_loss
from lathe_compression.taps import traced
from tests.compression.networks import OUTPUTS, block_detector, plain_block_detector, planes, shaken

ONE = planes(1)
GROUP = "blocks.1.expand"
CRITERIA = ["magnitude", "group_norm", "bn_scale"]


def group(network: fx.GraphModule, name: str = GROUP, scope: str = "hidden") -> ChannelGroup:
    return next(one for one in find_groups(network, ONE, scope) if one.name == name)  # type: ignore[arg-type]


def with_dead(channel: int) -> fx.GraphModule:
    """A channel whose weights, norms and readers are nearly nothing."""
    network = traced(block_detector())
    with torch.no_grad():
        network.get_submodule("blocks.1.expand").weight[channel] *= 1e-6
        network.get_submodule("blocks.1.depthwise").weight[channel] *= 1e-6
        network.get_submodule("blocks.1.project").weight[:, channel] *= 1e-6
        for place in (0, 1):
            norm = network.get_submodule(f"blocks.1.norms.{place}")
            norm.weight[channel] *= 1e-6
            norm.bias[channel] *= 1e-6
    return network


def loss_against(
    teacher: nn.Module, student: fx.GraphModule, losses: Losses | None = None
) -> Callable[[Tensor], Tensor]:
    return Lesson(traced(teacher), OUTPUTS, heatmap_loss, losses or Losses(), [planes()]).loss_for(student)[0]


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("dead", [0, 13, 31])
def test_dead_channel_is_the_first_to_go(criterion: str, dead: int) -> None:
    network = with_dead(dead)
    ranking = static_ranking(network, group(network), ONE, criterion)  # type: ignore[arg-type]
    assert ranking.order[0] == dead
    assert sorted(ranking.order) == list(range(32))
    assert list(ranking.losses) == sorted(ranking.losses)


def test_scale_of_norms_needs_norms() -> None:
    network = traced(plain_block_detector())
    with pytest.raises(
        InvalidInput, match=r"blocks.1.expand has no batch norm, .* choose another criterion than bn_scale"
    ):
        static_ranking(network, group(network), ONE, "bn_scale")


def test_scores_give_the_order_and_the_losses() -> None:
    ranking = by_score(np.array([0.5, 0.1, 0.9, 0.1]))
    assert (list(ranking.order), list(ranking.losses)) == ([1, 3, 0, 2], [0.1, 0.1, 0.5, 0.9])


@pytest.mark.parametrize("equal", [True, False])
def test_taylor_ranks_a_dead_channel_last(equal: bool) -> None:
    """Also where the student equals its teacher, so that no gradient leads anywhere."""
    network = with_dead(13)
    loss = loss_against(with_dead(13) if equal else shaken(block_detector()), network)
    scores = taylor_scores(network, [group(network)], loss, [planes(2, seed=n) for n in range(2)])[GROUP]
    assert (len(scores), int(scores.argmin())) == (32, 13)
    assert np.median(scores) > 1e3 * scores[13]


def test_taylor_orders_channels_by_what_their_loss_really_costs() -> None:
    """Against the truth: the loss with each channel in turn set to nothing."""
    network = traced(block_detector())
    loss, batches = loss_against(block_detector(), network, Losses(0, 1)), [planes(2, seed=n) for n in range(8)]
    scores = taylor_scores(network, [group(network)], loss, batches)[GROUP]
    weight = network.get_submodule("blocks.1.project").weight
    truth = []
    with torch.no_grad():
        for channel in range(32):
            kept = weight[:, channel].clone()
            weight[:, channel] = 0
            truth.append(float(loss(batches[0])))
            weight[:, channel] = kept
    ranks = np.argsort(np.argsort(scores)), np.argsort(np.argsort(truth))
    assert np.corrcoef(*ranks)[0, 1] > 0.6


def test_taylor_leaves_the_network_as_it_was() -> None:
    network = traced(block_detector())
    before = network(ONE)
    scores = [
        taylor_scores(network, find_groups(network, ONE, "all"), loss_against(block_detector(), network), [ONE])
    ] * 2
    assert all(torch.equal(one, other) for one, other in zip(network(ONE), before, strict=True))
    assert all(weight.grad is None for weight in network.parameters())
    for name, values in scores[0].items():
        np.testing.assert_array_equal(values, scores[1][name])


def test_taylor_scores_repeat() -> None:
    found = []
    for _ in "twice":
        network = traced(block_detector())
        loss = loss_against(block_detector(), network)
        found.append(taylor_scores(network, [group(network)], loss, [ONE, planes(1, seed=4)], seed=3)[GROUP])
    np.testing.assert_array_equal(found[0], found[1])


def test_group_that_the_loss_does_not_reach_is_worth_nothing() -> None:
    """Features alone are compared, and the middles of the heads come after the last of them."""
    network = traced(block_detector())
    loss = loss_against(shaken(block_detector()), network, Losses(0, 1, at=("add",)))
    scores = taylor_scores(network, find_groups(network, ONE, "hidden"), loss, [ONE])
    assert not scores["heads.1.0"].any()


def test_taylor_scores_channels_that_a_matrix_takes_in_flattened() -> None:
    torch.manual_seed(0)
    network = traced(nn.Sequential(nn.Conv2d(3, 16, 3, 4), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 16 * 24, 4)).eval())
    scores = taylor_scores(network, [group(network, "0")], lambda value: network(value).square().mean(), [ONE])
    assert scores["0"].shape == (16,)


@pytest.mark.parametrize("name", [GROUP, "blocks.1.project", "heads.0.0"])
def test_groups_before_pointwise_layers_are_linear(name: str) -> None:
    network = traced(block_detector())
    assert is_linear(network, group(network, name, "all"))


def test_consumer_of_a_three_by_three_kernel_is_not_linear() -> None:
    network = traced(nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, 4, 3)).eval())
    found = find_groups(network, ONE, "all")
    assert [is_linear(network, one) for one in found] == [False]
    assert channel_moments(network, found, [ONE]) == {}


def test_moments_are_those_of_all_cells() -> None:
    network = traced(plain_block_detector())
    batches = [planes(1, seed=n) for n in range(2)]
    moments = channel_moments(network, [group(network)], batches)[GROUP]
    seen: list[np.ndarray] = []
    layer = network.get_submodule("blocks.1.project")
    hook = layer.register_forward_pre_hook(lambda _, values: seen.append(values[0].detach().numpy()))
    for batch in batches:
        network(batch)
    hook.remove()
    cells = np.concatenate([one.transpose(0, 2, 3, 1).reshape(-1, 32) for one in seen])
    np.testing.assert_allclose(moments.mean, cells.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(moments.covariance, np.cov(cells.T, bias=True), rtol=1e-3, atol=1e-4 * cells.var())


def combined(*, bias: bool = True, constant: float = 0.0) -> fx.GraphModule:
    """Ten channels, the last three of them combinations of the others (and a constant), then a projection."""
    torch.manual_seed(0)
    first, relu, last = nn.Conv2d(3, 7, 3, 1, 1), nn.ReLU(), nn.Conv2d(10, 4, 1, bias=bias)
    mix = nn.Conv2d(7, 10, 1)
    with torch.no_grad():
        first.weight /= 64
        mix.weight.copy_(torch.cat([torch.eye(7), torch.rand(3, 7)])[:, :, None, None])
        mix.bias.zero_()  # type: ignore[union-attr]
        mix.bias[7:] = constant  # type: ignore[index]
    return traced(nn.Sequential(first, relu, mix, nn.ReLU(), last).eval())


@pytest.mark.parametrize(
    ("bias", "constant"),
    [
        (True, 0.0),
        (True, 5.0),
        (False, 0.0),
        pytest.param(
            False,
            5.0,
        ),
    ],
)
def test_refit_makes_up_for_channels_that_are_combinations_of_others(bias: bool, constant: float) -> None:
    """Where there is no bias, but a constant part, the others' means still make up for most of it."""
    network = combined(bias=bias, constant=constant)
    found = group(network, "2", "all")
    before = network(planes())
    moments = channel_moments(network, [found], [planes(2, seed=n) for n in range(3)])["2"]
    refit(network, found, moments, [7, 8, 9])
    take_out(network, ONE, {"2": [7, 8, 9]})
    error = (network(planes()) - before).square().mean().sqrt() / before.std()
    assert float(error) < (1e-3 if bias or not constant else best_without_bias(before))


def best_without_bias(wanted: Tensor) -> float:
    """Of what least squares without a constant reach; the channels that stay are the first seven."""
    network = combined(bias=False, constant=5.0)
    cells = network.get_submodule("1")(network.get_submodule("0")(planes())).permute(0, 2, 3, 1).reshape(-1, 7)
    targets = wanted.permute(0, 2, 3, 1).reshape(-1, 4)
    with torch.no_grad():
        left = targets - cells @ torch.linalg.lstsq(cells, targets).solution
        return 1.05 * float(left.square().mean().sqrt() / wanted.std())


@pytest.mark.parametrize(("factory", "share"), [(plain_block_detector, 0.7), (block_detector, 0.95)])
def test_refit_is_better_than_leaving_the_others_as_they_are(factory: Callable[[], nn.Module], share: float) -> None:
    """Half of the channels of a network without such combinations."""
    errors = []
    for refits in (False, True):
        network = traced(factory())
        found, wanted = group(network), network(planes())[1]
        gone = list(range(0, 32, 2))
        if refits:
            refit(network, found, channel_moments(network, [found], [planes(2, seed=8)])[GROUP], gone)
        take_out(network, ONE, {GROUP: gone})
        errors.append(float((network(planes())[1] - wanted).detach().square().mean()))
    assert errors[1] < share * errors[0]


def test_refit_makes_no_huge_weights_that_cancel_out() -> None:
    """Channels that hardly vary, and nearly in step, could make up for one that does with huge weights."""
    generator = np.random.default_rng(0)
    signal = generator.normal(size=(4000, 1))
    weak = 1 + 0.001 * signal + 1e-5 * generator.normal(size=(4000, 15))
    cells = np.concatenate([weak, 5 * signal], 1)
    network = traced(nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, 4, 1)).eval())
    found = group(network, "0")
    before = network.get_submodule("2").get_parameter("weight").detach().abs().max()
    refit(network, found, Moments(cells.mean(0), np.cov(cells.T, bias=True)), [15])
    assert network.get_submodule("2").get_parameter("weight").detach().abs().max() < 8 * before


def test_refit_of_no_channels_changes_nothing() -> None:
    network = traced(plain_block_detector())
    found, before = group(network), network(ONE)
    refit(network, found, channel_moments(network, [found], [ONE])[GROUP], [])
    for one, other in zip(network(ONE), before, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
