"""Zeros in the place of single weights: smaller to store and to send once compressed, and no faster.

The runtime's kernels multiply by a zero as by any other number. What makes a network faster is fewer channels.
"""

from __future__ import annotations

import zlib
from functools import partial

import torch
from torch import Tensor, nn

LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def mask(network: nn.Module, keep: float) -> None:
    """Zeroes in place the weights of convolutions and projections that matter least, over all layers together.

    A weight's worth is its square over the sum of its own and all larger squares of its layer (LAMP: Lee et al.,
    arXiv 2010.07611), which no scaling of a layer changes. At least one weight of each layer stays.

    Args:
        keep: share of the weights that are not zero afterwards.
    """
    weights = _weights(network)
    worth = torch.cat([_worth(weight) for weight in weights])
    kept = max(len(weights), round(keep * len(worth)))
    least = worth.topk(kept).values[-1]
    with torch.no_grad():
        for weight, own in zip(weights, torch.split(worth, [weight.numel() for weight in weights]), strict=True):
            weight *= (own >= least).reshape(weight.shape)


def density(network: nn.Module) -> float:
    """Share of the weights of convolutions and projections that are not zero."""
    weights = _weights(network)
    return sum(int(weight.count_nonzero()) for weight in weights) / sum(weight.numel() for weight in weights)


def hold_zeros(network: nn.Module) -> None:
    """Weights that are zero stay so through training: their gradients are zero too."""
    for weight in _weights(network):
        if weight.requires_grad:
            weight.register_hook(partial(torch.mul, weight.detach() != 0))  # type: ignore[no-untyped-call]


def compressed_bytes(network: nn.Module) -> int:
    """What all its tensors take after DEFLATE."""
    return sum(
        len(zlib.compress(tensor.detach().contiguous().numpy().tobytes())) for tensor in network.state_dict().values()
    )


def _weights(network: nn.Module) -> list[Tensor]:
    return [layer.weight for layer in network.modules() if isinstance(layer, LAYERS)]


def _worth(weight: Tensor) -> Tensor:
    """Flat, in the weight's order; the largest has 1."""
    squares = weight.detach().flatten().double().square()
    order = squares.argsort()
    ascending = squares[order]
    not_smaller = ascending.flip(0).cumsum(0).flip(0)
    worth = torch.empty_like(squares)
    worth[order] = torch.where(not_smaller > 0, ascending / not_smaller.clamp(min=1e-300), 0.0)
    return worth
