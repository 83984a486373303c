"""How much each group of channels gives up so that the whole meets a target: a pure decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lathe_compression.channels import LayerCost


@dataclass(frozen=True)
class Ranking:
    """In which order a group's channels can go.

    Attributes:
        order: channels, the first to go first.
        losses: what each costs in quality when those before it have gone.
    """

    order: Sequence[int]
    losses: Sequence[float]


def total_cost(layers: Sequence[LayerCost], shares: Mapping[str, float]) -> float:
    """Cost of all layers when of each group this share of its channels is left."""
    total = 0.0
    for layer in layers:
        cost = layer.cost
        for group in layer.groups:
            cost *= shares[group]
        total += cost
    return total


def allocate(
    rankings: Mapping[str, Ranking], layers: Sequence[LayerCost], target: float, round_to: int, least: int
) -> dict[str, int]:
    """How many channels each group loses.

    Greedy: again and again the block of channels goes that loses least for what it saves, a block being
    what brings the group to the next multiple of `round_to`.

    Args:
        target: the cost to come down to.
        least: channels that every group keeps.

    Returns:
        Numbers of channels by group. Where the target cannot be met, all that may go.
    """
    width = {name: len(ranking.order) for name, ranking in rankings.items()}
    left = dict(width)
    shares = dict.fromkeys(width, 1.0)
    of_group: dict[str, list[LayerCost]] = {name: [] for name in width}
    for layer in layers:
        for name in set(layer.groups):
            of_group[name].append(layer)
    cost = total_cost(layers, shares)
    while cost > target:
        best, best_price, best_saving = "", float("inf"), 0.0
        for name, ranking in rankings.items():
            block = left[name] % round_to or round_to
            if left[name] - block < least:
                continue
            gone = width[name] - left[name]
            loss = sum(ranking.losses[gone : gone + block])
            saving = total_cost(of_group[name], shares) - total_cost(
                of_group[name], shares | {name: (left[name] - block) / width[name]}
            )
            price = loss / saving if saving > 0 else float("inf")
            if price < best_price:
                best, best_price, best_saving = name, price, saving
        if not best:
            break
        left[best] -= left[best] % round_to or round_to
        shares[best] = left[best] / width[best]
        cost -= best_saving
    return {name: width[name] - left[name] for name in width}
