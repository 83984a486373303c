"""Rounds of pruning: how far each goes, that targets are met, and what is said where they cannot be."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn

from lathe.errors import BadVariant
from lathe_compression.channels import find_groups
from lathe_compression.distill import Lesson, Losses
from lathe_compression.losses import heatmap_loss
from lathe_compression.prune import Prune, blocks_to_spare, cost_of, prune_once
from lathe_compression.taps import traced
from tests.compression.networks import OUTPUTS, block_detector, plain_block_detector, planes, shaken

ONE = planes(1)
PROBE = [planes(2, seed=number) for number in range(2)]


def pruned(step: Prune, share: float) -> tuple[fx.GraphModule, float]:
    """The block detector after one round, with the share of the cost that is left."""
    network = traced(block_detector())
    whole = cost_of(network, step, ONE)
    loss = loss_of(network)
    prune_once(network, step, loss, PROBE, find_groups(network, ONE, step.scope), share * whole)
    return network, cost_of(network, step, ONE) / whole


def loss_of(network: fx.GraphModule) -> Callable[[Tensor], Tensor]:
    return Lesson(traced(shaken(block_detector())), OUTPUTS, heatmap_loss, Losses(), PROBE).loss_for(network)[0]


@pytest.mark.parametrize("criterion", ["taylor", "magnitude", "group_norm"])
@pytest.mark.parametrize("scope", ["hidden", "all"])
def test_target_is_met_by_every_criterion(criterion: str, scope: str) -> None:
    step = Prune(0.75, criterion=criterion, scope=scope)  # type: ignore[arg-type]
    network, left = pruned(step, 0.75)
    assert 0.6 < left <= 0.75
    assert all(torch.isfinite(value).all() for value in network(planes()))


@pytest.mark.parametrize("target", ["macs", "parameters"])
def test_target_is_of_the_asked_quantity(target: str) -> None:
    network, left = pruned(Prune(0.8, target=target), 0.8)  # type: ignore[arg-type]
    weights = [module.weight.numel() for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    full = [module.weight.numel() for module in block_detector().modules() if isinstance(module, torch.nn.Conv2d)]
    assert left <= 0.8
    assert (sum(weights) / sum(full) == pytest.approx(left)) is (target == "parameters")


@pytest.mark.parametrize(("round_to", "least"), [(8, 8), (4, 8), (1, 3), (16, 16)])
def test_widths_are_multiples_and_at_least_the_least(round_to: int, least: int) -> None:
    network, _ = pruned(Prune(0.5, round_to=round_to, least=least), 0.5)
    widths = {group.name: group.width for group in find_groups(network, ONE, "hidden")}
    full = {group.name: group.width for group in find_groups(traced(block_detector()), ONE, "hidden")}
    assert widths != full
    for name, width in widths.items():
        assert width >= least
        assert width % round_to == 0 or width == full[name]


def test_target_that_cannot_be_met_takes_all_that_may_go() -> None:
    network, left = pruned(Prune(0.01), 0.01)
    assert {group.width for group in find_groups(network, ONE, "hidden")} == {8}
    assert 0.01 < left < 0.6


def test_target_that_is_met_already_takes_nothing() -> None:
    network, left = pruned(Prune(0.9), 1.0)
    assert left == 1.0
    for one, other in zip(network(ONE), traced(block_detector())(ONE), strict=True):
        assert torch.equal(one, other)


def test_refitted_round_loses_less() -> None:
    """On a network whose projections have biases."""
    lost = []
    for refit in (False, True):
        network = traced(plain_block_detector())
        wanted = network(planes(2, seed=5))
        step = Prune(0.7, criterion="magnitude", refit=refit)
        groups = find_groups(network, ONE, "hidden")
        prune_once(network, step, loss_of(network), PROBE, groups, 0.7 * cost_of(network, step, ONE))
        given = network(planes(2, seed=5))
        lost.append(sum(float((a - b).detach().square().mean()) for a, b in zip(given, wanted, strict=True)))
    assert lost[1] < 0.7 * lost[0]


def test_block_that_hardly_does_anything_goes_first() -> None:
    network = traced(block_detector())
    with torch.no_grad():
        for part in network.get_submodule("blocks.3.norms.2").parameters():
            part /= 1000
    loss = Lesson(traced(block_detector()), OUTPUTS, heatmap_loss, Losses(), PROBE).loss_for
    weights = copy.deepcopy(network.state_dict())
    gone = blocks_to_spare(network, 2, lambda one: loss(one)[0], PROBE)
    assert [name for name, _ in gone] == ["add_1", "add"]
    assert gone[0][1] < gone[1][1]
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def test_order_of_blocks_is_found_anew_after_each() -> None:
    """Of two blocks that cancel out, the weaker one is missed more, until the third is gone."""

    class Cancelling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.branches = nn.Conv2d(3, 4, 1), nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(3))

        def forward(self, value: Tensor) -> Tensor:
            value = self.stem(value)
            for branch in self.branches:
                value = value + branch(value)
            return value

    network = Cancelling().eval()
    with torch.no_grad():
        for branch, factor in zip(network.branches, (1.0, -0.5, 0.5), strict=True):
            branch.weight.copy_(factor * torch.eye(4)[:, :, None, None])  # ×2, ×0.5, ×1.5
            branch.bias.zero_()
    wanted = network(ONE)
    gone = blocks_to_spare(traced(network), 3, lambda one: lambda value: (one(value) - wanted).square().mean(), [ONE])
    assert [name for name, _ in gone] == ["add_2", "add_1", "add"]


def test_more_blocks_than_there_are_is_told() -> None:
    with pytest.raises(BadVariant, match="blocks = 3: the network has 2 residual blocks that could go"):
        blocks_to_spare(traced(block_detector()), 3, loss_of, PROBE)


@pytest.mark.parametrize(
    ("keep", "rounds", "start", "shares"),
    [
        (0.25, 1, 1.0, [0.25]),
        (0.25, 2, 1.0, [0.5, 0.25]),
        (0.125, 3, 1.0, [0.5, 0.25, 0.125]),
        (0.2, 2, 0.8, [0.4, 0.2]),  # a student is smaller from the start
        (0.5, 3, 0.5, [0.5, 0.5, 0.5]),
    ],
)
def test_every_round_takes_the_same_share_of_what_is_left(
    keep: float, rounds: int, start: float, shares: list[float]
) -> None:
    step = Prune(keep, rounds=rounds)
    assert [step.share_after(number, start) for number in range(rounds)] == pytest.approx(shares)


@pytest.mark.parametrize(
    "wrong",
    [
        {"keep": 0.0},
        {"keep": 1.0},
        {"rounds": 0},
        {"round_to": 0},
        {"least": 0},
        {"probe": 0},
        {"pictures": -1},
        {"blocks": -1},
    ],
    ids=str,
)
def test_wrong_settings_are_told(wrong: dict[str, float]) -> None:
    with pytest.raises(
        ValueError, match=r"must be between 0 and 1|must be at least 1, pictures and blocks not negative"
    ):
        Prune(**({"keep": 0.5} | wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (Prune(0.5), "prune: hidden channels by taylor to 50% of macs, in 5 rounds"),
        (
            Prune(0.2, target="parameters", scope="all", criterion="magnitude", rounds=1),
            "prune: all channels by magnitude to 20% of parameters, in one shot",
        ),
        (Prune(0.5, blocks=2), "prune: 2 residual blocks, then hidden channels by taylor to 50%"),
        (Prune(0.5, target="latency", measured_in="int8"), "to 50% of int8 latency, in 5 rounds"),
    ],
)
def test_settings_describe_themselves(step: Prune, told: str) -> None:
    assert told in step.describe()
