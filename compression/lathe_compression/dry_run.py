"""What a recipe would do and how long that may take, before any of it is done."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from lathe.progress import Progress
from lathe_compression.plan import Task, chosen_variants, plan
from lathe_compression.recipe import RecipeFile
from lathe_compression.training import Schedule, train
from lathe_compression.workshop import PROBE_SEED, Workshop

TRIAL_STEPS = 5


def show_plan(file: RecipeFile, cache: Path, only: Sequence[str] = ()) -> None:
    """Prints every variant's steps: which are finished, begun, shared with another variant, or to do.

    The estimate is of the teacher's own learning, measured here and now: smaller networks are faster, and
    learning with roundings is slower. The frames are decoded for it, once: the run itself will find them.
    """
    workshop = Workshop(file, cache, Progress())
    variants = chosen_variants(file.recipe, only)
    ends = plan(file.recipe, workshop.inputs)
    tasks = [(variant.name, task) for variant in variants for task in _chain(ends[variant.name])]
    todo = {task.key for _, task in tasks if workshop.store.find(task.key) is None}
    learns = any(pictures(task) for _, task in tasks if task.key in todo)
    seconds = _seconds_per_picture(workshop) if learns else 0.0
    table = Table("variant", "step", "state", "about", title=f"plan of {file.recipe.model.name}")
    shown: set[str] = set()
    total = 0.0
    for variant in variants:
        if ends[variant.name] is None:
            table.add_row(variant.name, "the teacher as it is", "", "")
    for name, task in tasks:
        if task.key in shown:
            table.add_row(name, task.step.describe(), "shared, see above", "")
            continue
        shown.add(task.key)
        needed = pictures(task) * seconds if task.key in todo else 0.0
        total += needed
        state = "to do" if task.key in todo else "finished"
        if task.key in todo and workshop.store.begun(task.key):
            state = "begun"
        table.add_row(name, task.step.describe(), state, _minutes(needed))
    console = Console()
    console.print(table)
    console.print(f"training: about {_minutes(total) or 'none'}; beside it export, calibration and measurement")


def pictures(task: Task) -> int:
    """Scenes that a task learns from or looks at."""
    step = task.step
    if step.distill:
        return step.distill.pictures
    if step.prune:
        return step.prune.pictures * (step.prune.rounds - 1) + 2 * step.prune.probe * step.prune.rounds
    if step.quantize and step.quantize.method == "qat":
        return step.quantize.pictures
    return 0


def _chain(task: Task | None) -> list[Task]:
    return task.chain if task else []


def _seconds_per_picture(workshop: Workshop) -> float:
    """Of the teacher learning from itself: the fastest of a few steps."""
    network, batch = workshop.network(None), workshop.recipe.training.batch
    loss, extra = workshop.lesson.loss_for(network)
    ends = [0.0]
    with TemporaryDirectory() as folder:
        train(
            network,
            loss,
            workshop.scenes(PROBE_SEED),
            Schedule(TRIAL_STEPS * batch, batch),
            Path(folder) / "checkpoint.pt",
            lambda moment: ends.append(moment.seconds),
            extra,
            workshop.normalisation,
            workshop.shard,
        )
    return min(after - before for before, after in pairwise(ends)) / batch


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s" if seconds else ""
