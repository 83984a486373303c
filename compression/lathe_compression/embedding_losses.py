"""What a student's embeddings lose against its teacher's, without any label.

Each vector is to lie where the teacher's lies, and the vectors of a batch are to lie to each other as the teacher's do:
that is what matching asks of them, and what a student that is too small for the first can still learn.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from lathe_compression.losses import Outputs

ANGLES_TO_DISTANCES = 2.0
"""How much angles weigh against distances, as in the paper."""
_TINY = 1e-6


def vector_loss(student: Outputs, teacher: Outputs) -> Tensor:
    """Of a batch of N×D vectors, how far each lies from its own target: `cosine_loss`."""
    (own,), (wanted,) = student.values(), teacher.values()
    return cosine_loss(own, wanted)


def relation_loss(student: Outputs, teacher: Outputs) -> Tensor:
    """Of a batch of N×D vectors, how they lie to each other: distances from two on, and angles from three."""
    (own,), (wanted,) = student.values(), teacher.values()
    value = own.new_zeros(())
    if len(own) > 1:
        value = value + distance_loss(own, wanted)
    if len(own) > 2:
        value = value + ANGLES_TO_DISTANCES * angle_loss(own, wanted)
    return value


def mean_direction(one: Tensor, other: Tensor) -> Tensor:
    """The mean of N×D unit vectors with others, of unit length itself.

    Of a picture and its mirror image it matches better than either: what a network sees in one of them alone is mostly
    chance.
    """
    return functional.normalize(one + other, dim=1)


def cosine_loss(own: Tensor, wanted: Tensor) -> Tensor:
    """1 less the mean cosine of N×D vectors to their own targets."""
    return 1 - functional.cosine_similarity(own, wanted, dim=1).mean()


def distance_loss(own: Tensor, wanted: Tensor) -> Tensor:
    """Relational distillation by distance (Park et al., arXiv 1904.05068, section 3.2.1): the distances of every two of
    the batch, each over the mean distance."""
    return functional.smooth_l1_loss(_distances(own), _distances(wanted))


def angle_loss(own: Tensor, wanted: Tensor) -> Tensor:
    """Relational distillation by angle (the same, section 3.2.2): the cosines of the corners of every three."""
    return functional.smooth_l1_loss(_corners(own), _corners(wanted))


def _distances(vectors: Tensor) -> Tensor:
    """Of every two of N: N (N − 1) / 2 numbers around 1."""
    first, second = torch.triu_indices(len(vectors), len(vectors), 1)
    # The root has no slope at 0, where two vectors are the same.
    distances = ((vectors[first] - vectors[second]).square().sum(1) + _TINY).sqrt()
    return distances / distances.mean().clamp(min=_TINY)


def _corners(vectors: Tensor) -> Tensor:
    """N × N × N: the cosine of the corner at each vector to every two others; 0 where two are the same one."""
    edges = vectors[None] - vectors[:, None]
    directions = edges / (edges.square().sum(2, keepdim=True) + _TINY).sqrt()
    return directions @ directions.transpose(1, 2)
