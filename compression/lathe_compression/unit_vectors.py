"""The end of every embedding network: its answer brought to unit length, within the graph."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx, nn

from lathe.errors import BadVariant

LAYER = "unit_length"
SHORTEST = 1e-12


class UnitLength(nn.Module):
    """N × D to N × D vectors of length 1.

    As torch's own function for it, which would leave a graph that does not know how many numbers it gives.
    """

    def forward(self, vectors: Tensor) -> Tensor:
        unit: Tensor = vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True).clamp(min=SHORTEST)
        return unit


def ending_in_unit_vectors(network: fx.GraphModule) -> fx.GraphModule:
    """A copy whose only output has unit length; the same again where it ends so already.

    Raises:
        BadVariant: the network has more outputs than one.
    """
    ending = copy.deepcopy(network)
    end = next(node for node in ending.graph.nodes if node.op == "output")
    given = end.args[0]
    if isinstance(given, tuple | list) and len(given) == 1:
        (given,) = given
    if not isinstance(given, fx.Node):
        raise BadVariant("an embedding network has one output, and this one has more")
    if given.op == "call_module" and isinstance(ending.get_submodule(str(given.target)), UnitLength):
        return ending
    ending.add_module(LAYER, UnitLength())
    with ending.graph.inserting_before(end):
        end.args = (ending.graph.call_module(LAYER, (given,)),)
    ending.recompile()
    return ending
