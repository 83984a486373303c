"""Quantization as training sees it: values rounded to 8 bits on the way forward, gradients let through.

Straight-through estimation (Bengio et al., arXiv 1308.3432); the ends of an activation's range learn from
what they cut off (PACT, Choi et al., arXiv 1805.06085).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEVELS = 255
LARGEST_WEIGHT = 127


class FakeQuantize(nn.Module):
    """An activation in uint8 steps between a low and a high end.

    Attributes:
        observing: widen the range to what comes by, and change nothing.
        fixed: the range has been learnt, and stands in an exported graph as a constant.
    """

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Parameter(torch.zeros(()))
        self.high = nn.Parameter(torch.zeros(()))
        self.observing = True
        self.fixed = False

    def forward(self, value: Tensor) -> Tensor:
        if self.observing:
            with torch.no_grad():
                self.low.copy_(torch.minimum(self.low, value.min()))
                self.high.copy_(torch.maximum(self.high, value.max()))
            return value
        scale, zero_point = self.grid()
        if self.fixed:
            return torch.fake_quantize_per_tensor_affine(value, float(scale), int(zero_point), 0, LEVELS)
        # An end that lies at zero stays there: what a ReLU gives needs no room below.
        low = torch.where(self.low.detach() < 0, self.low, self.low.detach())
        inside = torch.clamp(value, low, self.high)
        return torch.fake_quantize_per_tensor_affine(inside, scale, zero_point, 0, LEVELS)

    def grid(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point: zero is always a step of the grid, so that padding is exact."""
        low, high = self.low.detach().clamp(max=0), self.high.detach().clamp(min=0)
        scale = ((high - low) / LEVELS).clamp(min=1e-8)
        return scale, (-low / scale).round().clamp(0, LEVELS).to(torch.int32)


class FakeQuantizedConv2d(nn.Conv2d):
    """A convolution whose weights are int8, symmetric, with a scale for each output channel.

    Attributes:
        exact: leave the weights as they are, as for export.
    """

    exact = False

    def forward(self, value: Tensor) -> Tensor:
        weight = self.weight if self.exact else self.rounded()
        given: Tensor = self._conv_forward(value, weight, self.bias)
        return given

    def rounded(self) -> Tensor:
        """The weights that INT8 will have."""
        largest = self.weight.detach().flatten(1).abs().amax(dim=1)
        scale = (largest / LARGEST_WEIGHT).clamp(min=1e-12)
        zero_points = torch.zeros_like(scale, dtype=torch.int32)
        weight: Tensor = torch.fake_quantize_per_channel_affine(
            self.weight, scale, zero_points, 0, -LARGEST_WEIGHT, LARGEST_WEIGHT
        )
        return weight

    @classmethod
    def of(cls, layer: nn.Conv2d) -> FakeQuantizedConv2d:
        """Takes over a convolution's weights and settings."""
        made = cls(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,  # type: ignore[arg-type]
            layer.stride,  # type: ignore[arg-type]
            layer.padding,  # type: ignore[arg-type]
            layer.dilation,  # type: ignore[arg-type]
            layer.groups,
            layer.bias is not None,
            layer.padding_mode,
        )
        made.weight, made.bias = layer.weight, layer.bias
        return made
