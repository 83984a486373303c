"""The one training loop: a student learns to answer as its teacher does, and may be killed at any moment.

What a run has become after so many steps depends on its seed and settings alone: scenes are drawn by
number, and weights, optimiser and random state go into every checkpoint together.
"""

from __future__ import annotations

import ctypes
import io
import math
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lathe.errors import BadVariant
from lathe_compression.export import Normalisation
from lathe_compression.labels import Objects
from lathe_compression.scenes import Scene
from lathe_compression.store import write_whole

CHECKPOINT_SECONDS = 60.0
SHARD = 4
"""Scenes of a part of a batch, where nothing else is said."""
WARM_UP_SHARE, WARM_UP_STEPS = 0.02, 20
SMALLEST_RATE = 0.01
MEAN_OVER_STEPS, STEPS_PER_POINT = 100, 25

Scenes = Callable[[int], Scene]
"""Scene by number."""
Loss = Callable[[Tensor, Sequence[Objects]], Tensor]
"""Of a batch: planes N×3×H×W as the network sees them, and what is known of each scene."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Attributes:
        pictures: how many are seen in all.
        batch: how many at a time.
        rate: largest step, as a share of each weight tensor's root mean square, so that tensors of very
            different scale learn alike (Shazeer and Stern, arXiv 1804.04235, section 8). It rises over the
            first steps and then falls along half a cosine.
        decay: share of the weights that a full step takes away.
        freeze_norms: batch norms keep the statistics they came with.
    """

    pictures: int
    batch: int = 8
    rate: float = 0.002
    decay: float = 0.0
    freeze_norms: bool = True

    def __post_init__(self) -> None:
        if self.pictures < 1 or self.batch < 1:
            raise ValueError("pictures and batch must be at least 1")
        if not 0 < self.rate < 1 or self.decay < 0:
            raise ValueError("rate must be between 0 and 1, and decay not negative")

    @property
    def steps(self) -> int:
        return math.ceil(self.pictures / self.batch)

    def rate_at(self, step: int) -> float:
        """The rate's factor at a step, counted from 0."""
        warm_up = max(WARM_UP_STEPS, round(self.steps * WARM_UP_SHARE))
        if step < warm_up:
            return (step + 1) / warm_up
        done = (step - warm_up) / max(1, self.steps - warm_up)
        return SMALLEST_RATE + (1 - SMALLEST_RATE) * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a run stands.

    Attributes:
        loss: mean over the last steps.
        seconds: of this process's part of the run.
    """

    step: int
    steps: int
    loss: float
    seconds: float


def train(
    student: nn.Module,
    loss: Loss,
    scenes: Scenes,
    schedule: Schedule,
    checkpoint: Path,
    report: Callable[[Moment], None],
    extra: Sequence[nn.Module] = (),
    normalisation: Normalisation | None = None,
    shard: int = SHARD,
) -> list[tuple[int, float]]:
    """Trains in place, from the checkpoint where there is one.

    Args:
        loss: it runs the student.
        checkpoint: written every minute.
        extra: modules of the loss that learn too.
        normalisation: of the pixels; none where it is not given.
        shard: scenes that are learnt from at a time; a loss is the mean over such parts of a batch, on every machine.

    Returns:
        The curve, from the very start: (pictures seen, mean loss of the last steps).

    Raises:
        BadVariant: the loss is no longer a number.
    """
    learners = nn.ModuleList([student, *extra])
    learners.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # nn.Module.to takes it alone
    _set_mode(learners, schedule.freeze_norms)
    _keep_freed_memory()
    optimiser = torch.optim.AdamW(
        [
            {"params": [weight], "scale": _scale(weight), "lr": 0.0, "weight_decay": schedule.decay}
            for weight in learners.parameters()
            if weight.requires_grad
        ],
        betas=(0.9, 0.999),
        fused=True,
    )
    course = _Course()
    if checkpoint.exists():
        course = _restore(checkpoint, learners, optimiser)
    losses = deque(course.losses, maxlen=MEAN_OVER_STEPS)
    began = saved = time.monotonic()
    weights = [group["params"][0] for group in optimiser.param_groups]
    learn = _Shards(loss, scenes, weights, normalisation or Normalisation())
    with _crew(learners, schedule.batch, shard) as (crew, part):
        for step in range(course.step, schedule.steps):
            for group in optimiser.param_groups:
                group["lr"] = schedule.rate * schedule.rate_at(step) * group["scale"]
            numbers = range(step * schedule.batch, min((step + 1) * schedule.batch, schedule.pictures))
            losses.append(learn(crew, numbers, part))
            optimiser.step()
            if not math.isfinite(losses[-1]):
                raise BadVariant(f"training went astray at step {step + 1}: the loss is {losses[-1]}; lower the rate")
            moment = Moment(step + 1, schedule.steps, sum(losses) / len(losses), time.monotonic() - began)
            if moment.step % STEPS_PER_POINT == 0 or moment.step == moment.steps:
                course.curve.append((min(moment.step * schedule.batch, schedule.pictures), moment.loss))
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                course.step, course.losses = moment.step, list(losses)
                _save(checkpoint, course, learners, optimiser)
                saved = time.monotonic()
            report(moment)
    learners.eval()
    return course.curve


@dataclass
class _Course:
    """How a run has gone so far."""

    step: int = 0
    losses: list[float] = field(default_factory=list)
    curve: list[tuple[int, float]] = field(default_factory=list)


def _scale(weight: Tensor) -> float:
    """A tensor's root mean square at the start; 0.1 where it starts from nothing."""
    return float(weight.detach().square().mean().sqrt()) or 0.1


def _set_mode(learners: nn.Module, freeze_norms: bool) -> None:
    learners.train()
    for module in learners.modules():
        if freeze_norms and isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


@contextmanager
def _crew(learners: nn.Module, batch: int, part: int) -> Generator[tuple[Executor, int]]:
    """Threads that learn at the same time, and how many scenes each takes at a time.

    Cores that learn from scenes of their own are faster than cores that share every operation. What keeps
    statistics of a batch, or draws at random, must see it whole: then one thread has all the cores.
    """
    cores = torch.get_num_threads()
    whole = any(module.training and isinstance(module, _WHOLE_BATCH) for module in learners.modules())
    shard = batch if whole else part
    crew_size = min(cores, math.ceil(batch / shard))
    cores_each = cores // crew_size
    torch.set_num_threads(cores_each)
    try:
        with ThreadPoolExecutor(crew_size, "learner", torch.set_num_threads, (cores_each,)) as crew:
            yield crew, shard
    finally:
        torch.set_num_threads(cores)


_WHOLE_BATCH = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.modules.dropout._DropoutNd,
    nn.RReLU,
)


@dataclass(frozen=True)
class _Shards:
    """Gradients of a batch, part by part."""

    loss: Loss
    scenes: Scenes
    weights: Sequence[Tensor]
    normalisation: Normalisation

    def __call__(self, crew: Executor, numbers: Sequence[int], size: int) -> float:
        """Leaves the gradients of the mean loss in the weights.

        Returns:
            The loss.
        """
        shards = [numbers[first : first + size] for first in range(0, len(numbers), size)]
        found = list(crew.map(lambda shard: self._learn(shard, len(shard) / len(numbers)), shards))
        for weight, *gradients in zip(self.weights, *(gradients for _, gradients in found), strict=True):
            given = [one for one in gradients if one is not None]
            # Laid out in memory as the weight is: the fused optimiser takes both as they lie there.
            weight.grad = reduce(Tensor.add_, given, torch.zeros_like(weight)) if given else None
        return sum(value for value, _ in found)

    def _learn(self, numbers: Sequence[int], share: float) -> tuple[float, Sequence[Tensor | None]]:
        made = [self.scenes(number) for number in numbers]
        planes = torch.from_numpy(np.stack([one.pixels for one in made])).permute(0, 3, 1, 2)
        seen = self.normalisation.apply(planes.float()).contiguous(memory_format=torch.channels_last)
        value = self.loss(seen, [one.objects for one in made]) * share
        return value.item(), torch.autograd.grad(value, self.weights, allow_unused=True)


def save_tensors(path: Path, content: Mapping[str, Any]) -> None:
    """A file that `torch.load(weights_only=True)` takes, whole or not at all; a full disk is an OSError."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_whole(path, buffer.getvalue())


def _save(path: Path, course: _Course, learners: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    state = {"course": asdict(course), "weights": learners.state_dict(), "optimiser": optimiser.state_dict()}
    save_tensors(path, state | {"random": torch.get_rng_state()})


def _restore(path: Path, learners: nn.Module, optimiser: torch.optim.Optimizer) -> _Course:
    state = torch.load(path, weights_only=True)
    learners.load_state_dict(state["weights"])
    optimiser.load_state_dict(state["optimiser"])
    torch.set_rng_state(state["random"])
    return _Course(**state["course"])


def _keep_freed_memory() -> None:
    """Tells the allocator not to give large blocks back after every operation: a third of the time of a
    training step went into the same pages' being mapped and cleared again and again. Only glibc has this."""
    trim_threshold, mmap_threshold, most_arenas = -1, -3, -8
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(mmap_threshold, 1 << 30)
    mallopt(trim_threshold, (1 << 31) - 1)
    mallopt(most_arenas, 1)  # what one thread frees, all can take
