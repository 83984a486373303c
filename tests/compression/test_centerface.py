"""CenterFace from its package: the torch module equals the published file, and costs what it is said to."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from lathe.errors import NotFound
from lathe_compression.arithmetic import arithmetic
from lathe_compression.centerface import centerface, weights_file
from lathe_compression.export import Normalisation, export
from lathe_compression.hygiene import clean, fold_batch_norms, weights_are_constants
from tests.compression.graphs import run
from tests.compression.networks import OUTPUTS


@pytest.fixture(scope="module")
def network() -> nn.Module:
    try:
        weights_file()
    except NotFound as error:
        pytest.skip(error.message)
    return centerface()


@pytest.fixture(scope="module")
def published(network: nn.Module) -> onnx.ModelProto:
    """The file as shipped, but for its declared shape, 10×3×32×32, which nothing else fits."""
    model = onnx.load(weights_file())
    for value in (*model.graph.input, *model.graph.output):
        if value.name == "input.1" or value in model.graph.output:
            for place, side in enumerate(value.type.tensor_type.shape.dim):
                side.ClearField("dim_value")
                side.dim_param = f"{value.name}_{place}"
    return model


@pytest.mark.parametrize("size_wh", [(320, 256), (96, 160)])
def test_module_equals_the_published_file(
    network: nn.Module, published: onnx.ModelProto, size_wh: tuple[int, int]
) -> None:
    weights_are_constants(published)  # otherwise they would have to be fed
    planes = np.random.default_rng(0).uniform(0, 255, (1, 3, size_wh[1], size_wh[0])).astype(np.float32)
    with torch.no_grad():
        ours = network(torch.from_numpy(planes))
    for mine, theirs in zip(ours, run(published, planes), strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs, atol=1e-4)


def test_hygiene_makes_the_shipped_weights_constants(network: nn.Module) -> None:
    model = onnx.load(weights_file())
    assert len(model.graph.input) > 1
    assert weights_are_constants(model) == len(onnx.load(weights_file()).graph.input) - 1
    assert fold_batch_norms(model) > 0
    assert len(model.graph.input) == 1


def macs_by_hooks(network: nn.Module, size_wh: tuple[int, int]) -> int:
    """Multiply-accumulates of every convolution, counted while the network runs."""
    counted: list[int] = []

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        # A convolution sums for every output; a transposed one spreads every input.
        elements = inputs[0].numel() if isinstance(module, nn.ConvTranspose2d) else output.numel()
        counted.append(elements * module.get_parameter("weight")[0].numel())

    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        network(torch.zeros(1, 3, size_wh[1], size_wh[0]))
    for hook in hooks:
        hook.remove()
    return sum(counted)


@pytest.mark.parametrize(("size_wh", "expected"), [((320, 256), 493_742_080), ((320, 320), 617_177_600)])
def test_multiply_accumulates(network: nn.Module, size_wh: tuple[int, int], expected: int) -> None:
    cleaned, _ = clean(export(network, Normalisation(), OUTPUTS, 32))
    cost = arithmetic(cleaned, size_wh)
    assert cost.macs == macs_by_hooks(network, size_wh) == expected
    assert cost.parameters == pytest.approx(1.82e6, rel=1e-3)
    assert cost.sparsity == 0.0
