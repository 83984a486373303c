"""What a recipe asks for, as tasks: a pure decision. Steps that two variants share are one task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Any

from lathe.config import nearest
from lathe.errors import InvalidInput
from lathe_compression.recipe import Recipe, Step, Variant
from lathe_compression.store import digest

REVISIONS = {"distill": 2, "prune": 3, "quantize": 4}
"""Of each kind of step; one goes up when the same settings come to mean something else."""

EMBEDDING_REVISION = 1
"""The same for all steps of embedding networks: their losses, their scenes, their watch."""


@dataclass(frozen=True)
class Task:
    """One step, applied to what another task or the teacher gave.

    Attributes:
        key: digest of all that its result depends on.
        name: for people: the variant that first asks for it, and the step's place in it.
    """

    key: str
    name: str
    step: Step
    parent: Task | None

    @property
    def chain(self) -> list[Task]:
        """All tasks from the teacher to this one."""
        return [*(self.parent.chain if self.parent else []), self]


@dataclass(frozen=True)
class Inputs:
    """Digests of what steps read.

    Attributes:
        teacher: of the network's weights and structure.
        frames: of the frames that train.
        calibration: of the pictures that calibrate.
        students: of the untrained networks that factories make, by the factory's name.
        tools: versions of the libraries.
    """

    teacher: str
    frames: str
    calibration: str
    students: Mapping[str, str]
    tools: Sequence[str]


def plan(recipe: Recipe, inputs: Inputs) -> dict[str, Task | None]:
    """The last task of every variant; None for a variant that is the teacher itself."""
    ends: dict[str, Task | None] = {}
    known: dict[str, Task] = {}
    for variant in recipe.variant:
        task = ends.get(variant.parent)
        for place, step in enumerate(variant.steps, 1):
            key = _key(recipe, inputs, step, task)
            if key not in known:
                known[key] = Task(key, f"{variant.name}, step {place}", step, task)
            task = known[key]
        ends[variant.name] = task
    return ends


def chosen_variants(recipe: Recipe, only: Sequence[str]) -> list[Variant]:
    """The variants asked for, and the reference, which measures them; all where none is named.

    Raises:
        InvalidInput: a name that the recipe does not have.
    """
    names = [variant.name for variant in recipe.variant]
    for name in only:
        if name not in names:
            raise InvalidInput(f'the recipe has no variant "{name}"{nearest(name, names)}')
    return [variant for place, variant in enumerate(recipe.variant) if not only or place == 0 or variant.name in only]


def essence(settings: Any) -> Any:
    """Settings without those that are at their default: a new one does not make finished work unknown."""
    if is_dataclass(settings):
        told = {field.name: getattr(settings, field.name) for field in fields(settings)}
        return {
            field.name: essence(told[field.name]) for field in fields(settings) if told[field.name] != _default(field)
        }
    return [essence(one) for one in settings] if isinstance(settings, tuple) else settings


def _default(field: Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _key(recipe: Recipe, inputs: Inputs, step: Step, parent: Task | None) -> str:
    model = recipe.model
    factory = step.distill.student.factory if step.distill and step.distill.student else ""
    reads: Mapping[str, object] = {
        "input": essence(model.input),
        "outputs": model.output_names,
        "decoder": model.decoder,
        "serving_size": model.serving_size,
        "size_multiple": model.multiple,
        "teacher": inputs.teacher,
        "frames": inputs.frames if step.trains else "",
        "training": essence(recipe.training) if step.trains else "",
        "student": inputs.students.get(factory, ""),
        "calibration": inputs.calibration if step.calibrates else "",
    }
    if model.embeds:  # only there, since detectors' finished steps are to stay known
        reads = {**reads, "embedding": EMBEDDING_REVISION}
    return digest(REVISIONS[step.kind], inputs.tools, reads, essence(step), parent.key if parent else "")
