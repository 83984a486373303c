"""Quantization-aware training: where is rounded, with which ranges, and that features keep their names."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from lathe.errors import NotFound
from lathe_compression import qat
from lathe_compression.centerface import fused_centerface, weights_file
from lathe_compression.fake_quantize import (
    FakeQuantize,
    FakeQuantizedConv2d,
    RoundedWeights,
)
from lathe_compression.student import drop_evenly
from lathe_compression.taps import block_outputs, shapes, traced
from tests.compression.networks import block_detector, plain_block_detector, planes, tiny_detector
from tests.compression.rounded_networks import CALIBRATION, FACTORIES, as_planes, prepared, quantizers, spread


@pytest.mark.parametrize("factory", FACTORIES)
def test_while_observing_only_the_weights_are_rounded(factory: Callable[[], nn.Module]) -> None:
    """With exact weights the folded network gives what the network gave."""
    network = prepared(factory, observed=False).eval()
    for module in network.modules():
        if isinstance(module, RoundedWeights):
            module.exact = True
    for given, wanted in zip(network(planes()), factory()(planes()), strict=True):
        torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-4 * max(1.0, float(wanted.abs().max())))


@pytest.mark.parametrize("factory", FACTORIES)
def test_rounded_network_is_near_the_float_one(factory: Callable[[], nn.Module]) -> None:
    for given, wanted in zip(prepared(factory)(planes()), factory()(planes()), strict=True):
        assert 0 < spread(given, wanted) < 0.03


def test_original_network_stays() -> None:
    network = traced(block_detector())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    copy = qat.prepare(network)
    with torch.no_grad():
        for weight in copy.parameters():
            weight.zero_()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_rounded_is_where_int8_kernels_hand_on_bytes() -> None:
    """Not before a ReLU, which they do themselves, and not behind the last convolution."""
    names = [name.removeprefix(qat.PREFIX) for name in quantizers(prepared(plain_block_detector))]
    blocks = [f"blocks_{number}_relus_{place}" for number in range(4) for place in (0, 1)]
    projections = [f"blocks_{number}_project" for number in range(4)]
    middles = [f"heads_{number}_1" for number in range(4)]
    assert sorted(names) == sorted(["stem_1", *blocks, *projections, "add", "add_1", *middles])


def test_ranges_hold_the_share_of_the_values_that_is_asked_for() -> None:
    network = qat.prepare(traced(plain_block_detector()))
    whole = copy.deepcopy(network)
    qat.observe(network, lambda: map(as_planes, CALIBRATION), 99.0)
    qat.observe(whole, lambda: map(as_planes, CALIBRATION))
    pairs = [
        (one, other)
        for one, other in zip(network.modules(), whole.modules(), strict=True)
        if isinstance(one, FakeQuantize) and isinstance(other, FakeQuantize)
    ]
    assert all(other.low <= one.low <= 0 <= one.high <= other.high for one, other in pairs)
    assert sum(float(one.high) < 0.98 * float(other.high) for one, other in pairs) > len(pairs) / 2
    assert all(one.counts is None and not one.observing for one, _ in pairs)


def test_ranges_hold_what_was_observed_and_zero() -> None:
    network = prepared(tiny_detector)
    stem = network.get_submodule("rounded_stem_2")
    original = tiny_detector()
    highest = max(float(original.stem(as_planes(canvas)).max()) for canvas in CALIBRATION)
    assert float(stem.low) == 0
    assert float(stem.high) == pytest.approx(highest, rel=1e-3)  # whose weights are rounded
    assert not any(module.observing for module in quantizers(network).values())


@pytest.mark.parametrize(
    ("low", "high", "scale", "zero_point"),
    [
        (0.0, 2.55, 0.01, 0),
        (-1.0, 1.55, 0.01, 100),
        (-2.55, 0.0, 0.01, 255),
        (0.5, 2.55, 0.01, 0),  # zero belongs to it
        (-2.55, -1.0, 0.01, 255),
        (0.0, 0.0, 1.0, 0),  # nothing was seen
        (0.0, 1e-6, 1.0, 0),
    ],
)
def test_grid_of_a_range(low: float, high: float, scale: float, zero_point: int) -> None:
    module = FakeQuantize()
    with torch.no_grad():
        module.low.fill_(low)
        module.high.fill_(high)
    found = module.grid()
    assert (float(found[0]), int(found[1])) == (pytest.approx(scale), zero_point)


def test_values_are_rounded_to_the_grid_and_cut_at_its_ends() -> None:
    module = FakeQuantize()
    module(torch.tensor([-1.0, 1.55]))
    module.observing = False
    values = torch.tensor([0.0, 0.004, 0.006, -1.0, -2.0, 1.55, 9.0])
    expected = torch.tensor([0.0, 0.0, 0.01, -1.0, -1.0, 1.55, 1.55])
    torch.testing.assert_close(module(values), expected, atol=1e-6, rtol=0)
    module.fixed = True
    torch.testing.assert_close(module(values), expected, atol=1e-6, rtol=0)


def test_gradients_pass_within_the_range_and_move_its_ends() -> None:
    module = FakeQuantize()
    module(torch.tensor([-1.0, 1.55]))
    module.observing = False
    values = torch.tensor([0.3, -2.0, -3.0, 9.0], requires_grad=True)
    module(values).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [1, 0, 0, 0]
    assert (float(module.low.grad), float(module.high.grad)) == (2, 1)  # type: ignore[arg-type]


def test_end_at_zero_stays_there() -> None:
    module = FakeQuantize()
    module(torch.tensor([0.0, 2.55]))
    module.observing = False
    module(torch.tensor([-1.0, 1.0])).sum().backward()
    assert not module.low.grad


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 8, 3, 2, 1, bias=False),
        nn.Conv2d(3, 6, 3, padding=2, dilation=2, groups=3),
        nn.Conv2d(3, 4, (1, 3), padding="same"),
        pytest.param(
            nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"),
        ),
    ],
    ids=repr,
)
def test_fake_quantized_convolution_takes_all_settings_over(layer: nn.Conv2d) -> None:
    made = FakeQuantizedConv2d.of(layer)
    made.exact = True
    assert torch.equal(made(planes()), layer(planes()))
    made.exact = False
    assert 0 < spread(made(planes()), layer(planes())) < 0.01


def test_weights_are_rounded_channel_by_channel() -> None:
    layer = nn.Conv2d(2, 3, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[127.0, 0.4], [-0.127, 0.0016], [0, 0]])[:, :, None, None])
    rounded = FakeQuantizedConv2d.of(layer).rounded().flatten(1)
    torch.testing.assert_close(rounded, torch.tensor([[127.0, 0.0], [-0.127, 0.002], [0, 0]]))


# --- features keep their names ---


def test_features_of_a_folded_network_are_the_teachers() -> None:
    """Without norms: every block of the teacher ends at a node of the same name and shape."""
    teacher, student = traced(plain_block_detector()), prepared(plain_block_detector)
    ends = block_outputs(teacher)
    own, other = shapes(student, planes(1)), shapes(teacher, planes(1))
    assert len(ends) == 5
    assert all(own[name] == other[name] for name in ends)
    assert set(ends) <= set(block_outputs(student))


def test_blocks_that_end_in_norms_can_still_be_compared() -> None:
    assert set(block_outputs(traced(block_detector()))) <= set(block_outputs(prepared(block_detector)))


def test_sums_keep_their_names_when_blocks_before_them_are_gone() -> None:
    """Of two residual blocks the first goes: the sum that is left is still the second's."""
    network = traced(block_detector())
    sums = [node for node in network.graph.nodes if node.name.startswith("add")]
    sums[0].replace_all_uses_with(sums[0].args[0])
    network.graph.eliminate_dead_code()
    network.recompile()
    assert [node.name for node in qat.prepare(network).graph.nodes if node.name in ("add", "add_1")] == ["add_1"]


def test_fused_centerface_keeps_its_features_names() -> None:
    try:
        weights_file()
    except NotFound as error:
        pytest.skip(error.message)
    network = traced(fused_centerface())
    before, after = shapes(network, planes(1)), shapes(qat.prepare(network), planes(1))
    assert {name: after.get(name) for name in block_outputs(network)} == {
        name: before[name] for name in block_outputs(network)
    }


def test_shallow_network_can_be_prepared() -> None:
    network = traced(block_detector())
    drop_evenly(network, 0.5)
    rounded = qat.prepare(network)
    qat.observe(rounded, lambda: [planes()])
    for given, wanted in zip(rounded(planes()), network(planes()), strict=True):
        assert spread(given, wanted) < 0.03
