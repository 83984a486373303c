"""What a student loses against boxes that people drew, beside what it loses against its teacher.

Only what is inside an area where every object has its box is held against a student; a scene that nobody
labelled costs nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from lathe_compression.labels import Boxes, Objects
from lathe_compression.losses import Outputs, generalized_overlap
from lathe_server.vision.decoders import HEATMAP_STRIDE

SPREAD = 0.54 / 6
"""Standard deviation of an object's peak in a heat-map, of its side (Liu et al., arXiv 1909.00700)."""
CANDIDATES = 9
"""That one object may have (Feng et al., arXiv 2108.07755: 13; small faces have fewer)."""
_TINY = 1e-6


class LabelLoss(Protocol):
    """Compares outputs by name with the objects of each scene; differentiable in the student's."""

    def __call__(self, student: Outputs, objects: Sequence[Objects]) -> Tensor: ...


def heatmap_labels(student: Outputs, objects: Sequence[Objects]) -> Tensor:
    """For heat-map detectors: focal loss with the penalty reduced around the centres (Law and Deng,
    arXiv 1808.01244), size and offset where the centres are.

    Args:
        student: `heatmap` N×1×H×W of 0 to 1, `scale` and `offset` N×2×H×W, as the decoder takes them.
    """
    heat = student["heatmap"][:, 0].clamp(_TINY, 1 - _TINY)
    height, width = heat.shape[1:]
    rows, columns = torch.arange(height).reshape(-1, 1), torch.arange(width).reshape(1, -1)
    peaks, counted = torch.zeros_like(heat), torch.zeros_like(heat)
    geometry = heat.new_zeros(())
    for number, one in enumerate(objects):
        counted[number] = _counts((columns + 0.5) * HEATMAP_STRIDE, (rows + 0.5) * HEATMAP_STRIDE, one)
        if not len(one.xyxy):
            continue
        boxes = torch.from_numpy(one.xyxy) / HEATMAP_STRIDE
        middles, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        cells = middles.long().clamp(max=middles.new_tensor([width - 1, height - 1]).long())
        column, row = cells.unbind(dim=1)
        across = ((columns - column[:, None, None]) / (sides[:, 0, None, None] * SPREAD)).square()
        down = ((rows - row[:, None, None]) / (sides[:, 1, None, None] * SPREAD)).square()
        peaks[number] = (torch.exp(-across / 2) * torch.exp(-down / 2)).amax(dim=0)
        counted[number, row, column] = 1
        for name, wanted in (("scale", sides.log()), ("offset", middles - cells - 0.5)):
            given = student[name][number, :, row, column].T
            geometry = geometry + functional.smooth_l1_loss(given, wanted.flip(1), reduction="sum", beta=0.1) / 2
    total = max(1, sum(len(one.xyxy) for one in objects))
    centres = peaks == 1
    found = -((1 - heat).square() * heat.log())[centres].sum()
    false = -((1 - peaks).pow(4) * heat.square() * (1 - heat).log() * counted)[~centres].sum()
    return (found + false + geometry) / total


def boxes_labels(student: Outputs, objects: Sequence[Objects]) -> Tensor:
    """For detectors that give decoded boxes: task-aligned assignment (Feng et al., arXiv 2108.07755): each
    object takes the candidates around its centre that score and fit best; the others are background.

    Args:
        student: `scores` N×M×C of 0 to 1, `boxes` N×M×4 (left, top, right, bottom).
    """
    total, weight = student["scores"].new_zeros(()), 0.0
    for scores, boxes, one in zip(student["scores"], student["boxes"], objects, strict=True):
        targets, mates = _assign(scores.detach(), boxes.detach(), one)
        middles = (boxes[:, :2] + boxes[:, 2:]).detach() / 2
        counted = torch.maximum(_counts(middles[:, 0], middles[:, 1], one), targets.amax(dim=1))
        divergence = functional.binary_cross_entropy(scores.clamp(_TINY, 1 - _TINY), targets, reduction="none")
        total = total + ((targets - scores.detach()).square() * divergence * (counted > 0)[:, None]).sum()
        best = targets.amax(dim=1)
        chosen = best > 0
        if chosen.any():
            wanted = torch.from_numpy(one.xyxy)[mates[chosen]]
            total = total + ((1 - generalized_overlap(boxes[chosen], wanted)) * best[chosen]).sum()
            weight += float(best.sum())
    return total / max(1.0, weight)


LABEL_LOSSES: Mapping[str, LabelLoss] = {"heatmap": heatmap_labels, "boxes": boxes_labels}
"""By the decoder's name."""


def _assign(scores: Tensor, boxes: Tensor, one: Objects) -> tuple[Tensor, Tensor]:
    """Wanted scores M×C, and for each candidate the object that it is compared with."""
    targets, mates = torch.zeros_like(scores), torch.zeros(len(scores), dtype=torch.long)
    if not len(one.xyxy):
        return targets, mates
    wanted, classes = torch.from_numpy(one.xyxy), torch.from_numpy(one.class_id)
    overlaps = generalized_overlap(boxes[:, None], wanted[None]).clamp(min=0)  # M × objects
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    around = ((middles[:, None] > wanted[:, :2]) & (middles[:, None] < wanted[:, 2:])).all(dim=2)
    fits = scores[:, classes].clamp(min=_TINY) * overlaps.pow(6) * around
    least = fits.topk(min(CANDIDATES, len(fits)), dim=0).values[-1]
    fits = torch.where(fits >= least, fits, 0.0)
    best, mates = fits.max(dim=1)
    # The best candidate of an object is to score as well as it overlaps, the others in proportion.
    worth = best / fits.amax(dim=0)[mates].clamp(min=1e-30) * overlaps.amax(dim=0)[mates]
    chosen = best > 0
    targets[chosen, classes[mates[chosen]]] = worth[chosen]
    return targets, mates


def _counts(x: Tensor, y: Tensor, one: Objects) -> Tensor:
    """1 where a point is in an area that is known and in none that is unsure."""

    def within(areas: Boxes) -> Tensor:
        left, top, right, bottom = torch.from_numpy(areas).T.reshape(4, -1, *[1] * x.dim())
        inside: Tensor = ((x >= left) & (x < right) & ((y >= top) & (y < bottom))).any(dim=0)
        return inside

    return (within(one.known) & ~within(one.unsure)).float()
