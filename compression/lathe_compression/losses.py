"""What a student loses against its teacher on one batch, without any label.

Every loss maps the student's and the teacher's answers to one number, so a recipe can weigh them. The
teacher's answers are the targets: soft ones, dense over the whole grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

Outputs = Mapping[str, Tensor]
FeatureKind = Literal["normalised", "channelwise", "relation"]
LEAST_SPREAD = 0.2
_TINY = 1e-6


class OutputLoss(Protocol):
    """Compares outputs by name; differentiable in the student's."""

    def __call__(self, student: Outputs, teacher: Outputs) -> Tensor: ...


def heatmap_loss(student: Outputs, teacher: Outputs) -> Tensor:
    """For heat-map detectors: divergence of the heat-maps, and geometry where the teacher sees an object.

    Args:
        student, teacher: `heatmap` N×1×H×W of 0 to 1, and others N×C×H×W at the same cells: sizes by
            logarithm, offsets in cells, landmarks in boxes.
    """
    heat = teacher["heatmap"]
    parts = [_binary_divergence(student["heatmap"], heat).sum() / (heat.sum() + 1)]
    sure = torch.where(heat > 0.05, heat, 0.0)
    for name, target in teacher.items():
        if name != "heatmap":
            error = functional.smooth_l1_loss(student[name], target, reduction="none", beta=0.1)
            parts.append((error.mean(dim=1, keepdim=True) * sure).sum() / (sure.sum() + _TINY))
    return torch.stack(parts).sum()


def boxes_loss(student: Outputs, teacher: Outputs) -> Tensor:
    """For detectors that give decoded boxes: the same candidate of both is compared.

    Divergence of the scores, and localization distillation (Zheng et al., arXiv 2102.12252) in its plainest
    form: generalized overlap (Rezatofighi et al., arXiv 1902.09630) where the teacher is confident.

    Args:
        student, teacher: `scores` N×M×C of 0 to 1, `boxes` N×M×4 (left, top, right, bottom).
    """
    scores = teacher["scores"]
    divergence = _binary_divergence(student["scores"], scores).sum() / (scores.sum() + 1)
    best = scores.amax(dim=2)
    sure = torch.where(best > 0.05, best, 0.0)
    lost = (1 - generalized_overlap(student["boxes"], teacher["boxes"])) * sure
    return divergence + lost.sum() / (sure.sum() + _TINY)


OUTPUT_LOSSES: Mapping[str, OutputLoss] = {"heatmap": heatmap_loss, "boxes": boxes_loss}
"""By the decoder's name."""


class FeatureLoss(nn.Module):
    """Mean over the tapped features of their loss. A student of another width gets a 1×1 convolution in
    front (FitNets: Romero et al., arXiv 1412.6550), which is trained with it and then dropped.

    Args:
        kind: `normalised`, mean square error over the variance of the teacher's channel; `channelwise`,
            divergence of each channel's spatial softmax (Shu et al., arXiv 2011.13256); `relation`,
            difference of the similarities of the grid's rows of cells (Tung and Mori, arXiv 1907.09682).
        widths: the student's channels at each tap.
        spreads: the teacher's standard deviation at each tap, channel by channel.
    """

    def __init__(self, kind: FeatureKind, widths: Sequence[int], spreads: Sequence[Tensor]) -> None:
        super().__init__()
        self._loss = FEATURE_LOSSES[kind]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # always the same start, whatever was drawn before
            self.adapters = nn.ModuleList(
                nn.Identity() if own == len(spread) else nn.Conv2d(own, len(spread), 1)
                for own, spread in zip(widths, spreads, strict=True)
            )
        # A channel that hardly ever moves carries nothing: its error counts by the mean spread.
        self._scales = [1 / (spread + LEAST_SPREAD * spread.mean() + _TINY).reshape(1, -1, 1, 1) for spread in spreads]

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        pairs = zip(self.adapters, self._scales, student, teacher, strict=True)
        losses = [self._loss(adapter(own) * scale, other * scale) for adapter, scale, own, other in pairs]
        return torch.stack(losses).mean()


def _normalised(own: Tensor, other: Tensor) -> Tensor:
    return functional.mse_loss(own, other)


def _channelwise(own: Tensor, other: Tensor, temperature: float = 4.0) -> Tensor:
    cells = other.shape[2] * other.shape[3]
    logs = functional.log_softmax(own.flatten(2) / temperature, dim=2)
    targets = functional.log_softmax(other.flatten(2) / temperature, dim=2)
    return functional.kl_div(logs, targets, reduction="sum", log_target=True) / (own.numel() / cells)


def _relation(own: Tensor, other: Tensor) -> Tensor:
    return (_similarities(own) - _similarities(other)).square().mean()


def _similarities(feature: Tensor) -> Tensor:
    """Cosine of every two rows of cells in one picture: N × H × H."""
    rows = functional.normalize(feature.transpose(1, 2).flatten(2), dim=2)
    return rows @ rows.transpose(1, 2)


FEATURE_LOSSES = {"normalised": _normalised, "channelwise": _channelwise, "relation": _relation}


def _binary_divergence(own: Tensor, target: Tensor) -> Tensor:
    """Kullback-Leibler divergence of two Bernoulli probabilities, element by element; 0 where they agree."""
    own, target = own.clamp(_TINY, 1 - _TINY), target.clamp(_TINY, 1 - _TINY)
    return target * (target.log() - own.log()) + (1 - target) * ((1 - target).log() - (1 - own).log())


def generalized_overlap(one: Tensor, other: Tensor) -> Tensor:
    """Of boxes …×4 (left, top, right, bottom), broadcast: -1 to 1 (Rezatofighi et al., arXiv 1902.09630)."""
    shared = (torch.minimum(one[..., 2:], other[..., 2:]) - torch.maximum(one[..., :2], other[..., :2])).clamp(min=0)
    hull = (torch.maximum(one[..., 2:], other[..., 2:]) - torch.minimum(one[..., :2], other[..., :2])).clamp(min=0)
    intersection, enclosing = shared.prod(dim=-1), hull.prod(dim=-1).clamp(min=_TINY)
    areas = [(boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1) for boxes in (one, other)]
    union = (areas[0] + areas[1] - intersection).clamp(min=_TINY)
    overlap = torch.where(union > _TINY, intersection / union, 1.0)  # of two boxes without area nothing is lost
    return overlap - (enclosing - union).clamp(min=0) / enclosing
