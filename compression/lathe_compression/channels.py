"""Which channels of a network can only go together, what each costs, and how they are taken out.

The dependencies come from torch-pruning's graph (Fang et al., arXiv 2301.12900): a channel that leaves a
convolution leaves the depthwise convolution behind it, and the input of the next one, with it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch_pruning as tp
from torch import Tensor, fx, nn

from lathe_compression.taps import ACTIVATIONS, CONVOLUTIONS

logging.getLogger("torch_pruning").setLevel(logging.ERROR)

Scope = Literal["hidden", "all"]


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that share their fate.

    Attributes:
        name: the layer that makes them.
        width: how many there are.
        carriers: layers with these channels as their outputs, depthwise ones among them.
        consumers: layers that take them in, each with its input channels in the order of the group's.
        hidden: made by one layer, through an activation, and used inside a block alone: the wide middle
            of an inverted residual. What blocks hand to each other is not hidden.
    """

    name: str
    width: int
    carriers: tuple[str, ...]
    consumers: tuple[tuple[str, tuple[int, ...]], ...]
    hidden: bool


def find_groups(network: fx.GraphModule, planes: Tensor, scope: Scope) -> list[ChannelGroup]:
    """All groups in a scope, in the order of the layers.

    The network's outputs stay as they are, and so does what grouped convolutions take or give: a channel
    less in one of their groups is one less in each.
    """
    names = {module: name for name, module in network.named_modules()}
    last = {
        network.get_submodule(str(node.target))
        for end in network.graph.nodes
        if end.op == "output"
        for node in _producers(network, end)
    }
    graph = _dependencies(network, planes)
    found = []
    kinds = [*CONVOLUTIONS, nn.Linear]
    for group in graph.get_all_groups(ignored_layers=list(last), root_module_types=kinds):
        carriers, consumers, dense, bends = [], [], 0, False
        for dependency, indices in group:
            module, does = dependency.target.module, dependency.handler.__name__
            bends |= isinstance(module, ACTIVATIONS) or module not in names
            if not isinstance(module, (*CONVOLUTIONS, nn.Linear)):
                continue
            # Both directions of a depthwise convolution are one.
            if does.endswith("out_channels") or _is_depthwise(module):
                if names[module] not in carriers:
                    carriers.append(names[module])
                    dense += not _is_depthwise(module)
            else:
                consumers.append((names[module], tuple(int(index) for index in indices)))
        if any(_is_grouped(network.get_submodule(name)) for name in [*carriers, *(name for name, _ in consumers)]):
            continue
        hidden = dense == 1 and bends
        root = next(name for name in carriers if not _is_depthwise(network.get_submodule(name)))
        if hidden or scope == "all":
            width = len(group[0][1])
            found.append(ChannelGroup(root, width, tuple(carriers), tuple(consumers), hidden))
    order = {name: place for place, name in enumerate(names.values())}
    return sorted(found, key=lambda group: order[group.name])


def take_out(network: fx.GraphModule, planes: Tensor, gone: Mapping[str, Sequence[int]]) -> None:
    """Removes channels in place.

    Args:
        gone: channels by the name of their group.
    """
    for name, channels in gone.items():
        if channels:
            graph = _dependencies(network, planes)
            layer = network.get_submodule(name)
            group = graph.get_pruning_group(layer, _out_pruner(layer), idxs=sorted(channels))
            group.prune()


def fit_to(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Gives every layer the width that a saved state has, and the state.

    A pruned network is saved as its state alone: the widths are in it, the rest is the parent's.
    """
    for name, module in network.named_modules():
        weight = state.get(f"{name}.weight")
        if weight is None:
            continue
        for key in [key for key in module.state_dict() if f"{name}.{key}" in state]:
            _set_tensor(module, key, state[f"{name}.{key}"].clone())
        if isinstance(module, nn.Conv2d):
            if _is_depthwise(module):
                module.groups = weight.shape[0]
            module.out_channels, module.in_channels = weight.shape[0], weight.shape[1] * module.groups
        elif isinstance(module, nn.ConvTranspose2d):
            if _is_depthwise(module):
                module.groups = weight.shape[0]
            module.in_channels, module.out_channels = weight.shape[0], weight.shape[1] * module.groups
        elif isinstance(module, nn.Linear):
            module.out_features, module.in_features = weight.shape
        elif isinstance(module, nn.BatchNorm2d):
            module.num_features = weight.shape[0]
        elif isinstance(module, nn.PReLU):
            module.num_parameters = weight.shape[0]
    network.load_state_dict(dict(state))


@dataclass(frozen=True)
class LayerCost:
    """What a layer costs at full width, and which groups make it cheaper.

    Attributes:
        groups: one entry for each side, inputs and outputs, that belongs to a group.
    """

    cost: float
    groups: tuple[str, ...]


def layer_costs(costs: Mapping[str, float], groups: Iterable[ChannelGroup]) -> list[LayerCost]:
    """Every layer's cost with the groups that it shrinks by: a depthwise layer once, others on each side."""
    sides: dict[str, list[str]] = {name: [] for name in costs}
    for group in groups:
        for layer in [*group.carriers, *(name for name, _ in group.consumers)]:
            if layer in sides:
                sides[layer].append(group.name)
    return [LayerCost(cost, tuple(sides[name])) for name, cost in costs.items()]


def macs_by_layer(network: nn.Module, planes: Tensor) -> dict[str, float]:
    """Multiply-accumulates of every convolution and matrix product for one input."""
    found: dict[str, float] = {}
    hooks = []

    def count(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            weight = module.get_parameter("weight")
            # Each output sums over one filter; each input of a transposed convolution spreads over one.
            positions = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
            found[name] = positions.numel() / planes.shape[0] * weight.numel() / weight.shape[0]

        return hook

    for name, module in network.named_modules():
        if isinstance(module, (*CONVOLUTIONS, nn.Linear)):
            hooks.append(module.register_forward_hook(count(name)))
    with torch.no_grad():
        network(planes)
    for hook in hooks:
        hook.remove()
    return found


def parameters_by_layer(network: nn.Module) -> dict[str, float]:
    """Elements of the weights of every layer that has some, biases and norms left out."""
    return {
        name: float(module.weight.numel())
        for name, module in network.named_modules()
        if isinstance(module, (*CONVOLUTIONS, nn.Linear))
    }


def _dependencies(network: nn.Module, planes: Tensor) -> Any:
    # A batch that is no tuple would first be taken for as many inputs as it has pictures.
    return tp.DependencyGraph().build_dependency(network, example_inputs=(planes,), verbose=False)


def _producers(network: nn.Module, end: fx.Node) -> list[fx.Node]:
    """Layers whose channels are the network's outputs: through everything that keeps channels in place."""
    found, waiting, seen = [], list(end.all_input_nodes), set()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.op == "call_module" and isinstance(network.get_submodule(str(node.target)), (*CONVOLUTIONS, nn.Linear)):
            found.append(node)
        else:
            waiting += node.all_input_nodes
    return found


def _is_depthwise(module: nn.Module) -> bool:
    """One filter a channel: neither a multiplier nor wider groups."""
    return isinstance(module, CONVOLUTIONS) and 1 < module.groups == module.in_channels == module.out_channels


def _is_grouped(module: nn.Module) -> bool:
    return isinstance(module, CONVOLUTIONS) and module.groups > 1 and not _is_depthwise(module)


def _out_pruner(layer: nn.Module) -> Any:
    if isinstance(layer, nn.Linear):
        return tp.prune_linear_out_channels
    return tp.prune_conv_out_channels


def _set_tensor(module: nn.Module, key: str, value: Tensor) -> None:
    owner = module.get_submodule(key.rpartition(".")[0])
    leaf = key.rpartition(".")[2]
    if leaf in owner._parameters:
        owner._parameters[leaf] = nn.Parameter(value)
    else:
        owner._buffers[leaf] = value
