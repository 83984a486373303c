"""Small torch networks with the parts that real detectors have: what the tests compress."""

from __future__ import annotations

import onnx
import torch
from torch import Tensor, nn

from lathe_compression.export import Normalisation, export

OUTPUTS = ("heatmap", "scale", "offset", "landmarks")


class TinyDetector(nn.Module):
    """A heat-map detector: a stride-2 stem, a depthwise block, one level of a feature pyramid."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(16, 16, 3, 2, 1, groups=16), nn.ReLU(), nn.Conv2d(16, 16, 1))
        self.deep = nn.Sequential(nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU())
        self.up = nn.Sequential(nn.ConvTranspose2d(16, 16, 2, 2, groups=4, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.heads = nn.ModuleList(nn.Conv2d(16, channels, 1) for channels in (1, 2, 2, 10))

    def forward(self, planes: Tensor) -> tuple[Tensor, ...]:
        features = self.down(self.stem(planes))
        features = features + self.up(self.deep(features))
        heat, *others = (head(features) for head in self.heads)
        return (torch.sigmoid(heat), *others)


def tiny_detector() -> nn.Module:
    """The factory, always with the same weights; its batch norms are no identities."""
    torch.manual_seed(0)
    network = TinyDetector()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            module.running_mean = torch.randn(module.num_features)
            module.running_var = torch.rand(module.num_features) + 0.5
    return network.eval()


def not_a_network() -> str:
    return "weights"


def exported(normalisation: Normalisation | None = None) -> onnx.ModelProto:
    """The tiny detector as a graph with uint8 input, before hygiene."""
    return export(tiny_detector(), normalisation or Normalisation(), OUTPUTS, 32)
