"""A detector that is not CenterFace: anchor-free, three classes, three strides, boxes decoded in the graph.

Inverted residuals with batch norms and SiLU, a feature pyramid with PReLU, heads that all levels share
(FCOS: Tian et al., arXiv 1904.01355). 0.15 M parameters, trained from nothing on `shapes_pictures`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.compression.shapes_pictures import CLASSES, MOST_SHAPES, draw

WEIGHTS_VARIABLE = "SHAPES_DETECTOR_WEIGHTS"
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
STRIDES = (8, 16, 32)
LARGEST_SIDES = (28.0, 56.0, float("inf"))
"""A level learns boxes whose longer side is at most this, and above the level's before."""

TRAINING_PICTURES = 9600
BATCH = 8
RATE = 3e-3
TRAINING_SEED, HELD_OUT_SEED = 1, 2


class InvertedResidual(nn.Module):
    """Widened, filtered channel by channel, narrowed (MobileNetV2: Sandler et al., arXiv 1801.04381)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        hidden = 4 * inputs
        self.keeps = stride == 1 and inputs == outputs
        self.layers = nn.Sequential(
            *(nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.SiLU()),
            *(nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False), nn.BatchNorm2d(hidden), nn.SiLU()),
            *(nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)),
        )

    def forward(self, planes: Tensor) -> Tensor:
        narrowed: Tensor = self.layers(planes)
        return planes + narrowed if self.keeps else narrowed


class ShapesDetector(nn.Module):
    """N × 3 × H × W, normalised by `MEAN` and `STD`, sides multiples of 32, to candidates of all cells.

    Gives `boxes` N × M × 4 (left, top, right, bottom in pixels) and `scores` N × M × 3 of 0 to 1, the
    cells of stride 8 first, row by row.
    """

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.SiLU())
        self.stages = nn.ModuleList(
            (
                nn.Sequential(InvertedResidual(16, 24, 2), InvertedResidual(24, 40, 2), InvertedResidual(40, 40, 1)),
                nn.Sequential(InvertedResidual(40, 64, 2), InvertedResidual(64, 64, 1)),
                nn.Sequential(InvertedResidual(64, 96, 2)),
            )
        )
        self.laterals = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in (40, 64, 96))
        self.necks = nn.ModuleList(_separable(width, nn.PReLU(width)) for _ in STRIDES)
        self.tower = nn.Sequential(_separable(width, nn.SiLU()), _separable(width, nn.SiLU()))
        self.classes = nn.Conv2d(width, len(CLASSES), 1)
        self.reaches = nn.Conv2d(width, 4, 1)
        nn.init.constant_(self.classes.bias, -4.0)  # nearly all cells are background

    def forward(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        boxes, logits = self.candidates(planes)
        return boxes, logits.sigmoid()

    def candidates(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes, and scores before the sigmoid, which training needs."""
        boxes, logits = [], []
        for (reaches, classes), stride in zip(self.maps(planes), STRIDES, strict=True):
            boxes.append(_decoded(reaches, stride))
            logits.append(classes.flatten(2).transpose(1, 2))
        return torch.cat(boxes, 1), torch.cat(logits, 1)

    def maps(self, planes: Tensor) -> list[tuple[Tensor, Tensor]]:
        """What the heads say at each stride: N × 4 × H × W for boxes, N × 3 × H × W for classes."""
        features, kept = self.stem(planes), []
        for stage, lateral in zip(self.stages, self.laterals, strict=True):
            features = stage(features)
            kept.append(lateral(features))
        merged = [kept[2]]
        for finer in (kept[1], kept[0]):
            merged.append(finer + functional.interpolate(merged[-1], scale_factor=2.0, mode="nearest"))
        seen = [self.tower(neck(level)) for neck, level in zip(self.necks, reversed(merged), strict=True)]
        return [(self.reaches(level), self.classes(level)) for level in seen]


class ShapesMaps(nn.Module):
    """The detector up to its heads, without the decoding: what its users may have as an ONNX file."""

    def __init__(self, detector: ShapesDetector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, planes: Tensor) -> tuple[Tensor, ...]:
        return tuple(plane for level in self.detector.maps(planes) for plane in level)


def shapes_detector() -> ShapesDetector:
    """The factory: the network with the weights in the file that `SHAPES_DETECTOR_WEIGHTS` names."""
    network = ShapesDetector()
    network.load_state_dict(torch.load(Path(os.environ[WEIGHTS_VARIABLE]), weights_only=True))
    return network.eval()


def train(pictures: int = TRAINING_PICTURES) -> ShapesDetector:
    """Trains from nothing, always alike; 9 600 pictures take one to two minutes on two cores."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ShapesDetector().train().to(memory_format=torch.channels_last)
        optimiser = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
        steps = pictures // BATCH
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps, pct_start=0.15)
        for planes, boxes, classes in _batches(steps):
            loss = detection_loss(*network.candidates(planes), planes.shape[2:], boxes, classes)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 10.0)
            optimiser.step()
            schedule.step()
    return network.eval()


def normalised(pixels: np.ndarray) -> Tensor:
    """Pixels, H × W × 3 or N × H × W × 3, as the planes that the network takes."""
    batch = torch.from_numpy(pixels.reshape(-1, *pixels.shape[-3:])).float()
    return ((batch - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)


def detection_loss(boxes: Tensor, logits: Tensor, size_hw: torch.Size, true: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy of the scores, focal for the background (Lin et al., arXiv 1708.02002), and one minus the
    generalized overlap of boxes that have a target.

    Args:
        true: N × G × 4; empty boxes fill up what a picture has not.
        classes: N × G.
    """
    owner, found = assign(size_hw, true)
    chosen = true.gather(1, owner[..., None].expand(-1, -1, 4))[found]
    wanted = functional.one_hot(classes.gather(1, owner), len(CLASSES)) * found[..., None]
    surprise = functional.binary_cross_entropy_with_logits(logits, wanted.float(), reduction="none")
    focal = torch.where(found[..., None], surprise, 0.75 * logits.sigmoid() ** 2 * surprise)
    positives = found.sum().clamp(min=1)
    return (focal.sum() + (1 - _generalized_overlap(boxes[found], chosen)).sum()) / positives


def assign(size_hw: torch.Size, true: Tensor) -> tuple[Tensor, Tensor]:
    """Which box each cell learns: the smallest of its level whose middle is within 1.5 cells.

    Returns:
        N × M: the box's place, and whether there is one.
    """
    centres, strides, least, most = _cells(size_hw)
    low, high = true[:, None, :, :2], true[:, None, :, 2:]
    points = centres[None, :, None, :]
    sides = high - low
    longer = sides.amax(dim=3)
    inside = ((points > low) & (points < high)).all(dim=3)
    near = ((points - (low + high) / 2).abs().amax(dim=3)) < 1.5 * strides[None, :, None]
    fits = (longer > least[None, :, None]) & (longer <= most[None, :, None])
    areas = sides.prod(dim=3).expand_as(inside).masked_fill(~(inside & near & fits), float("inf"))
    smallest, owner = areas.min(dim=2)
    return owner, smallest.isfinite()


def _separable(width: int, activation: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, 1, 1, groups=width, bias=False),
        nn.Conv2d(width, width, 1, bias=False),
        nn.BatchNorm2d(width),
        activation,
    )


def _decoded(reaches: Tensor, stride: int) -> Tensor:
    """N × H·W × 4 from logarithms of how far each cell's box goes left, up, right and down, in strides."""
    ones = torch.ones_like(reaches[:, :1])  # counted up, they are coordinates at any size
    centres = torch.cat((ones.cumsum(3), ones.cumsum(2)), 1) * stride - stride / 2
    distances = reaches.clamp(max=6.0).exp() * stride
    corners = torch.cat((centres - distances[:, :2], centres + distances[:, 2:]), 1)
    return corners.flatten(2).transpose(1, 2)


def _cells(size_hw: torch.Size) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Centres (x, y), strides and bounds of the longer side of all cells, in the order of the candidates."""
    columns: tuple[list[Tensor], ...] = ([], [], [], [])
    for stride, least, most in zip(STRIDES, (0.0, *LARGEST_SIDES[:-1]), LARGEST_SIDES, strict=True):
        rows, across = (torch.arange(side // stride) * stride + stride / 2 for side in size_hw)
        y, x = torch.meshgrid(rows, across, indexing="ij")
        points = torch.stack((x, y), dim=2).reshape(-1, 2)
        for column, value in zip(columns[1:], (stride, least, most), strict=True):
            column.append(torch.full((len(points),), float(value)))
        columns[0].append(points)
    centres, strides, bottoms, tops = (torch.cat(column) for column in columns)
    return centres, strides, bottoms, tops


def _batches(steps: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Planes, boxes and classes, drawn on another thread while the last batch is learnt."""

    def batch(step: int) -> tuple[Tensor, Tensor, Tensor]:
        drawn = [draw(number, TRAINING_SEED) for number in range(step * BATCH, (step + 1) * BATCH)]
        boxes, classes = np.zeros((BATCH, MOST_SHAPES, 4), np.float32), np.zeros((BATCH, MOST_SHAPES), np.int64)
        for place, one in enumerate(drawn):
            boxes[place, : len(one.xyxy)], classes[place, : len(one.xyxy)] = one.xyxy, one.class_id
        planes = normalised(np.stack([one.pixels for one in drawn]))
        return planes, torch.from_numpy(boxes), torch.from_numpy(classes)

    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(batch, 0)
        for step in range(1, steps + 1):
            ready = following.result()
            if step < steps:
                following = pool.submit(batch, step)
            yield ready


def _generalized_overlap(one: Tensor, other: Tensor) -> Tensor:
    """Of boxes row by row, −1 to 1 (Rezatofighi et al., arXiv 1902.09630)."""
    shared = (torch.minimum(one[:, 2:], other[:, 2:]) - torch.maximum(one[:, :2], other[:, :2])).clamp(min=0).prod(1)
    hull = (torch.maximum(one[:, 2:], other[:, 2:]) - torch.minimum(one[:, :2], other[:, :2])).prod(1)
    union = (one[:, 2:] - one[:, :2]).prod(1) + (other[:, 2:] - other[:, :2]).prod(1) - shared
    return shared / union - (hull - union) / hull
