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
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lathe.errors import BadVariant
from lathe.machine import available_cores
from lathe_compression.export import Normalisation
from lathe_compression.labels import Objects
from lathe_compression.scenes import Scene
from lathe_compression.store import write_whole

CHECKPOINT_SECONDS = 60.0
SCENES_AHEAD = 3
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
) -> list[tuple[int, float]]:
    """Trains in place, from the checkpoint where there is one.

    Args:
        loss: it runs the student.
        checkpoint: written every minute.
        extra: modules of the loss that learn too.
        normalisation: of the pixels; none where it is not given.

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
    step, losses = course.step, deque(course.losses, maxlen=MEAN_OVER_STEPS)
    began = saved = time.monotonic()
    with closing(_batches(scenes, schedule, step, normalisation or Normalisation())) as batches:
        for step, batch in enumerate(batches, step):  # noqa: B020  # goes on from where it stood
            for group in optimiser.param_groups:
                group["lr"] = schedule.rate * schedule.rate_at(step) * group["scale"]
            value = loss(*batch)
            optimiser.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append(value.item())
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


_Batch = tuple[Tensor, Sequence[Objects]]


def _batches(scenes: Scenes, schedule: Schedule, first: int, normalisation: Normalisation) -> Generator[_Batch]:
    """Batches from a step on, made ahead where a core is free for it.

    Where torch computes on every core it is much slower to make them beside it: its threads wait for each
    other after every operation, and one of them would share its core.
    """

    def batch(step: int) -> _Batch:
        numbers = range(step * schedule.batch, min((step + 1) * schedule.batch, schedule.pictures))
        made = [scenes(number) for number in numbers]
        planes = torch.from_numpy(np.stack([one.pixels for one in made])).permute(0, 3, 1, 2)
        seen = normalisation.apply(planes.float()).contiguous(memory_format=torch.channels_last)
        return seen, [one.objects for one in made]

    steps = range(first, schedule.steps)
    if torch.get_num_threads() >= available_cores():
        yield from map(batch, steps)
        return
    with ThreadPoolExecutor(1, "scenes") as pool:
        waiting = deque[Future[_Batch]]()
        try:
            for step in steps:
                waiting.append(pool.submit(batch, step))
                if len(waiting) > SCENES_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


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
    trim_threshold, mmap_threshold = -1, -3
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(mmap_threshold, 1 << 30)
    mallopt(trim_threshold, (1 << 31) - 1)
