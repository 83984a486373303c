"""How much a network would lose with a channel: the criteria by which pruning chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch_pruning as tp
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from lathe.errors import InvalidInput
from lathe_compression.allocate import Ranking
from lathe_compression.channels import ChannelGroup

Criterion = Literal["taylor", "magnitude", "group_norm", "bn_scale"]

SHAKE = 0.1
CELLS_PER_BATCH = 4096
RIDGE = 1e-3
"""Refitted weights must bear that each channel is off by 3% of its root mean square."""


@dataclass
class Moments:
    """Mean and covariance of a group's channels where its consumers take them in.

    Attributes:
        mean: C. covariance: C×C, of deviations from the mean.
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]


def static_ranking(network: fx.GraphModule, group: ChannelGroup, planes: Tensor, criterion: Criterion) -> Ranking:
    """By the weights alone.

    Raises:
        InvalidInput: the scale of batch norms is asked for, and there is none.
    """
    importance: Any = {
        "magnitude": tp.importance.MagnitudeImportance(p=2, group_reduction="first", normalizer=None),
        "group_norm": tp.importance.GroupMagnitudeImportance(p=2, normalizer=None),
        "bn_scale": tp.importance.BNScaleImportance(group_reduction="mean", normalizer=None),
    }[criterion]
    graph = tp.DependencyGraph().build_dependency(network, example_inputs=planes, verbose=False)
    layer = network.get_submodule(group.name)
    members = graph.get_pruning_group(layer, tp.prune_conv_out_channels, idxs=list(range(group.width)))
    scores = importance(members)
    if scores is None:
        raise InvalidInput(
            f"{group.name} has no batch norm, so its channels have no scale; choose another criterion than bn_scale"
        )
    return by_score(np.asarray(scores.detach().double().square()))


def by_score(scores: NDArray[np.float64]) -> Ranking:
    """Channels of independent worth: the least first."""
    order = np.argsort(scores, kind="stable")
    return Ranking(order.tolist(), scores[order].tolist())


def taylor_scores(
    network: fx.GraphModule,
    groups: Sequence[ChannelGroup],
    loss: Callable[[Tensor], Tensor],
    batches: Iterable[Tensor],
    seed: int = 0,
) -> dict[str, NDArray[np.float64]]:
    """Second-order Taylor scores (after Molchanov et al., arXiv 1906.10771): what the loss rises by without
    a channel.

    A student that still equals its teacher is at the loss's minimum, where every gradient is nothing. So each
    channel's gate is shaken around 1: the gradient at the gates, over the size of the shake, is then the
    curvature, whatever the loss.

    Args:
        loss: of a batch; it runs the network.
    """
    generator = torch.Generator().manual_seed(seed)
    sums = {group.name: np.zeros(group.width) for group in groups}
    gates: dict[str, Tensor] = {}
    hooks = []

    def shaken(group: ChannelGroup, indices: Sequence[int]) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            own = torch.ones(inputs[0].shape[1])
            # Where a map was flattened, a channel is as many inputs as it had cells.
            each = gates[group.name].repeat_interleave(len(indices) // group.width)
            gate = own.index_copy(0, torch.tensor(indices), each)
            return (inputs[0] * gate.reshape(1, -1, *[1] * (inputs[0].dim() - 2)), *inputs[1:])

        return hook

    for group in groups:
        for layer, indices in group.consumers:
            hooks.append(network.get_submodule(layer).register_forward_pre_hook(shaken(group, indices)))
    count = 0
    try:
        for planes in batches:
            for group in groups:
                noise = torch.randn(group.width, generator=generator)
                gates[group.name] = (1 + SHAKE * noise).requires_grad_()
            used = list(gates.values())
            gradients = torch.autograd.grad(loss(planes), used, allow_unused=True)
            for group, gradient in zip(groups, gradients, strict=True):
                if gradient is not None:  # the loss does not depend on every group
                    sums[group.name] += gradient.double().square().numpy()
            count += 1
    finally:
        for hook in hooks:
            hook.remove()
    return {name: np.sqrt(total / count) / SHAKE / 2 for name, total in sums.items()}


def channel_moments(
    network: fx.GraphModule, groups: Sequence[ChannelGroup], batches: Iterable[Tensor], seed: int = 0
) -> dict[str, Moments]:
    """Moments of the groups that every consumer takes in through a 1×1 convolution, over random cells."""
    chosen = {group.name: group.consumers[0][0] for group in groups if is_linear(network, group)}
    generator = torch.Generator().manual_seed(seed)
    sums: dict[str, tuple[Tensor, Tensor, int]] = {}
    hooks = []

    def gather(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            cells = inputs[0].permute(0, 2, 3, 1).reshape(-1, inputs[0].shape[1])
            if len(cells) > CELLS_PER_BATCH:
                cells = cells[torch.randint(len(cells), (CELLS_PER_BATCH,), generator=generator)]
            first, second, count = sums.get(name, (torch.zeros(()), torch.zeros(()), 0))
            sums[name] = (first + cells.double().sum(0), second + (cells.T @ cells).double(), count + len(cells))

        return hook

    for name, layer in chosen.items():
        hooks.append(network.get_submodule(layer).register_forward_pre_hook(gather(name)))
    with torch.no_grad():
        for planes in batches:
            network(planes)
    for hook in hooks:
        hook.remove()
    found = {}
    for name, (first, second, count) in sums.items():
        mean = (first / count).numpy()
        found[name] = Moments(mean, (second / count).numpy() - np.outer(mean, mean))
    return found


def is_linear(network: fx.GraphModule, group: ChannelGroup) -> bool:
    """Whether what takes the group in is nothing but 1×1 convolutions of these channels alone."""
    layers = [network.get_submodule(layer) for layer, _ in group.consumers]
    return bool(layers) and all(
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (1, 1)
        and layer.groups == 1
        and indices == tuple(range(layer.in_channels))
        for layer, (_, indices) in zip(layers, group.consumers, strict=True)
    )


def refit(network: fx.GraphModule, group: ChannelGroup, moments: Moments, gone: Sequence[int]) -> None:
    """Gives the consumers the weights with which the channels that stay make up best for those that go
    (least squares, He et al., arXiv 1707.06168). The columns that go are left as they are.

    Channels that are nearly combinations of each other could be given huge weights that cancel out. Training's
    first steps and INT8's roundings would upset those, up to whole layers that never answer again; so weights
    pay for what a channel's error would do to the output, its mean included.
    """
    kept = np.setdiff1d(np.arange(group.width), gone)
    for name, _ in group.consumers:
        layer = network.get_submodule(name)
        assert isinstance(layer, nn.Conv2d)
        mean = _mean_after(network, name, layer)
        # Where nothing can make up for the mean of what goes, it is fitted with the rest.
        offset = 0.0 if mean is not None else np.outer(moments.mean, moments.mean)
        squares = np.diag(moments.covariance) + np.square(moments.mean)
        products = moments.covariance + offset + np.diag(RIDGE * squares + 1e-12 * (1 + squares.mean()))
        transfer = np.linalg.solve(products[np.ix_(kept, kept)], products[kept])  # kept × all
        before = _matrix(network, name)
        after = before @ transfer.T
        with torch.no_grad():
            layer.weight[:, torch.from_numpy(kept)] = torch.from_numpy(after).float()[:, :, None, None]
            if mean is not None:
                tensor, sign = mean
                tensor += sign * torch.from_numpy(before @ moments.mean - after @ moments.mean[kept]).float()


def _mean_after(network: fx.GraphModule, name: str, layer: nn.Conv2d) -> tuple[Tensor, int] | None:
    """What moves the mean of a layer's outputs, and with which sign: its bias, or the batch norm behind it."""
    if layer.bias is not None:
        return layer.bias, 1
    users = [user for node in network.graph.nodes if node.target == name for user in node.users]
    norm = network.get_submodule(str(users[0].target)) if len(users) == 1 and users[0].op == "call_module" else None
    if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None:
        return norm.running_mean, -1
    return None


def _matrix(network: fx.GraphModule, layer: str) -> NDArray[np.float64]:
    """Weights of a 1×1 convolution: outputs × inputs."""
    weight = network.get_submodule(layer).get_parameter("weight").detach()
    matrix: NDArray[np.float64] = weight.flatten(1).double().numpy()
    return matrix
