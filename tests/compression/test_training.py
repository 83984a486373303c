"""The training loop: the same weights whether it was interrupted or not, and a word when it goes astray."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lathe.errors import BadVariant
from lathe_compression import training
from lathe_compression.labels import Objects
from lathe_compression.scenes import Scene
from lathe_compression.training import SMALLEST_RATE, Loss, Moment, Schedule, train

STEPS = 6
PICTURES = 4 * STEPS - 1
"""The last batch is one picture short."""


def scenes(number: int) -> Scene:
    return Scene(np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8))


def network() -> nn.Sequential:
    """It has a batch norm and a dropout, so that statistics and random state count."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Conv2d(4, 2, 1)).eval()


def loss_of(student: nn.Module) -> Loss:
    """For a student that is to find red and green in a picture."""
    return lambda planes, objects: (student(planes / 255) - planes[:, :2, 1:-1, 1:-1] / 255).square().mean()


class Interrupted(Exception):
    """In the place of a kill, in this process."""


def learn(
    folder: Path, schedule: Schedule, *, random_state: int = 0, stop_after: int = 0
) -> tuple[nn.Module, list[Moment]]:
    """Trains the network with an adapter behind it; an interrupted call is gone on with."""
    torch.manual_seed(7)
    adapter = nn.Conv2d(2, 2, 1)
    student, moments = network(), list[Moment]()
    torch.manual_seed(random_state)

    def report(moment: Moment) -> None:
        moments.append(moment)
        if moment.step == stop_after:
            raise Interrupted

    both = nn.Sequential(student, adapter)
    train(student, loss_of(both), scenes, schedule, folder / "checkpoint.pt", report, [adapter])
    return both, moments


def same(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.fixture
def checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """After every step."""
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)


@pytest.mark.usefixtures("checkpoints")
@pytest.mark.parametrize("freeze_norms", [True, False])
@pytest.mark.parametrize("stop_after", [2, STEPS - 1, STEPS])
def test_resumed_run_equals_an_undisturbed_one_bit_for_bit(stop_after: int, freeze_norms: bool, tmp_path: Path) -> None:
    schedule = Schedule(PICTURES, 4, 0.05, decay=0.01, freeze_norms=freeze_norms)
    for name in ("whole", "interrupted"):
        (tmp_path / name).mkdir()
    whole, moments = learn(tmp_path / "whole", schedule)
    with pytest.raises(Interrupted):
        learn(tmp_path / "interrupted", schedule, stop_after=stop_after)
    resumed, rest = learn(tmp_path / "interrupted", schedule, random_state=99)  # of another process
    assert [moment.step for moment in rest] == list(range(stop_after + 1, STEPS + 1))
    assert [moment.loss for moment in rest] == [moment.loss for moment in moments[stop_after:]]
    assert same(resumed, whole)


def test_no_checkpoint_is_written_in_the_first_minute(tmp_path: Path) -> None:
    learn(tmp_path, Schedule(PICTURES, 4))
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("checkpoints")
def test_half_written_checkpoint_does_not_replace_a_whole_one(tmp_path: Path) -> None:
    schedule = Schedule(PICTURES, 4)
    with pytest.raises(Interrupted):
        learn(tmp_path, schedule, stop_after=3)
    (tmp_path / "checkpoint.new").write_bytes(b"half of the next")
    _, rest = learn(tmp_path, schedule)
    assert rest[0].step == 4


def test_every_scene_is_seen_once_in_order(tmp_path: Path) -> None:
    asked: list[int] = []
    batches: list[int] = []

    def numbered(number: int) -> Scene:
        asked.append(number)
        return scenes(number)

    def counted(planes: Tensor, objects: Sequence[Objects]) -> Tensor:
        batches.append(len(planes))
        return loss_of(student)(planes, objects)

    student = network()
    train(student, counted, numbered, Schedule(PICTURES, 4), tmp_path / "checkpoint.pt", lambda moment: None)
    assert (asked, batches) == (list(range(PICTURES)), [4, 4, 4, 4, 4, 3])


def test_bytes_do_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    """Cores learn from scenes of their own, always the same ones together."""
    made = []
    for threads in (1, 2, 3):
        torch.manual_seed(0)
        student = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1))
        torch.set_num_threads(threads)
        schedule, checkpoint = Schedule(10 * training.SHARD - 1, 3 * training.SHARD, 0.05), tmp_path / f"{threads}.pt"
        train(student, loss_of(student), scenes, schedule, checkpoint, lambda moment: None)
        assert torch.get_num_threads() == threads
        made.append(student)
    assert same(made[0], made[1])
    assert same(made[0], made[2])


def test_shards_have_the_gradients_of_their_whole_batch(tmp_path: Path) -> None:
    """Of a mean over scenes: each shard counts by its share, the last one too, of two scenes."""
    torch.manual_seed(0)
    alone = nn.Conv2d(3, 2, 3)
    sharded = copy.deepcopy(alone)
    pixels = np.stack([scenes(number).pixels for number in range(10)])
    loss_of(alone)(torch.from_numpy(pixels).permute(0, 3, 1, 2).float(), []).backward()  # type: ignore[no-untyped-call]
    train(sharded, loss_of(sharded), scenes, Schedule(10, 10), tmp_path / "checkpoint.pt", lambda moment: None)
    assert alone.weight.grad is not None
    assert sharded.weight.grad is not None
    assert sharded.weight.grad.stride() == sharded.weight.stride()  # as the fused optimiser needs it
    torch.testing.assert_close(sharded.weight.grad, alone.weight.grad, rtol=1e-4, atol=1e-6)


def test_loss_falls_and_is_the_mean_of_the_last_steps(tmp_path: Path) -> None:
    student, values, moments = network(), list[float](), list[Moment]()
    before = {name: value.clone() for name, value in student.named_parameters()}

    def kept(planes: Tensor, objects: Sequence[Objects]) -> Tensor:
        value = loss_of(student)(planes, objects)
        values.append(float(value.detach()))
        return value

    curve = train(student, kept, scenes, Schedule(320, 4, 0.05), tmp_path / "checkpoint.pt", moments.append)
    assert sum(values[-10:]) < 0.7 * sum(values[:10])
    assert curve[-1] == (320, moments[-1].loss)
    assert moments[-1].loss == pytest.approx(sum(values) / len(values))
    assert not student.training
    assert not any(torch.equal(value, before[name]) for name, value in student.named_parameters())


@pytest.mark.parametrize("freeze_norms", [True, False])
def test_batch_norms_keep_their_statistics_if_asked(freeze_norms: bool, tmp_path: Path) -> None:
    student = network()
    statistics = student[1].running_mean.clone(), student[1].running_var.clone()
    scale = student[1].weight.detach().clone()
    schedule = Schedule(PICTURES, 4, freeze_norms=freeze_norms)
    train(student, loss_of(student), scenes, schedule, tmp_path / "checkpoint.pt", lambda moment: None)
    kept = torch.equal(student[1].running_mean, statistics[0]), torch.equal(student[1].running_var, statistics[1])
    assert kept == (freeze_norms, freeze_norms)
    assert not torch.equal(student[1].weight, scale)  # which learns either way


def test_training_that_goes_astray_names_the_step(tmp_path: Path) -> None:
    """The root of a mean that training pushes below zero."""
    student, moments = nn.Conv2d(3, 1, 1, bias=False), list[Moment]()
    nn.init.constant_(student.weight, 0.1)

    def root(planes: Tensor, objects: Sequence[Objects]) -> Tensor:
        return student(planes).mean().sqrt()

    with pytest.raises(BadVariant, match="training went astray at step") as raised:
        train(student, root, scenes, Schedule(400, 4, 0.9), tmp_path / "checkpoint.pt", moments.append)
    assert 3 < moments[-1].step < 100
    assert f"at step {moments[-1].step + 1}: the loss is nan; lower the rate" in raised.value.message


@pytest.mark.usefixtures("checkpoints")
def test_no_checkpoint_holds_weights_that_went_astray(tmp_path: Path) -> None:
    student = network()

    def broken(planes: Tensor, objects: Sequence[Objects]) -> Tensor:
        broken_steps.append(len(planes))
        return loss_of(student)(planes, objects) * (float("inf") if len(broken_steps) == 4 else 1)

    broken_steps: list[int] = []
    with pytest.raises(BadVariant, match="at step 4: the loss is inf"):
        train(student, broken, scenes, Schedule(PICTURES, 4), tmp_path / "checkpoint.pt", lambda moment: None)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["course"]["step"] == 3


def test_scene_that_cannot_be_made_ends_the_run(tmp_path: Path) -> None:
    def failing(number: int) -> Scene:
        if number == 9:
            raise InterruptedError("no ninth")
        return scenes(number)

    student = network()
    with pytest.raises(InterruptedError, match="no ninth"):
        train(
            student, loss_of(student), failing, Schedule(PICTURES, 4), tmp_path / "checkpoint.pt", lambda moment: None
        )


@pytest.mark.parametrize(("pictures", "batch", "steps"), [(8, 8, 1), (9, 8, 2), (1, 8, 1), (8000, 8, 1000)])
def test_steps_of_a_schedule(pictures: int, batch: int, steps: int) -> None:
    assert Schedule(pictures, batch).steps == steps


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 1 / 20),  # a fiftieth of 1000 steps is 20
        (9, 10 / 20),
        (19, 1.0),
        (20, 1.0),  # the cosine begins
        (20 + 490, (1 + SMALLEST_RATE) / 2),  # half of it
        (1000, SMALLEST_RATE),
    ],
)
def test_rate_rises_and_falls_along_half_a_cosine(step: int, rate: float) -> None:
    assert Schedule(8000, 8).rate_at(step) == pytest.approx(rate)


def test_rate_of_a_long_run_rises_over_a_fiftieth() -> None:
    rates = [Schedule(80_000, 8).rate_at(step) for step in range(10_000)]
    assert rates.index(max(rates)) in (199, 200)
    assert min(rates[200:]) == rates[-1] == pytest.approx(SMALLEST_RATE, rel=1e-3)


def test_rate_of_the_shortest_run_stays_small() -> None:
    """Before the moments of the optimiser know anything a full step would be a leap."""
    assert [Schedule(24, 8).rate_at(step) for step in range(3)] == [1 / 20, 2 / 20, 3 / 20]


def test_tensors_of_any_scale_learn_alike(tmp_path: Path) -> None:
    """The same task with weights a thousandth as large and pictures a thousand times as bright."""

    def moved(scale: float) -> float:
        torch.manual_seed(0)
        student = nn.Conv2d(3, 2, 1, bias=False)
        with torch.no_grad():
            student.weight *= scale
        before = student.weight.detach().clone()

        def loss(planes: Tensor, objects: Sequence[Objects]) -> Tensor:
            return (student(planes / 255 / scale) - planes[:, :2] / 255).square().mean()

        train(student, loss, scenes, Schedule(40, 4), tmp_path / f"{scale}.pt", lambda moment: None)
        return float((student.weight.detach() - before).norm() / before.norm())

    assert moved(1.0) == pytest.approx(moved(0.001), rel=0.01)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"pictures": 0}, "pictures and batch must be at least 1"),
        ({"batch": 0}, "pictures and batch must be at least 1"),
        ({"rate": 1.0}, "rate must be between 0 and 1, and decay not negative"),
        ({"rate": 0.0}, "rate must be between 0 and 1, and decay not negative"),
        ({"decay": -0.1}, "rate must be between 0 and 1, and decay not negative"),
    ],
)
def test_wrong_schedules_are_told(wrong: dict[str, float], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Schedule(**({"pictures": 8} | wrong))  # type: ignore[arg-type]


def test_networks_are_not_shared_between_runs(tmp_path: Path) -> None:
    """Two runs of equal settings give equal weights: nothing of the first is left in the process."""
    schedule = Schedule(PICTURES, 4)
    (first, _), (second, _) = learn(tmp_path, schedule), learn(tmp_path, schedule)
    assert same(first, copy.deepcopy(second))


@pytest.mark.parametrize(("shard", "sizes"), [(3, [2, 3, 3]), (8, [8]), (20, [8])])
def test_parts_of_a_batch_are_as_large_as_they_are_told(shard: int, sizes: list[int], tmp_path: Path) -> None:
    torch.manual_seed(0)
    student, seen = nn.Conv2d(3, 2, 3), list[int]()

    def loss(planes: Tensor, objects: Sequence[Objects]) -> Tensor:
        seen.append(len(planes))
        return loss_of(student)(planes, objects)

    train(student, loss, scenes, Schedule(8, 8), tmp_path / "checkpoint.pt", lambda moment: None, shard=shard)
    assert sorted(seen) == sizes
