"""Quantization-aware training, from the trained network to an INT8 file that answers as it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, fx, nn

from lathe_compression import qat
from lathe_compression.distill import Lesson, Losses
from lathe_compression.export import Normalisation, export
from lathe_compression.fake_quantize import (
    LEVELS,
    FakeQuantizedConv2d,
    FakeQuantizedConvTranspose2d,
    RoundedWeights,
)
from lathe_compression.hygiene import clean
from lathe_compression.labels import Objects
from lathe_compression.losses import heatmap_loss
from lathe_compression.quantize import Quantize, assert_int8_kernels, quantize
from lathe_compression.scenes import Scene
from lathe_compression.taps import traced
from lathe_compression.training import Moment, Schedule, train
from tests.compression.graphs import count, pixels, run
from tests.compression.networks import OUTPUTS, block_detector, plain_block_detector, planes, tiny_detector
from tests.compression.rounded_networks import CALIBRATION, FACTORIES, QAT, as_planes, prepared, quantizers, spread


@pytest.mark.parametrize("factory", FACTORIES)
def test_without_the_quantizers_the_graph_is_the_float_one(factory: Callable[[], nn.Module]) -> None:
    network = prepared(factory)
    names = len(quantizers(network))
    graph = exported(network)
    assert count(graph, "QuantizeLinear") == names
    ranges = qat.take_ranges(graph)
    onnx.checker.check_model(graph, full_check=True)
    assert len(ranges) == names
    assert count(graph, "QuantizeLinear") == count(graph, "DequantizeLinear") == 0
    reference = export(factory(), Normalisation(), OUTPUTS, 32)
    for given, wanted in zip(run(graph, CALIBRATION[0]), run(reference, CALIBRATION[0]), strict=True):
        np.testing.assert_allclose(given, wanted, rtol=1e-3, atol=1e-4 * max(1.0, float(np.abs(wanted).max())))


@pytest.mark.parametrize(
    "factory",
    [
        tiny_detector,
        pytest.param(
            block_detector,
        ),
    ],
)
def test_rounded_graph_passes_the_check_of_its_export(factory: Callable[[], nn.Module]) -> None:
    """Without the runtime's optimisations it is equal to 1e-6."""
    assert exported(prepared(factory), qat.ROUNDED_TOLERANCE).graph.node


def test_ranges_are_the_grids_that_were_learnt() -> None:
    network = prepared(tiny_detector)
    wanted = []
    for module in quantizers(network).values():
        scale, zero_point = (float(one) for one in module.grid())
        wanted.append((-zero_point * scale, (LEVELS - zero_point) * scale))
    graph = exported(network)
    np.testing.assert_allclose(sorted(qat.take_ranges(graph).values()), sorted(wanted), rtol=1e-5)


class EarlyAnswer(nn.Module):
    """What it gives first is also what its last layer takes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu, self.last = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 2, 1)

    def forward(self, value: Tensor) -> tuple[Tensor, Tensor]:
        middle = self.relu(self.first(value))
        return middle, self.last(middle)


def test_output_that_another_layer_takes_stays_an_output() -> None:
    torch.manual_seed(0)
    network = prepared(lambda: EarlyAnswer().eval())
    graph = export(qat.ready_to_export(network), Normalisation(), ("middle", "end"), 32, qat.ROUNDED_TOLERANCE)
    qat.take_ranges(graph)
    onnx.checker.check_model(graph, full_check=True)


def exported(network: fx.GraphModule, tolerance: float = float("inf")) -> onnx.ModelProto:
    """With its quantizers. Unchecked: see the test of the check."""
    return export(qat.ready_to_export(network), Normalisation(), OUTPUTS, 32, tolerance)


def int8_of(network: fx.GraphModule, step: Quantize = QAT) -> onnx.ModelProto:
    """As the step makes it."""
    graph = exported(network)
    ranges = qat.take_ranges(graph)
    return quantize(clean(graph)[0], step, CALIBRATION, 32, ranges=ranges)[0]


def learn(network: fx.GraphModule, folder: Path, scenes: int = 240) -> list[float]:
    """Learns from its teacher on the same four scenes of noise over and over; the losses step by step."""
    lesson = Lesson(traced(block_detector()), OUTPUTS, heatmap_loss, Losses(0, 1), [planes(2)])
    loss, extra = lesson.loss_for(network)
    losses: list[float] = []

    def kept(value: Tensor, objects: Sequence[Objects]) -> Tensor:
        lost = loss(value)
        losses.append(float(lost.detach()))
        return lost

    def scene(number: int) -> Scene:
        return Scene(pixels(64, 96, seed=100 + number % 4)[0])

    def ignore(moment: Moment) -> None:
        pass

    train(network, kept, scene, Schedule(scenes, 4, 0.003), folder / "checkpoint.pt", ignore, extra)
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return losses


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> tuple[fx.GraphModule, list[float]]:
    network = prepared(block_detector)
    return network, learn(network, tmp_path_factory.mktemp("learnt"))


def test_short_training_lowers_the_loss_of_the_roundings(learnt: tuple[fx.GraphModule, list[float]]) -> None:
    losses = learnt[1]
    assert losses[0] > 0.001
    assert np.mean(losses[-4:]) < 0.96 * losses[0]  # measured 0.92


def test_training_moves_weights_and_ranges(learnt: tuple[fx.GraphModule, list[float]]) -> None:
    """Only those ranges move that something was cut off from."""
    before, after = prepared(block_detector), learnt[0]
    moved = [name for name, module in quantizers(after).items() if module.high != quantizers(before)[name].high]
    assert len(moved) >= 3
    weights = dict(before.named_parameters())
    assert all(
        not torch.equal(weight, weights[name])
        for name, weight in after.named_parameters()
        if name.startswith(("stem", "blocks")) and name.endswith("weight")
    )


TOLERANCE = 0.012
"""Of the range, root mean square: measured 0.0004 to 0.0081 (heads share their stem's rounding with the runtime)."""


@pytest.mark.parametrize("factory", FACTORIES)
def test_int8_file_equals_its_torch_twin(factory: Callable[[], nn.Module]) -> None:
    """Ranges as constants, weights as rounded: what differs is the rounding of sums and of the heads' results."""
    network = prepared(factory)
    model = int8_of(network)
    for module in network.modules():
        if isinstance(module, RoundedWeights):
            module.exact = False
    assert assert_int8_kernels(model) == count(model, "Conv")
    for canvas in (CALIBRATION[0], pixels(64, 96, seed=50)):
        for given, wanted in zip(run(model, canvas), network(as_planes(canvas)), strict=True):
            assert spread(torch.from_numpy(given), wanted.detach()) < TOLERANCE


def test_trained_int8_file_equals_its_torch_twin(learnt: tuple[fx.GraphModule, list[float]]) -> None:
    network = learnt[0]
    model = int8_of(network)
    for module in network.modules():
        if isinstance(module, RoundedWeights):
            module.exact = False
    for given, wanted in zip(run(model, CALIBRATION[1]), network(as_planes(CALIBRATION[1])), strict=True):
        assert spread(torch.from_numpy(given), wanted.detach()) < TOLERANCE


class Pyramid(nn.Module):
    """Two levels; the upper one comes down by a transposed convolution and is added to the lower one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.lower, self.upper = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 24, 3, 2, 1)
        self.up, self.norm, self.relu = nn.ConvTranspose2d(24, 16, 2, 2, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, value: Tensor) -> Tensor:
        stem = self.relu(self.stem(value))
        upper = self.relu(self.upper(stem))
        given: Tensor = self.head(self.lower(stem) + self.relu(self.norm(self.up(upper))))
        return given


def pyramid(*, dead: bool = False) -> nn.Module:
    torch.manual_seed(0)
    network = Pyramid()
    with torch.no_grad():
        network.stem.weight /= 255
        network.norm.bias.uniform_(0.5, 2)
        if dead:
            network.upper.bias.fill_(-1000)  # type: ignore[union-attr]
    return network.eval()


@pytest.mark.parametrize("dead", [False, True])
def test_int8_pyramid_equals_its_torch_twin(dead: bool) -> None:
    """Transposed convolutions are INT8 too. Of a layer that never answers, the range holds nothing but zero: the
    biases behind it are multiples of its scale in the file, and must not overflow."""
    network = prepared(lambda: pyramid(dead=dead))
    graph = export(qat.ready_to_export(network), Normalisation(), ("y",), 32, float("inf"))
    ranges = qat.take_ranges(graph)
    assert any(low == 0 and high == 255 for low, high in ranges.values()) == dead
    model, done = quantize(clean(graph)[0], Quantize(method="qat"), CALIBRATION, 32, ranges=ranges)
    assert assert_int8_kernels(model) == count(model, "Conv") == 5
    assert "layout: the stem takes 4 pixels at a time" in done
    assert "layout: 1 transposed convolutions as 1×1 convolutions, for which there are INT8 kernels" in done
    for module in network.modules():
        if isinstance(module, RoundedWeights):
            module.exact = False
    wanted = network(as_planes(CALIBRATION[0]))
    assert spread(torch.from_numpy(run(model, CALIBRATION[0])[0]), wanted.detach()) < 0.005


def test_transposed_convolution_stays_in_float_by_its_name() -> None:
    graph = clean(export(pyramid(), Normalisation(), ("y",), 32))[0]
    model, done = quantize(graph, Quantize(float_layers=("*ConvTranspose*",)), CALIBRATION, 32)
    name = next(node.name for node in graph.graph.node if node.op_type == "ConvTranspose")
    assert f"in float: {name}" in done
    assert (count(model, "FusedConv"), count(model, "Conv"), assert_int8_kernels(model, [name])) == (1, 4, 4)
    for given, wanted in zip(run(model, CALIBRATION[0]), run(graph, CALIBRATION[0]), strict=True):
        assert spread(torch.from_numpy(given), torch.from_numpy(wanted)) < 0.01


@pytest.mark.parametrize(
    "layer",
    [
        nn.ConvTranspose2d(4, 6, 2, 2),
        nn.ConvTranspose2d(4, 6, (2, 3), (2, 3), bias=False),
    ],
)
def test_transposed_weights_are_rounded_by_channel_and_place(layer: nn.ConvTranspose2d) -> None:
    rounded = FakeQuantizedConvTranspose2d.of(layer)
    value = torch.rand(2, 4, 5, 3)
    rounded.exact = True
    torch.testing.assert_close(rounded(value), layer(value))
    rounded.exact = False
    steps = rounded.rounded() / (layer.weight.detach().abs().amax(0, keepdim=True) / 127)
    torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)
    assert not torch.equal(rounded.rounded(), layer.weight)
    torch.testing.assert_close(rounded(value), layer(value), atol=0.02, rtol=0)


@pytest.mark.parametrize(
    "layer",
    [
        nn.ConvTranspose2d(4, 6, 3, 2),
        nn.ConvTranspose2d(4, 6, 2, 2, padding=1),
        nn.ConvTranspose2d(4, 6, 2, 2, groups=2),
        nn.ConvTranspose2d(4, 6, 2, 2, dilation=2),
    ],
)
def test_transposed_layers_without_int8_kernels_keep_their_weights(layer: nn.Module) -> None:
    assert not FakeQuantizedConvTranspose2d.suits(layer)


@pytest.mark.parametrize(
    "step",
    [QAT, Quantize(method="qat", reduce_range=True), Quantize(method="qat", per_channel=False)],
    ids=["8-bit", "7-bit", "a scale a layer"],
)
def test_files_weights_are_those_that_training_saw(step: Quantize) -> None:
    """Dequantized, of every layer that is neither regrouped (the stem) nor merged (the heads' ends)."""
    network = prepared(plain_block_detector, step=step)
    model = int8_of(network, step)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    found: list[np.ndarray] = []
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and constants.get(node.input[0], np.empty(0)).dtype == np.int8:
            weight, scale = constants[node.input[0]].astype(np.float32), constants[node.input[1]]
            found.append(weight * scale.reshape(-1, *[1] * (weight.ndim - 1)))
    compared = 0
    for name, module in network.named_modules():
        if isinstance(module, FakeQuantizedConv2d) and name.startswith("blocks"):
            wanted = module.rounded().detach().numpy()
            same = [
                one for one in found if one.shape == wanted.shape and np.allclose(one, wanted, rtol=1e-5, atol=1e-7)
            ]
            assert same, name
            compared += 1
    assert compared == 12
