"""Quantization as training sees it: values rounded to 8 bits on the way forward, gradients let through.

Straight-through estimation (Bengio et al., arXiv 1308.3432); the ends of an activation's range learn from
what they cut off (PACT, Choi et al., arXiv 1805.06085).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from lathe_compression.ranges import histogram, percentile_range

LEVELS = 255
LARGEST_WEIGHT = 127
SMALLEST_SCALE = 1e-7


class FakeQuantize(nn.Module):
    """An activation in uint8 steps between a low and a high end.

    Attributes:
        observing: widen the range to what comes by, and change nothing.
        counts: while there are some: put what comes by into equal bins of the range, and change nothing.
        fixed: the range has been learnt, and stands in an exported graph as a constant.
    """

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Parameter(torch.zeros(()))
        self.high = nn.Parameter(torch.zeros(()))
        self.observing = True
        self.counts: NDArray[np.int64] | None = None
        self.fixed = False

    def forward(self, value: Tensor) -> Tensor:
        if self.observing:
            with torch.no_grad():
                self.low.copy_(torch.minimum(self.low, value.min()))
                self.high.copy_(torch.maximum(self.high, value.max()))
            return value
        if self.counts is not None:
            ends = (float(self.low), float(self.high))
            self.counts += histogram(value.detach().numpy(), ends)
            return value
        scale, zero_point = self.grid()
        if self.fixed:
            return torch.fake_quantize_per_tensor_affine(value, float(scale), int(zero_point), 0, LEVELS)
        # An end that lies at zero stays there: what a ReLU gives needs no room below.
        low = torch.where(self.low.detach() < 0, self.low, self.low.detach())
        inside = torch.clamp(value, low, self.high)
        return torch.fake_quantize_per_tensor_affine(inside, scale, zero_point, 0, LEVELS)

    def narrow(self, percentile: float) -> None:
        """Narrows the range to so many per cent of what was counted."""
        assert self.counts is not None
        low, high = percentile_range(self.counts, (float(self.low), float(self.high)), percentile)
        self.counts = None
        with torch.no_grad():
            self.low.fill_(min(low, 0.0))
            self.high.fill_(max(high, 0.0))

    def grid(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point: zero is always a step of the grid, so that padding is exact.

        Where nothing but zero was ever seen, a scale of 1 keeps the biases of the layers behind it, which are
        whole multiples of it, within 32 bits.
        """
        low, high = self.low.detach().clamp(max=0), self.high.detach().clamp(min=0)
        scale = (high - low) / LEVELS
        scale = torch.where(scale > SMALLEST_SCALE, scale, 1.0)
        return scale, (-low / scale).round().clamp(0, LEVELS).to(torch.int32)


@dataclass(frozen=True)
class WeightGrid:
    """How weights are rounded: symmetric, to whole numbers of a scale.

    Attributes:
        largest: whole number that the largest weight becomes.
        per_channel: a scale for each of a layer's channels; else one for the layer.
    """

    largest: int = LARGEST_WEIGHT
    per_channel: bool = True

    def rounded(self, weight: Tensor, axis: int) -> Tensor:
        """The weights that INT8 will have.

        Args:
            axis: that of the channels.
        """
        across = [dim for dim in range(weight.dim()) if dim != axis or not self.per_channel]
        scale = (weight.detach().abs().amax(dim=across) / self.largest).clamp(min=1e-12)
        zero_points = torch.zeros_like(scale, dtype=torch.int32)
        if not self.per_channel:
            return torch.fake_quantize_per_tensor_affine(weight, scale, zero_points, -self.largest, self.largest)
        rounded: Tensor = torch.fake_quantize_per_channel_affine(
            weight, scale, zero_points, axis, -self.largest, self.largest
        )
        return rounded


class RoundedWeights(nn.Module):
    """A layer whose weights are int8.

    Attributes:
        exact: leave the weights as they are, as for export.
    """

    exact = False
    grid = WeightGrid()

    @classmethod
    def of(cls, layer: nn.Module, grid: WeightGrid = WeightGrid()) -> Self:  # nothing changes it
        """Shares a layer's weights and settings."""
        made = cls.__new__(cls)
        made.__dict__ = dict(layer.__dict__)
        made.grid = grid
        return made


class FakeQuantizedConv2d(RoundedWeights, nn.Conv2d):
    """A scale for each output channel, where the grid has one for each."""

    def forward(self, value: Tensor) -> Tensor:
        weight = self.weight if self.exact else self.rounded()
        given: Tensor = self._conv_forward(value, weight, self.bias)
        return given

    def rounded(self) -> Tensor:
        """The weights that INT8 will have."""
        return self.grid.rounded(self.weight, 0)


class FakeQuantizedConvTranspose2d(RoundedWeights, nn.ConvTranspose2d):
    """Where the grid has a scale for each channel: one for each output channel and each place in a patch, as
    `upsample_by_convolution` makes the layer."""

    def forward(self, value: Tensor, output_size: list[int] | None = None) -> Tensor:
        weight = self.weight if self.exact else self.rounded()
        return functional.conv_transpose2d(value, weight, self.bias, self.stride)

    def rounded(self) -> Tensor:
        """The weights that INT8 will have."""
        return self.grid.rounded(self.weight.flatten(1), 1).view(self.weight.shape)

    @staticmethod
    def suits(layer: nn.Module) -> bool:
        """Whether a layer's patches do not overlap, so that there are INT8 kernels for it."""
        return (
            type(layer) is nn.ConvTranspose2d
            and layer.kernel_size == layer.stride
            and layer.groups == 1
            and not any((*layer.padding, *layer.output_padding))
            and set(layer.dilation) == {1}
        )
