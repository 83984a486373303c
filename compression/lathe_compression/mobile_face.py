"""A small face embedding network to learn from a large one: inverted residuals, as in MobileFaceNet (Chen et al.,
arXiv 1804.07573), laid out for INT8.

MobileFaceNet as published, at 150×150, is only 1.6 times as fast in INT8 as dlib's network is in float, because the
kernels of depthwise convolutions gain little from INT8, least of all on large grids. So the first convolution goes to
a quarter of the size at once, and the expansion on the larger grids is one dense convolution (Fused-MBConv of
EfficientNetV2: Tan and Le, arXiv 2104.00298). It rectifies by ReLU, which an INT8 convolution does by the way.
"""

from __future__ import annotations

from torch import Tensor, nn

DIMENSIONS = 128


class InvertedResidual(nn.Module):
    """Expand, look around, project; its input is added where the shapes allow it.

    Args:
        fused: expands and looks around in one dense 3×3 convolution, else in a 1×1 and a depthwise one.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, stride: int = 1, *, fused: bool) -> None:
        super().__init__()
        if fused:
            wide = [*_convolution(inputs, hidden, 3, stride), nn.ReLU()]
        else:
            wide = [*_convolution(inputs, hidden, 1), nn.ReLU()]
            wide += [*_convolution(hidden, hidden, 3, stride, groups=hidden), nn.ReLU()]
        self.layers = nn.Sequential(*wide, *_convolution(hidden, outputs, 1))
        self.adds = stride == 1 and inputs == outputs

    def forward(self, planes: Tensor) -> Tensor:
        made: Tensor = self.layers(planes)
        return planes + made if self.adds else made


class MobileFace(nn.Module):
    """The network; of 150×150 pixels it makes grids of 37, 19, 10 and 5 cells.

    Args:
        width: of all layers, against the published ones.
        dimensions: of the embedding, as of the teacher's.
    """

    def __init__(self, width: float = 1.0, dimensions: int = DIMENSIONS) -> None:
        super().__init__()

        def wide(channels: int) -> int:
            return max(8, round(channels * width / 8) * 8)

        first, near, middle, far, last = (wide(channels) for channels in (32, 48, 96, 160, 256))
        self.stem = nn.Sequential(*_convolution(3, first, 6, 4, padding=0), nn.ReLU())
        self.blocks = nn.Sequential(
            InvertedResidual(first, wide(64), near, 2, fused=True),
            *(InvertedResidual(near, wide(64), near, fused=True) for _ in range(2)),
            InvertedResidual(near, wide(96), middle, 2, fused=True),
            *(InvertedResidual(middle, wide(96), middle, fused=True) for _ in range(3)),
            InvertedResidual(middle, wide(256), far, 2, fused=False),
            *(InvertedResidual(far, wide(320), far, fused=False) for _ in range(2)),
        )
        # Each place of the last grid is weighed by itself, since an aligned face has its parts there.
        self.weigh = nn.Sequential(
            *_convolution(far, last, 1), nn.ReLU(), *_convolution(last, last, 5, padding=0, groups=last)
        )
        self.flat = nn.Flatten()
        self.embedding = nn.Linear(last, dimensions)

    def forward(self, planes: Tensor) -> Tensor:
        embedding: Tensor = self.embedding(self.flat(self.weigh(self.blocks(self.stem(planes)))))
        return embedding


def mobile_face() -> nn.Module:
    """0.78 M parameters and 77 M multiply-accumulates at 150×150; it starts at random, so its batch norms must learn:
    `distill = { student = { factory = "lathe_compression.mobile_face:mobile_face" }, freeze_norms = false, … }`."""
    return MobileFace()


def half_mobile_face() -> nn.Module:
    """The same with half of the channels everywhere."""
    return MobileFace(0.5)


def _convolution(
    inputs: int, outputs: int, side: int, stride: int = 1, *, padding: int | None = None, groups: int = 1
) -> list[nn.Module]:
    padding = side // 2 if padding is None else padding
    convolution = nn.Conv2d(inputs, outputs, side, stride, padding, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]
