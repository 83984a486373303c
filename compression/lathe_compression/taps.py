"""Features of a network in the middle of its graph, for losses that compare them with a teacher's."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from lathe.errors import BadVariant, InvalidInput

ACTIVATIONS = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.SiLU,
    nn.Hardswish,
    nn.GELU,
    nn.ELU,
    nn.Sigmoid,
    nn.Hardsigmoid,
    nn.Tanh,
)
CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
NORMS = (nn.BatchNorm2d,)
ADDITIONS = (torch.add, operator.add, operator.iadd)


def traced(network: nn.Module) -> fx.GraphModule:
    """The network as a flat graph of layers, which every later step reads as data.

    Raises:
        BadVariant: its `forward` branches on values, so that no graph stands for it.
    """
    if isinstance(network, fx.GraphModule):
        return network
    try:
        return fx.symbolic_trace(network)
    except Exception as error:  # whatever the user's forward raises on a proxy
        raise BadVariant(
            f"{type(network).__name__} cannot be traced by torch.fx: {error}; "
            "its forward must not branch on the values or shapes of tensors"
        ) from error


def shapes(network: fx.GraphModule, planes: Tensor) -> dict[str, tuple[int, ...]]:
    """Shape of every node that gives one tensor, for one input."""
    with torch.no_grad():
        ShapeProp(network).propagate(planes)
    found = {}
    for node in network.graph.nodes:
        meta = node.meta.get("tensor_meta")
        if meta is not None and hasattr(meta, "shape"):
            found[node.name] = tuple(meta.shape)
    return found


def block_outputs(network: fx.GraphModule) -> list[str]:
    """Nodes where a block ends: sums, and convolutions that neither an activation nor a sum follows. The
    network's outputs are not among them."""
    modules = dict(network.named_modules())
    given = {node for node in network.graph.nodes if node.op == "output" for node in node.all_input_nodes}
    found = []
    for node in network.graph.nodes:
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        is_sum = node.op == "call_function" and node.target in ADDITIONS
        if not is_sum and not isinstance(module, (*CONVOLUTIONS, *NORMS)):
            continue
        following = [modules.get(str(user.target)) if user.op == "call_module" else None for user in node.users]
        linear = not any(isinstance(one, (*NORMS, *ACTIVATIONS)) for one in following)
        summed = all(user.op == "call_function" and user.target in ADDITIONS for user in node.users)
        if linear and not summed and node not in given:
            found.append(node.name)
    return found


def with_taps(network: fx.GraphModule, names: Sequence[str], *, outputs: bool = True) -> fx.GraphModule:
    """The same layers, giving (outputs, features): two tuples of tensors.

    Args:
        outputs: without them the first tuple is empty, and nothing runs that the features do not need.

    Raises:
        InvalidInput: a name that is none of the graph's nodes.
    """
    graph = fx.Graph()
    values: dict[fx.Node, fx.Node] = {}
    ends = graph.graph_copy(network.graph, values)
    copies = {node.name: copy for node, copy in values.items()}
    missing = [name for name in names if name not in copies]
    if missing:
        raise InvalidInput(f"the network has no node {missing[0]} to compare features at")
    wanted = ends if isinstance(ends, tuple | list) else (ends,)
    graph.output((tuple(wanted) if outputs else (), tuple(copies[name] for name in names)))
    tapped = fx.GraphModule(network, graph)
    _rectify_in_place(tapped)
    if not outputs:
        tapped.graph.eliminate_dead_code()
        tapped.recompile()
    return tapped


def _rectify_in_place(network: fx.GraphModule) -> None:
    """Rectifies where the convolution before has just written, which nobody else reads and no gradient needs:
    another tensor of that size would have to be paged in first."""
    modules = dict(network.named_modules())
    for node in network.graph.nodes:
        if node.op != "call_module" or type(modules[str(node.target)]) is not nn.ReLU:
            continue
        before = node.args[0]
        layer = modules.get(str(before.target)) if before.op == "call_module" else None
        if isinstance(layer, CONVOLUTIONS) and len(before.users) == 1:
            node.op, node.target = "call_function", torch.relu_
    network.recompile()
