"""Distillation: a student learns from a teacher's answers and features, on frames that nobody need label.

Where frames do have labels, those are learnt from too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, fx, nn

from lathe.errors import InvalidInput
from lathe_compression.embedding_losses import mean_direction
from lathe_compression.label_losses import LabelLoss
from lathe_compression.labels import Objects
from lathe_compression.losses import FeatureKind, FeatureLoss, OutputLoss
from lathe_compression.student import Student
from lathe_compression.taps import block_outputs, shapes, with_taps
from lathe_compression.teacher_answers import TeacherAnswers


@dataclass(frozen=True)
class Losses:
    """How the parts of the loss weigh.

    Attributes:
        outputs: divergence of the answers.
        features: difference in the middle of the networks; 0 leaves it out.
        kind: how features are compared.
        labels: distance from the boxes that people drew, where frames have them; 0 leaves it out.
        relations: of an embedding network: how the vectors of a batch lie to each other, against where each lies;
            0 leaves it out.
        mirrored: of an embedding network: a picture and its mirror image are learnt from together, and both are to give
            the mean of the teacher's vectors of the two.
        at: names of the graph's nodes to compare; where none are given, the outputs of all blocks that both
            networks have at the same place in the grid.
    """

    outputs: float = 1.0
    features: float = 1.0
    kind: FeatureKind = "normalised"
    labels: float = 1.0
    relations: float = 1.0
    mirrored: bool = False
    at: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.outputs < 0 or self.features < 0 or not self.outputs + self.features:
            raise ValueError("outputs and features must not be negative, nor both 0")
        if self.labels < 0 or self.relations < 0:
            raise ValueError("labels and relations must not be negative")


@dataclass(frozen=True)
class Distill:
    """The step's settings.

    Attributes:
        pictures: training scenes in all.
        rate: as of `Schedule`.
        student: a new network in the place of the one at hand.
        freeze_norms: batch norms keep their statistics; a student that starts at random must not.
        losses: how the loss's parts weigh in this step, where that is not as in the others.
    """

    pictures: int
    rate: float = 0.002
    student: Student | None = None
    freeze_norms: bool = True
    losses: Losses | None = None

    def __post_init__(self) -> None:
        if self.pictures < 1 or not 0 < self.rate < 1:
            raise ValueError("pictures must be at least 1, and rate between 0 and 1")

    def describe(self) -> str:
        who = f" into a {self.student.describe()}" if self.student else ""
        return f"distill{who}: {self.pictures} scenes"


class BatchLoss(Protocol):
    """Of planes N×3×H×W, and of what is known of each where there are labels."""

    def __call__(self, planes: Tensor, objects: Sequence[Objects] = ()) -> Tensor: ...


class Lesson:
    """A teacher with what a student is to take from it.

    Args:
        teacher: its weights stay as they are.
        names: of its outputs, in order.
        probe: batches N×3×H×W that show how far the teacher's features spread.
        label_loss: where frames have labels.
        relation_loss: of embedding networks.
    """

    def __init__(
        self,
        teacher: fx.GraphModule,
        names: Sequence[str],
        output_loss: OutputLoss,
        losses: Losses,
        probe: Sequence[Tensor],
        label_loss: LabelLoss | None = None,
        relation_loss: OutputLoss | None = None,
    ) -> None:
        self._teacher = teacher
        self._names = tuple(names)
        self._output_loss = output_loss
        self._label_loss = label_loss
        self._relation_loss = relation_loss
        self._losses = losses
        self._planes = probe[0][:1]
        self._shapes = shapes(teacher, self._planes)
        self._probe = probe
        self._spreads: dict[str, Tensor] = {}
        self._answers: dict[tuple[tuple[str, ...], bool], TeacherAnswers] = {}

    def loss_for(self, student: fx.GraphModule, losses: Losses | None = None) -> tuple[BatchLoss, list[nn.Module]]:
        """The loss of a batch, and modules of it that learn with the student.

        Args:
            losses: in the place of the lesson's own.

        Raises:
            InvalidInput: features are to be compared where the networks differ in their grid.
        """
        losses = losses or self._losses
        taps = self._taps(student, losses) if losses.features else []
        widths = shapes(student, self._planes)
        features = FeatureLoss(losses.kind, [widths[name][1] for name in taps], [self._spread(name) for name in taps])
        label_loss = self._label_loss if losses.labels else None
        relation_loss = self._relation_loss if losses.relations else None
        answers = losses.outputs > 0 or label_loss is not None
        if not answers and not taps:
            raise InvalidInput("student and teacher have no feature in common, and the outputs weigh nothing")
        teacher = self._asked(losses) if taps or losses.outputs else None
        own = with_taps(student, taps, outputs=answers)

        def loss(planes: Tensor, objects: Sequence[Objects] = ()) -> Tensor:
            if losses.mirrored:
                planes = torch.cat([planes, planes.flip(3)])
            wanted, wanted_features = teacher(planes, taps) if teacher else ([], [])
            if losses.mirrored:
                wanted = [mean_direction(vectors, vectors.roll(len(vectors) // 2, 0)) for vectors in wanted]
            given, given_features = own(planes)
            value = planes.new_zeros(())
            named = dict(zip(self._names, given, strict=True)) if answers else {}
            if losses.outputs:
                targets = dict(zip(self._names, wanted, strict=True))
                value = value + losses.outputs * self._output_loss(named, targets)
                if relation_loss:
                    value = value + losses.outputs * losses.relations * relation_loss(named, targets)
            if label_loss and any(len(one.known) for one in objects):
                value = value + losses.labels * label_loss(named, objects)
            if taps:
                value = value + losses.features * features(given_features, wanted_features)
            return value

        return loss, [features]

    def _taps(self, student: fx.GraphModule, losses: Losses) -> list[str]:
        own = shapes(student, self._planes)

        def same_grid(name: str) -> bool:
            here, there = own.get(name, ()), self._shapes.get(name, ())
            return len(here) == len(there) == 4 and here[2:] == there[2:]

        for name in losses.at:
            if not same_grid(name):
                raise InvalidInput(f"student and teacher have no feature {name} of the same height and width")
        shared = [name for name in block_outputs(self._teacher) if name in block_outputs(student) and same_grid(name)]
        return list(losses.at) or shared

    def _asked(self, losses: Losses) -> TeacherAnswers:
        """The teacher, asked for all that such losses could compare, whatever the student."""
        taps = (losses.at or tuple(block_outputs(self._teacher))) if losses.features else ()
        key = taps, losses.outputs > 0
        if key not in self._answers:
            self._answers[key] = TeacherAnswers(self._teacher, taps, self._planes, outputs=losses.outputs > 0)
        return self._answers[key]

    def _spread(self, name: str) -> Tensor:
        """Standard deviation of every channel of one of the teacher's features."""
        if name not in self._spreads:
            self._spreads |= _spreads(self._teacher, [*block_outputs(self._teacher), name], self._probe)
        return self._spreads[name]


def _spreads(teacher: fx.GraphModule, names: Sequence[str], probe: Sequence[Tensor]) -> dict[str, Tensor]:
    """Standard deviation of every channel of every feature over all the cells of the batches."""
    tapped = with_taps(teacher, names).eval()
    sums: dict[str, list[Tensor]] = {}
    for planes in probe:
        with torch.no_grad():
            _, features = tapped(planes)
        for name, feature in zip(names, features, strict=True):
            cells = feature.double().transpose(0, 1).flatten(1)
            sums.setdefault(name, []).append(torch.stack([cells.mean(1), cells.square().mean(1)]))
    moments = {name: torch.stack(parts).mean(0) for name, parts in sums.items()}
    return {name: (second - first.square()).clamp(min=0).sqrt().float() for name, (first, second) in moments.items()}
