"""A smaller network to learn in the teacher's place: of its architecture, narrower or shallower, or the user's own."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from lathe.errors import BadVariant
from lathe_compression.channels import find_groups, take_out
from lathe_compression.importance import static_ranking
from lathe_compression.taps import ADDITIONS, traced
from lathe_compression.teacher import load_teacher

ROUND_TO = 8


@dataclass(frozen=True)
class Student:
    """Where a student comes from.

    Attributes:
        factory: `package.module:factory` of the user's own; empty for the teacher's architecture.
        width: share of its channels that every layer keeps, the largest ones, rounded to 8.
        depth: share of its residual blocks that stay.
        from_teacher: start from the teacher's weights, not at random. A factory decides for itself.
    """

    factory: str = ""
    width: float = 1.0
    depth: float = 1.0
    from_teacher: bool = True

    def __post_init__(self) -> None:
        if not (0 < self.width <= 1 and 0 <= self.depth <= 1):
            raise ValueError("width must be above 0, depth not below, and both at most 1")
        if self.factory and (self.width, self.depth) != (1.0, 1.0):
            raise ValueError("a student has its own factory, or the teacher's width and depth, not both")

    def describe(self) -> str:
        if self.factory:
            return f"student {self.factory}"
        return f"student of {self.width:.0%} of the width and {self.depth:.0%} of the residual blocks"


def build_student(student: Student, teacher: fx.GraphModule, planes: Tensor, folder: Path, seed: int) -> fx.GraphModule:
    """The untrained student.

    Args:
        teacher: the network whose architecture it takes; it stays as it is.
        planes: an example input.
        folder: what a factory's path is relative to.

    Raises:
        NotFound, InvalidInput: the factory is not there, or makes no network.
    """
    torch.manual_seed(seed)
    if student.factory:
        return traced(load_teacher(student.factory, folder))
    network = copy.deepcopy(teacher)
    if student.depth < 1:
        drop_evenly(network, student.depth)
    if student.width < 1:
        _narrow(network, student.width, planes)
    if not student.from_teacher:
        for module in network.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
    return network


def drop_evenly(network: fx.GraphModule, keep: float) -> list[str]:
    """Takes a share of the residual blocks out in place, evenly over the network's depth.

    Returns:
        Names of the sums that went.

    Raises:
        BadVariant: the network has no residual block.
    """
    blocks = residual_sums(network)
    if not blocks:
        raise BadVariant("the network has no residual block that could go; depth cannot shrink it")
    count = round(len(blocks) * keep)
    kept = {round(place * (len(blocks) - 1) / max(1, count - 1)) for place in range(count)}
    dropped = [name for place, name in enumerate(blocks) if place not in kept]
    drop_blocks(network, dropped)
    return dropped


def residual_sums(network: fx.GraphModule) -> list[str]:
    """Names of the nodes that add a block's input to what the block made of it, in the graph's order."""
    return [node.name for node in network.graph.nodes if _skip(node) is not None]


def drop_blocks(network: fx.GraphModule, sums: Collection[str]) -> None:
    """Takes residual blocks out in place: their sum becomes their input."""
    for node in list(network.graph.nodes):
        skip = _skip(node) if node.name in sums else None
        if skip is not None:
            node.replace_all_uses_with(skip)
    network.graph.eliminate_dead_code()
    network.delete_all_unused_submodules()
    network.recompile()


def compose_linear(network: fx.GraphModule, chosen: Sequence[str] | None = None) -> list[str]:
    """Makes one 1×1 convolution of two with nothing between them, where that is less work: exact.

    Args:
        chosen: the layers that go; where none are given, those that save work.

    Returns:
        Names of the layers that went.
    """
    gone = []
    for node in list(network.graph.nodes):
        first, following = _pointwise(network, node), list(node.users)
        second = _pointwise(network, following[0]) if len(following) == 1 else None
        if first is None or second is None:
            continue
        inputs, middle, outputs = first.in_channels, first.out_channels, second.out_channels
        saves = inputs * outputs < middle * (inputs + outputs)
        if not (saves if chosen is None else str(node.target) in chosen):
            continue
        composed = nn.Conv2d(inputs, outputs, 1)
        with torch.no_grad():
            after = second.weight.flatten(1)
            composed.weight.copy_((after @ first.weight.flatten(1))[:, :, None, None])
            bias = after @ first.bias if first.bias is not None else torch.zeros(outputs)
            assert composed.bias is not None
            composed.bias.copy_(bias + second.bias if second.bias is not None else bias)
        target = str(following[0].target)
        network.set_submodule(target, composed)
        following[0].replace_input_with(node, node.all_input_nodes[0])
        network.graph.erase_node(node)
        gone.append(str(node.target))
    network.delete_all_unused_submodules()
    network.recompile()
    return gone


def _pointwise(network: fx.GraphModule, node: fx.Node) -> nn.Conv2d | None:
    """The 1×1 convolution that a node calls, and no other node with it."""
    if node.op != "call_module":
        return None
    module = network.get_submodule(str(node.target))
    plain = isinstance(module, nn.Conv2d) and module.kernel_size == module.stride == (1, 1) and module.groups == 1
    shared = sum(other.target == node.target for other in network.graph.nodes) > 1
    return module if plain and not shared and module.padding == (0, 0) else None  # type: ignore[return-value]


def _narrow(network: fx.GraphModule, width: float, planes: Tensor) -> None:
    for group in find_groups(network, planes, "all"):
        left = max(ROUND_TO, round(group.width * width / ROUND_TO) * ROUND_TO)
        if left < group.width:
            order = static_ranking(network, group, planes, "magnitude").order
            take_out(network, planes, {group.name: list(order[: group.width - left])})


def _skip(node: fx.Node) -> fx.Node | None:
    """The block's input where a node adds it to what the block made of it."""
    if node.op != "call_function" or node.target not in ADDITIONS or len(node.all_input_nodes) != 2:
        return None
    one, other = node.all_input_nodes
    for skip, branch in ((one, other), (other, one)):
        if _made_of(branch, skip):
            return skip
    return None


def _made_of(branch: fx.Node, source: fx.Node) -> bool:
    """Whether a straight line of layers leads from the source to the branch."""
    node = branch
    while node.op == "call_module" and len(node.all_input_nodes) == 1:
        node = node.all_input_nodes[0]
        if node is source:
            return True
    return False
