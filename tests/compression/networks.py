"""Small torch networks with the parts that real detectors have: what the tests compress."""

from __future__ import annotations

import copy

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


class InvertedResidual(nn.Module):
    """Expand, depthwise, project; the sum where the shapes allow it."""

    def __init__(self, inputs: int, outputs: int, hidden: int, stride: int = 1, *, norms: bool = True) -> None:
        super().__init__()
        self.expand = nn.Conv2d(inputs, hidden, 1, bias=not norms)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=not norms)
        self.project = nn.Conv2d(hidden, outputs, 1, bias=not norms)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in (hidden, hidden, outputs)) if norms else None
        self.relus = nn.ModuleList([nn.ReLU(), nn.ReLU()])
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.relus[0](self._normed(0, self.expand(features)))
        hidden = self.relus[1](self._normed(1, self.depthwise(hidden)))
        made = self._normed(2, self.project(hidden))
        return features + made if self.is_residual else made

    def _normed(self, place: int, value: Tensor) -> Tensor:
        normed: Tensor = self.norms[place](value) if self.norms else value
        return normed


class BlockDetector(nn.Module):
    """MobileNetV2 in small: a stem, four inverted residual blocks (the first and last with sums), heads with a middle.

    The second block's projection and the third's expansion have nothing between them but norms.
    """

    def __init__(self, *, norms: bool = True) -> None:
        super().__init__()
        norm = [nn.BatchNorm2d(16)] if norms else []
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=not norms), *norm, nn.ReLU())
        self.blocks = nn.Sequential(
            InvertedResidual(16, 16, 32, norms=norms),
            InvertedResidual(16, 16, 32, 2, norms=norms),
            InvertedResidual(16, 24, 32, norms=norms),
            InvertedResidual(24, 24, 48, norms=norms),
        )
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Conv2d(24, 16, 1), nn.ReLU(), nn.Conv2d(16, channels, 1)) for channels in (1, 2, 2, 10)
        )

    def forward(self, planes: Tensor) -> tuple[Tensor, ...]:
        features = self.blocks(self.stem(planes))
        heat, *others = (head(features) for head in self.heads)
        return (torch.sigmoid(heat), *others)


class BranchingDetector(TinyDetector):
    """No graph stands for it: its forward looks at values."""

    def forward(self, planes: Tensor) -> tuple[Tensor, ...]:
        return super().forward(planes if planes.mean() > 0 else -planes)


def block_detector() -> nn.Module:
    """The factory; on pixels of 0 to 255 its features are of the order of 1."""
    return _settled(BlockDetector())


def plain_block_detector() -> nn.Module:
    """Without batch norms, as a network that comes from an ONNX file."""
    torch.manual_seed(0)
    network = BlockDetector(norms=False)
    with torch.no_grad():
        network.stem[0].weight /= 64
    return network.eval()


def branching_detector() -> nn.Module:
    return BranchingDetector().eval()


def _settled(network: nn.Module) -> nn.Module:
    """Weights that are always the same, and batch norms as after a training."""
    torch.manual_seed(0)
    for module in network.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            module.momentum = None  # the mean over all batches
    network.train()
    with torch.no_grad():
        for _ in range(4):
            network(torch.rand(4, 3, 64, 96) * 255)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # a channel that hardly moves would be blown up
            module.running_var.clamp_(min=float(module.running_var.mean()) / 4)
    return network.eval()


def shaken(network: nn.Module, seed: int = 1) -> nn.Module:
    """The same layers with other weights."""
    torch.manual_seed(seed)
    other = copy.deepcopy(network)
    with torch.no_grad():
        for weight in other.parameters():
            weight += 0.2 * weight.square().mean().sqrt() * torch.randn_like(weight)
    return other


def planes(batch: int = 2, height: int = 64, width: int = 96, seed: int = 0) -> Tensor:
    """Pictures of 0 to 255 as networks take them."""
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 255


class Spike(nn.Module):
    """A square root, whose gradient at zero is no number: the first step of a training ruins all weights."""

    def forward(self, value: Tensor) -> Tensor:
        return torch.sqrt(torch.relu(value) * value)


class UnsteadyDetector(TinyDetector):
    """Its answers are numbers, but not their gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.spike = Spike()

    def forward(self, planes: Tensor) -> tuple[Tensor, ...]:
        heat, *others = super().forward(planes)
        return (heat * torch.sigmoid(self.spike(others[0][:, :1])), *others)


def unsteady_detector() -> nn.Module:
    torch.manual_seed(0)
    return UnsteadyDetector().eval()


class TinyEmbedder(nn.Module):
    """A residual network to 16 numbers, of 32×32 pixels and no other size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU())
        self.first, self.bend, self.second = nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1)
        self.down = nn.Sequential(nn.Conv2d(16, 24, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(24 * 64, 16))

    def forward(self, planes: Tensor) -> Tensor:
        features = self.stem(planes)
        embedding: Tensor = self.down(features + self.second(self.bend(self.first(features))))
        return embedding


def tiny_embedder() -> nn.Module:
    torch.manual_seed(0)
    return TinyEmbedder().eval()
