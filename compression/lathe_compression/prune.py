"""Structured, iterative pruning: a few channels go, the rest learns to do without, and again."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, fx

from lathe.errors import BadVariant
from lathe_compression.allocate import Ranking, allocate
from lathe_compression.channels import (
    ChannelGroup,
    Scope,
    layer_costs,
    macs_by_layer,
    parameters_by_layer,
    take_out,
)
from lathe_compression.distill import Losses
from lathe_compression.importance import (
    Criterion,
    by_score,
    channel_moments,
    refit,
    static_ranking,
    taylor_scores,
)
from lathe_compression.student import drop_blocks, residual_sums


@dataclass(frozen=True)
class Prune:
    """The step's settings.

    Attributes:
        keep: share of the target's quantity that is left in the end.
        target: the quantity: multiply-accumulates, parameters, or the time this machine takes.
        measured_in: the precision in which the time is taken, where the target is time.
        scope: `hidden`, channels inside blocks alone; `all`, what blocks hand to each other too; `weights`, single
            ones, which makes nothing faster.
        blocks: residual blocks that go before any channel does, each time the one without which the loss is least.
        criterion: how channels are chosen.
        rounds: in how many parts; 1 is one-shot.
        round_to: layers keep a multiple of so many channels.
        least: channels that every layer keeps.
        refit: the weights that are left make up for those that went, by least squares, before they learn.
        pictures: seen after each round but the last, by which the next step's training goes on.
        rate: of that training.
        probe: pictures that show what a channel is worth.
        losses: how the loss's parts weigh in this step, where that is not as in the others.
    """

    keep: float
    target: Literal["macs", "parameters", "latency"] = "macs"
    measured_in: Literal["fp32", "int8"] = "fp32"
    scope: Literal["hidden", "all", "weights"] = "hidden"
    blocks: int = 0
    criterion: Criterion = "taylor"
    rounds: int = 5
    round_to: int = 8
    least: int = 8
    refit: bool = True
    pictures: int = 2000
    rate: float = 0.001
    probe: int = 128
    losses: Losses | None = None

    def __post_init__(self) -> None:
        if not 0 < self.keep < 1:
            raise ValueError("keep must be between 0 and 1")
        if min(self.rounds, self.round_to, self.least, self.probe) < 1 or min(self.pictures, self.blocks) < 0:
            raise ValueError("rounds, round_to, least and probe must be at least 1, pictures and blocks not negative")
        if self.scope == "weights" and self.blocks:
            raise ValueError('scope = "weights" takes single weights; blocks go with channels')
        if self.scope == "weights" and (self.target != "parameters" or self.criterion != "magnitude"):
            raise ValueError('scope = "weights" takes target = "parameters" and criterion = "magnitude"')

    def describe(self) -> str:
        times = f"in {self.rounds} rounds" if self.rounds > 1 else "in one shot"
        if self.scope == "weights":
            return f"prune: all but {self.keep:.0%} of the weights become zero, {times}; no faster"
        quantity = f"{self.measured_in} latency" if self.target == "latency" else self.target
        first = f"{self.blocks} residual blocks, then " if self.blocks else ""
        return f"prune: {first}{self.scope} channels by {self.criterion} to {self.keep:.0%} of {quantity}, {times}"

    @property
    def channels(self) -> Scope:
        """Which channels may go."""
        assert self.scope != "weights"
        return self.scope

    def share_after(self, number: int, start: float) -> float:
        """Of the quantity, after round `number`, counted from 0: every round takes the same share of what is left.

        Args:
            start: the share that was left before the first round.
        """
        return float(start * (self.keep / start) ** ((number + 1) / self.rounds))


def prune_once(
    network: fx.GraphModule,
    step: Prune,
    loss: Callable[[Tensor], Tensor],
    probe: Sequence[Tensor],
    groups: Sequence[ChannelGroup],
    target: float,
) -> dict[str, Ranking]:
    """One round, in place.

    Args:
        loss: of a batch; it runs the network.
        probe: batches, N×3×H×W.
        target: cost to come down to, as of `cost_of`.

    Returns:
        What each group's channels were found to be worth. The target is not met where every layer is at its
        least; `cost_of` says how far it came.
    """
    planes = probe[0][:1]
    rankings = rank(network, step, groups, loss, probe)
    costs = layer_costs(_costs(network, step, planes), groups)
    gone = allocate(rankings, costs, target, step.round_to, step.least)
    chosen = {name: list(rankings[name].order[:count]) for name, count in gone.items() if count}
    if step.refit:
        moments = channel_moments(network, groups, probe)
        for group in groups:
            if group.name in moments and group.name in chosen:
                refit(network, group, moments[group.name], chosen[group.name])
    take_out(network, planes, chosen)
    return rankings


def blocks_to_spare(
    network: fx.GraphModule,
    count: int,
    loss_for: Callable[[fx.GraphModule], Callable[[Tensor], Tensor]],
    probe: Sequence[Tensor],
) -> list[tuple[str, float]]:
    """Residual blocks in the order in which they can go, each with the loss without it and those before it.

    Raises:
        BadVariant: the network has not so many.
    """
    if len(residual_sums(network)) < count:
        raise BadVariant(
            f"blocks = {count}: the network has {len(residual_sums(network))} residual blocks that could go"
        )
    gone: list[tuple[str, float]] = []
    left = network
    for _ in range(count):
        losses: dict[str, float] = {}
        for name in residual_sums(left):
            shallow = copy.deepcopy(left)
            drop_blocks(shallow, [name])
            loss = loss_for(shallow)
            with torch.no_grad():
                losses[name] = sum(float(loss(planes)) for planes in probe) / len(probe)
        best = min(losses, key=lambda name: losses[name])
        gone.append((best, losses[best]))
        left = copy.deepcopy(left)
        drop_blocks(left, [best])
    return gone


def rank(
    network: fx.GraphModule,
    step: Prune,
    groups: Sequence[ChannelGroup],
    loss: Callable[[Tensor], Tensor],
    probe: Sequence[Tensor],
) -> dict[str, Ranking]:
    """The order in which each group's channels can go."""
    if step.criterion == "taylor":
        scores = taylor_scores(network, groups, loss, probe)
        return {name: by_score(score) for name, score in scores.items()}
    planes = probe[0][:1]
    return {group.name: static_ranking(network, group, planes, step.criterion) for group in groups}


def sensitivity(ranking: Ranking, points: int = 10) -> list[tuple[float, float]]:
    """(share of the group's channels that goes, loss that the criterion foresees), for a plot."""
    width = len(ranking.order)
    counts = [round(width * point / points) for point in range(points + 1)]
    return [(count / width, float(sum(ranking.losses[:count]))) for count in counts]


def cost_of(network: fx.GraphModule, step: Prune, planes: Tensor) -> float:
    """The quantity that channels are chosen by, for one input; of time, multiply-accumulates stand for it."""
    return sum(_costs(network, step, planes).values())


def _costs(network: fx.GraphModule, step: Prune, planes: Tensor) -> dict[str, float]:
    """By layer."""
    return parameters_by_layer(network) if step.target == "parameters" else macs_by_layer(network, planes)
