"""A network as a graph: where its blocks end, and features taken from its middle."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lathe.errors import BadVariant, InvalidInput
from lathe_compression.taps import block_outputs, shapes, traced, with_taps
from tests.compression.networks import block_detector, branching_detector, planes, tiny_detector


def test_network_that_branches_on_values_is_told() -> None:
    with pytest.raises(BadVariant, match=r"BranchingDetector cannot be traced .* must not branch on the values"):
        traced(branching_detector())


def test_tracing_twice_is_tracing_once() -> None:
    network = traced(tiny_detector())
    assert traced(network) is network


def test_traced_network_gives_the_same() -> None:
    network = block_detector()
    for one, other in zip(traced(network)(planes()), network(planes()), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_shapes_are_those_of_every_node() -> None:
    found = shapes(traced(tiny_detector()), planes(1, 64, 96))
    assert {name: found[name] for name in ("stem_0", "down_2", "deep_0", "add", "heads_3")} == {
        "stem_0": (1, 16, 32, 48),
        "down_2": (1, 16, 16, 24),
        "deep_0": (1, 16, 8, 12),
        "add": (1, 16, 16, 24),
        "heads_3": (1, 10, 16, 24),
    }


def test_blocks_end_at_sums_and_linear_layers() -> None:
    """Not inside a block, not before a norm or an activation, not at what a sum alone takes, not at an output."""
    assert block_outputs(traced(block_detector())) == [
        "add",
        "blocks_1_norms_2",
        "blocks_2_norms_2",
        "add_1",
        "heads_0_2",
    ]


class Chain(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, value: Tensor) -> Tensor:
        for layer in self.layers:
            value = layer(value)
        return value


@pytest.mark.parametrize(
    ("layers", "ends"),
    [
        ([nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1)], []),
        ([nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)], ["layers_0"]),
        ([nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)], ["layers_1"]),
        ([nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.PReLU(4), nn.Conv2d(4, 4, 1)], []),
        ([nn.ConvTranspose2d(3, 4, 2, 2), nn.MaxPool2d(2), nn.Conv2d(4, 4, 1)], ["layers_0"]),
    ],
)
def test_block_ends_of_chains(layers: list[nn.Module], ends: list[str]) -> None:
    assert block_outputs(traced(Chain(*layers))) == ends


def test_taps_give_outputs_and_features() -> None:
    network = traced(tiny_detector())
    outputs, (down, added) = with_taps(network, ["down_2", "add"])(planes())
    for one, other in zip(outputs, network(planes()), strict=True):
        torch.testing.assert_close(one, other)
    original = tiny_detector()
    torch.testing.assert_close(down, original.down(original.stem(planes())))
    assert added.shape == down.shape
    assert not torch.equal(added, down)


def test_without_outputs_nothing_runs_behind_the_last_tap() -> None:
    tapped = with_taps(traced(tiny_detector()), ["down_2"], outputs=False)
    outputs, features = tapped(planes())
    assert (outputs, len(features)) == ((), 1)
    assert not any(str(node.target).startswith(("deep", "up", "heads")) for node in tapped.graph.nodes)


def test_tapped_network_shares_its_layers() -> None:
    """What is learnt through the one is learnt by the other."""
    network = traced(tiny_detector())
    tapped = with_taps(network, ["add"])
    assert tapped.get_submodule("down.2").weight is network.get_submodule("down.2").weight


def test_unknown_tap_is_named() -> None:
    with pytest.raises(InvalidInput, match="no node ad to compare features at"):
        with_taps(traced(tiny_detector()), ["add", "ad"])
