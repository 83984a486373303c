"""Which channels can go together, what they cost, and networks after they have gone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

from lathe_compression.arithmetic import arithmetic
from lathe_compression.channels import (
    ChannelGroup,
    LayerCost,
    find_groups,
    fit_to,
    layer_costs,
    macs_by_layer,
    parameters_by_layer,
    take_out,
)
from lathe_compression.export import Normalisation, export
from lathe_compression.hygiene import clean
from lathe_compression.taps import traced
from tests.compression.networks import OUTPUTS, block_detector, plain_block_detector, planes, tiny_detector

ONE = planes(1)


def groups(network: fx.GraphModule, scope: str) -> dict[str, ChannelGroup]:
    return {group.name: group for group in find_groups(network, ONE, scope)}  # type: ignore[arg-type]


def chain(*layers: nn.Module) -> fx.GraphModule:
    torch.manual_seed(0)
    return traced(nn.Sequential(*layers).eval())


HIDDEN = {f"blocks.{number}.expand": width for number, width in enumerate((32, 32, 32, 48))}
MIDDLES = {f"heads.{number}.0": 16 for number in range(4)}


def test_hidden_channels_of_inverted_residuals_are_found_and_streams_are_not() -> None:
    found = groups(traced(block_detector()), "hidden")
    assert {name: group.width for name, group in found.items()} == HIDDEN | MIDDLES
    assert all(group.hidden for group in found.values())


def test_scope_all_finds_streams_too() -> None:
    found = groups(traced(block_detector()), "all")
    streams = {name: group.carriers for name, group in found.items() if not group.hidden}
    assert sorted(map(sorted, streams.values())) == [
        ["blocks.0.project", "stem.0"],
        ["blocks.1.project"],
        ["blocks.2.project", "blocks.3.project"],
    ]
    assert {name for name, group in found.items() if group.hidden} == {*HIDDEN, *MIDDLES}


def test_depthwise_layer_follows_and_the_projection_takes_in() -> None:
    group = groups(traced(block_detector()), "hidden")["blocks.1.expand"]
    assert set(group.carriers) == {"blocks.1.expand", "blocks.1.depthwise"}
    assert group.consumers == (("blocks.1.project", tuple(range(32))),)


def test_groups_come_in_the_order_of_the_layers() -> None:
    assert list(groups(traced(block_detector()), "hidden")) == [*HIDDEN, *MIDDLES]


def test_networks_outputs_are_in_no_group() -> None:
    for network in (block_detector(), tiny_detector()):
        carriers = {layer for group in groups(traced(network), "all").values() for layer in group.carriers}
        assert carriers
        assert not any(name.startswith("heads") and not name.endswith(".0") for name in carriers)
    assert not any(name.startswith("heads") for name in groups(traced(tiny_detector()), "all"))


def test_grouped_convolutions_stay() -> None:
    """The tiny detector's upsampling is in four groups: what it takes and gives is in no group of channels."""
    assert list(groups(traced(tiny_detector()), "all")) == ["stem.0"]
    grouped = chain(nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=2), nn.ReLU(), nn.Conv2d(16, 4, 1))
    assert groups(grouped, "all") == {}


def test_depthwise_layer_that_multiplies_channels_stays() -> None:
    network = chain(nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, groups=16), nn.ReLU(), nn.Conv2d(32, 4, 1))
    assert groups(network, "all") == {}


def test_channels_that_are_joined_are_told_apart_at_their_consumer() -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 16, 1)
            self.relu, self.end = nn.ReLU(), nn.Conv2d(24, 4, 1)

        def forward(self, value: Tensor) -> Tensor:
            joined: Tensor = self.end(self.relu(torch.cat([self.one(value), self.other(value)], dim=1)))
            return joined

    found = groups(traced(Joined().eval()), "all")
    assert found["one"].consumers == (("end", tuple(range(8))),)
    assert found["other"].consumers == (("end", tuple(range(8, 24))),)


@pytest.mark.parametrize("scope", ["hidden", "all"])
@pytest.mark.parametrize("factory", [block_detector, plain_block_detector])
def test_every_group_can_lose_channels(factory: type, scope: str) -> None:
    network = traced(factory())
    before = groups(network, scope)
    take_out(network, ONE, {name: range(0, group.width, 2) for name, group in before.items()})
    after = groups(network, scope)
    assert {name: group.width for name, group in after.items()} == {n: g.width // 2 for n, g in before.items()}
    shapes = [tuple(value.shape) for value in network(planes())]
    assert shapes == [tuple(value.shape) for value in factory()(planes())]


def test_dead_channels_can_go_without_a_trace() -> None:
    network = traced(plain_block_detector())
    with torch.no_grad():
        network.get_submodule("blocks.1.project").weight[:, [3, 17]] = 0
    before = network(planes())
    take_out(network, ONE, {"blocks.1.expand": [17, 3], "blocks.2.expand": []})
    assert network.get_submodule("blocks.1.depthwise").groups == 30
    for one, other in zip(network(planes()), before, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("factory", [block_detector, tiny_detector])
@pytest.mark.parametrize("scope", ["hidden", "all"])
def test_state_alone_restores_a_pruned_network(factory: type, scope: str) -> None:
    network = traced(factory())
    take_out(network, ONE, {name: range(group.width // 2) for name, group in groups(network, scope).items()})
    restored = traced(factory())
    fit_to(restored, network.state_dict())
    for one, other in zip(restored.eval()(planes()), network.eval()(planes()), strict=True):
        assert torch.equal(one, other)
    for name, module in restored.named_modules():
        assert repr(module) == repr(network.get_submodule(name)) or isinstance(module, fx.GraphModule)


def test_restored_network_is_not_tied_to_the_state() -> None:
    network, restored = traced(tiny_detector()), traced(tiny_detector())
    state = network.state_dict()
    fit_to(restored, state)
    with torch.no_grad():
        restored.get_submodule("stem.0").weight.zero_()
    assert float(state["stem.0.weight"].abs().sum()) > 0


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(16, 16, 3, groups=16),
        nn.Conv2d(16, 8, 3, groups=4),
        nn.ConvTranspose2d(16, 16, 2, 2, groups=16),
        nn.ConvTranspose2d(16, 8, 2, 2, groups=4),
        nn.ConvTranspose2d(16, 8, 2, 2),
        nn.PReLU(16),
        nn.PReLU(),
        nn.BatchNorm2d(16),
        nn.GroupNorm(4, 16),
        pytest.param(
            nn.Conv2d(16, 32, 3, groups=16),
        ),
    ],
    ids=repr,
)
def test_state_of_the_same_width_changes_nothing(layer: nn.Module) -> None:
    network = chain(nn.Conv2d(3, 16, 1), layer)
    told, before = repr(network), network(planes())
    fit_to(network, {name: value.clone() for name, value in network.state_dict().items()})
    assert repr(network) == told
    assert torch.equal(network(planes()), before)


def test_multiply_accumulates_are_those_of_the_graph() -> None:
    """Counted in the torch network and in the exported file."""
    for factory in (tiny_detector, plain_block_detector):
        network = traced(factory())
        cleaned, _ = clean(export(network, Normalisation(), OUTPUTS, 32))
        assert sum(macs_by_layer(network, ONE).values()) == arithmetic(cleaned, (96, 64)).macs


def test_costs_of_small_layers() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.ConvTranspose2d(8, 4, 2, 2)
    )
    assert macs_by_layer(network, torch.zeros(5, 3, 8, 8)) == {
        "0": 4 * 4 * 8 * 27,
        "1": 4 * 4 * 8 * 9,
        "2": 4 * 4 * 8 * 4 * 4,  # every input spreads over 4 outputs × 2 × 2
    }
    assert parameters_by_layer(network) == {"0": 216, "1": 72, "2": 128}


def test_layer_shrinks_by_the_groups_on_both_its_sides() -> None:
    made = [
        ChannelGroup("a", 8, ("a", "depthwise"), (("b", tuple(range(8))),), True),
        ChannelGroup("b", 4, ("b",), (("c", tuple(range(4))),), True),
    ]
    costs = {"a": 10.0, "depthwise": 1.0, "b": 5.0, "c": 2.0, "alone": 3.0}
    assert layer_costs(costs, made) == [
        LayerCost(10.0, ("a",)),
        LayerCost(1.0, ("a",)),
        LayerCost(5.0, ("a", "b")),
        LayerCost(2.0, ("b",)),
        LayerCost(3.0, ()),
    ]
