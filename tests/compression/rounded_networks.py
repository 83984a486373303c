"""Networks with fake quantizers in place, and what the tests of them look at."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, fx, nn

from lathe_compression import qat
from lathe_compression.fake_quantize import (
    FakeQuantize,
)
from lathe_compression.quantize import Quantize
from lathe_compression.taps import traced
from tests.compression.graphs import pixels
from tests.compression.networks import block_detector, plain_block_detector, tiny_detector

CALIBRATION = [pixels(64, 96, seed=number) for number in range(4)]
FACTORIES = [tiny_detector, block_detector, plain_block_detector]


def as_planes(canvas: np.ndarray) -> Tensor:
    return torch.from_numpy(canvas).permute(0, 3, 1, 2).float()


QAT = Quantize(method="qat")


def prepared(factory: Callable[[], nn.Module], *, observed: bool = True, step: Quantize = QAT) -> fx.GraphModule:
    network = qat.prepare(traced(factory()), step.weight_grid)
    if observed:
        qat.observe(network, lambda: map(as_planes, CALIBRATION))
    return network


def quantizers(network: nn.Module) -> dict[str, FakeQuantize]:
    return {name: module for name, module in network.named_modules() if isinstance(module, FakeQuantize)}


def spread(given: Tensor, wanted: Tensor) -> float:
    """Root mean square of the difference over the range."""
    return float((given - wanted).square().mean().sqrt() / max(1.0, float(wanted.max() - wanted.min())))
