"""A recipe: one TOML file that says how the variants of one model are made."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from lathe.card import check_name
from lathe.config import load, nearest
from lathe.errors import InvalidInput
from lathe.repository import check_variant_name
from lathe_compression.contract import Model, Verification
from lathe_compression.distill import Distill, Losses
from lathe_compression.pictures import PictureSet
from lathe_compression.prune import Prune
from lathe_compression.quantize import Quantize
from lathe_compression.scenes import Augment

TEACHER = "teacher"
"""In the place of a file of labels."""


@dataclass(frozen=True)
class FrameSet:
    """Unlabelled frames to train on.

    Attributes:
        pictures, every: as of `PictureSet`.
        weight: how often one of these is drawn, against the other sets.
        labels: COCO file of boxes that people drew in them, where there is one; its categories, by their
            ids, are the model's classes in order. `teacher` stands for what the teacher finds in the whole frames.
    """

    pictures: tuple[str, ...]
    every: int = 10
    weight: float = 1.0
    labels: str = ""

    def __post_init__(self) -> None:
        self.as_pictures()
        if self.weight <= 0:
            raise ValueError("weight must be above 0")

    def as_pictures(self) -> PictureSet:
        return PictureSet(self.pictures, self.every)

    @property
    def label_file(self) -> str:
        """Empty where people drew nothing."""
        return "" if self.labels == TEACHER else self.labels


@dataclass(frozen=True)
class Training:
    """What all steps that train have in common.

    Attributes:
        size: width and height of training scenes; the serving size where it is not given.
        batch: scenes at a time.
        seed: of everything that is drawn at random.
    """

    size: tuple[int, int] | None = None
    batch: int = 8
    seed: int = 1
    augment: Augment = field(default_factory=Augment)
    losses: Losses = field(default_factory=Losses)

    def __post_init__(self) -> None:
        if self.batch < 1 or (self.size is not None and min(self.size) < 1):
            raise ValueError("batch and size must be at least 1")


@dataclass(frozen=True)
class Step:
    """One step of a variant: exactly one of its fields."""

    distill: Distill | None = None
    prune: Prune | None = None
    quantize: Quantize | None = None

    def __post_init__(self) -> None:
        if sum(kind is not None for kind in (self.distill, self.prune, self.quantize)) != 1:
            raise ValueError("a step is exactly one of distill, prune and quantize")

    @property
    def settings(self) -> Distill | Prune | Quantize:
        """The one that it is."""
        chosen = self.distill or self.prune or self.quantize
        assert chosen is not None
        return chosen

    @property
    def kind(self) -> str:
        """The name of the field that it is."""
        return next(field.name for field in fields(self) if getattr(self, field.name) is not None)

    @property
    def trains(self) -> bool:
        """Whether it looks at the training frames."""
        return self.quantize is None or self.quantize.method == "qat"

    @property
    def calibrates(self) -> bool:
        """Whether it looks at the calibration pictures."""
        return self.quantize is not None or (self.prune is not None and self.prune.measured_in == "int8")

    def describe(self) -> str:
        return self.settings.describe()


@dataclass(frozen=True)
class Variant:
    """A variant: its parent's network (the teacher's where there is none) after the steps.

    Attributes:
        recommended: what a server answers with where nobody has set a route.
    """

    name: str
    parent: str = ""
    steps: tuple[Step, ...] = ()
    recommended: bool = False


@dataclass(frozen=True)
class Recipe:
    """All of it. Variants are made in order; the first is the reference for quality and speed.

    Attributes:
        calibration: pictures that set the ranges of activations.
        evaluation: others, on which agreement with the reference is measured for the card.
        frames: unlabelled frames for the steps that train.
        verification: of an embedding network: what its thresholds are measured on.
    """

    model: Model
    variant: tuple[Variant, ...]
    calibration: tuple[PictureSet, ...] = ()
    evaluation: tuple[PictureSet, ...] = ()
    frames: tuple[FrameSet, ...] = ()
    training: Training = field(default_factory=Training)
    verification: Verification | None = None

    def __post_init__(self) -> None:
        if self.model.embeds:
            self._check_embedding()
        else:
            self._check_detection()
        if not self.variant:
            raise ValueError("a recipe needs at least one [[variant]]")
        if self.variant[0].steps:
            raise ValueError("the first variant is the reference: it has no steps")
        known: dict[str, tuple[Step, ...]] = {}
        for variant in self.variant:
            if variant.name in known:
                raise ValueError(f'two variants are named "{variant.name}"')
            if variant.parent and variant.parent not in known:
                raise ValueError(
                    f'the parent "{variant.parent}" of "{variant.name}" is no earlier variant'
                    f"{nearest(variant.parent, known)}"
                )
            steps = known[variant.name] = known.get(variant.parent, ()) + variant.steps
            if any(step.quantize for step in steps[:-1]):
                raise ValueError(f'in "{variant.name}" a step follows quantization, which must be the last')
        steps = tuple(step for variant in self.variant for step in variant.steps)
        if any(step.calibrates for step in steps) and not self.calibration:
            raise ValueError("quantizing, and latency in INT8, need [[calibration]] pictures")
        if any(step.trains for step in steps) and not self.frames:
            raise ValueError("distilling, pruning and quantization-aware training need [[frames]] to learn from")
        size, multiple = self.training.size, self.model.multiple
        if size is not None and any(side % multiple for side in size):
            raise ValueError(f"the size of training scenes must be multiples of {multiple}")

    def _check_embedding(self) -> None:
        if self.training.size is not None:
            raise ValueError("an embedding network learns at its serving_size; training has no size of its own")
        if any(one.labels for one in self.frames):
            raise ValueError("labels are of the task detection")
        if any(one.grid > 1 for one in self.calibration):
            raise ValueError("grid is of the task detection: an embedding network sees one face at a time")
        self._refuse_augment(("cells", "zoom"), "detection")

    def _check_detection(self) -> None:
        if self.verification:
            raise ValueError("[verification] is of the task embedding")
        self._refuse_augment(("scale", "turn", "shift", "mix", "bend"), "embedding")
        steps = [step.distill or step.prune for variant in self.variant for step in variant.steps]
        for losses in (self.training.losses, *(step.losses for step in steps if step)):
            for name in ("relations", "mirrored"):
                if losses and getattr(losses, name) != getattr(Losses(), name):
                    raise ValueError(f"losses.{name} is of the task embedding")

    def _refuse_augment(self, names: Sequence[str], task: str) -> None:
        """Raises ValueError where one of them is set, which only another task knows."""
        for name in names:
            if getattr(self.training.augment, name) != getattr(Augment(), name):
                raise ValueError(f"augment.{name} is of the task {task}")


@dataclass(frozen=True)
class RecipeFile:
    """A recipe with the folder its paths are relative to and the digest of its text."""

    recipe: Recipe
    folder: Path
    sha256: str


def load_recipe(path: Path) -> RecipeFile:
    """Reads and checks a recipe.

    Raises:
        NotFound: no such file.
        InvalidInput: an unknown key, a wrong type, or a plan that cannot be; names the line.
    """
    recipe = load(Recipe, path)
    try:
        check_name(recipe.model.name, "model")
        for variant in recipe.variant:
            check_variant_name(variant.name)
    except InvalidInput as error:
        raise InvalidInput(f"{path.name}: {error.message}") from error
    return RecipeFile(recipe, path.parent, hashlib.sha256(path.read_bytes()).hexdigest())
