"""Whole runs of every kind of step: killed and gone on with, repeated, in part, and with what goes wrong."""

from __future__ import annotations

import importlib
import itertools
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from rich.console import Console
from torch import nn

from lathe.errors import BadPicture, BadVariant, DiskFull, InvalidInput, LatheError, NotFound
from lathe.progress import Progress
from lathe.repository import Repository, VariantRef
from lathe.used_pictures import UsedPictures
from lathe_compression import carry_out, training
from lathe_compression.arithmetic import arithmetic
from lathe_compression.compress import compress
from lathe_compression.dry_run import pictures, show_plan
from lathe_compression.pictures import file_digest
from lathe_compression.plan import Task, plan
from lathe_compression.quantize import assert_int8_kernels
from lathe_compression.recipe import load_recipe
from lathe_compression.student import residual_sums
from lathe_compression.taps import traced
from lathe_compression.workshop import Workshop, _network_digest
from tests.compression.graphs import run as answer
from tests.compression.small_recipe import TRAINED, recipe, write_recipe

ROOT = Path(__file__).parents[2]
PRUNE = "{ prune = { keep = 0.7, rounds = 1, probe = 4 } }"
DISTILL = "{ distill = { pictures = 8 } }"
STUDENT = "{ distill = { student = { width = 0.5 }, pictures = 16 } }"
QAT = '{ quantize = { method = "qat", pictures = 8 } }'


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums are rounded otherwise on two; the same bytes are promised for the same number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(folder: Path, *only: str, output: StringIO | None = None) -> list[VariantRef]:
    progress = Progress(Console(file=output or StringIO(), width=500))
    return compress(load_recipe(folder / "spots.toml"), folder / "models", progress, only=only)


def files(folder: Path) -> dict[str, str]:
    """Digests of all files in a folder, by path."""
    return {str(path.relative_to(folder)): file_digest(path) for path in folder.rglob("*") if path.is_file()}


def models(folder: Path) -> dict[str, str]:
    """Digests of the newest models by variant."""
    repository = Repository(folder / "models")
    names = [path.name for path in (folder / "models/spots").iterdir() if path.is_dir()]
    return {name: repository.card(repository.newest("spots", name)).sha256 for name in names}


def events(folder: Path) -> list[dict[str, Any]]:
    """Of the newest run's record."""
    newest = max((folder / "cache/runs").glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    return [json.loads(line) for line in newest.read_text().splitlines()]


def workshop(folder: Path) -> Workshop:
    return Workshop(load_recipe(folder / "spots.toml"), folder / "cache", Progress(Console(file=StringIO())))


def chain(folder: Path, variant: str) -> list[Task]:
    shop = workshop(folder)
    end = plan(shop.recipe, shop.inputs)[variant]
    return end.chain if end else []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder of an undisturbed run, which reports every step of training."""
    folder = tmp_path_factory.mktemp("whole")
    write_recipe(folder, TRAINED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "STEPS_PER_POINT", 1)
        run(folder)
        yield folder


# --- killed, and started again ---


@dataclass(frozen=True)
class Kill:
    """A moment of a run: before a file is written for the n-th time, or when half of it is.

    Attributes:
        step: place in the variant's chain, from 0.
        file: the beginning of its name.
    """

    variant: str
    step: int
    file: str
    number: int
    half: bool = False

    @property
    def has_checkpoint(self) -> bool:
        """Whether one has been written whole by then."""
        return self.file != "cut-0" and (self.number > 1 or not self.file.startswith("checkpoint"))


KILLS = {
    "in a round of pruning, before it has cut": Kill("pruned", 0, "cut-0", 1),
    "in a round of pruning, before any checkpoint": Kill("pruned", 0, "checkpoint-0", 1),
    "in a round of pruning, while it learns": Kill("pruned", 0, "checkpoint-0", 2),
    "between two rounds of pruning": Kill("pruned", 0, "cut-1", 1, half=True),
    "in a distillation, before any checkpoint": Kill("pruned", 1, "checkpoint", 1),
    "in a distillation, while it learns": Kill("pruned", 1, "checkpoint", 3),
    "in a distillation, while it writes a checkpoint": Kill("pruned", 1, "checkpoint", 3, half=True),
    "in a distillation, while it writes the result": Kill("pruned", 1, "state", 1, half=True),
    "in the distillation of a new student": Kill("student", 0, "checkpoint", 3),
    "in quantization-aware training, before any checkpoint": Kill("pruned-qat", 2, "checkpoint", 1),
    "in quantization-aware training, while it learns": Kill("pruned-qat", 2, "checkpoint", 3),
}

DRIVER = """
import json, os, signal, sys
from pathlib import Path

import torch
import torch._dynamo  # what the optimiser would load in each child

from lathe.progress import Progress
from lathe_compression import carry_out, training
from lathe_compression.arithmetic import arithmetic
from lathe_compression.compress import compress
from lathe_compression.recipe import load_recipe

torch.set_num_threads(1)
training.CHECKPOINT_SECONDS, training.STEPS_PER_POINT = 0, 1
real_write, left = training.write_whole, 0

def write(path, content):
    global left
    if path.name.startswith(kill["file"]):
        left -= 1
        if not left:
            if kill["half"]:
                path.with_name(path.name + ".new").write_bytes(content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
    real_write(path, content)

for kill in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        left, training.write_whole = kill["number"], write
        folder = Path(kill["folder"])
        compress(load_recipe(folder / "spots.toml"), folder / "models", Progress(), only=[kill["variant"]])
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def killed(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of runs that were killed: each had all the steps before finished, and none from there on."""
    folders = {}
    for name, kill in KILLS.items():
        folder = folders[name] = tmp_path_factory.mktemp("killed")
        shutil.copytree(whole, folder, dirs_exist_ok=True)
        shutil.rmtree(folder / "models")
        for task in chain(folder, kill.variant)[kill.step :]:
            shutil.rmtree(folder / "cache/steps" / task.key)
    told = json.dumps([vars(kill) | {"folder": str(folders[name])} for name, kill in KILLS.items()])
    ended = subprocess.run(
        [sys.executable, "-c", DRIVER, told], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.stdout.split() == [str(-signal.SIGKILL)] * len(KILLS), ended.stderr[-3000:]
    return folders


@pytest.mark.parametrize("moment", KILLS)
def test_killed_run_started_again_ends_with_the_same_model(moment: str, whole: Path, killed: dict[str, Path]) -> None:
    folder, kill = killed[moment], KILLS[moment]
    assert not (folder / "models").exists()
    task = chain(folder, kill.variant)[kill.step]
    begun = folder / "cache/steps" / (task.key + ".part")
    stem = "checkpoint-0.pt" if kill.step == 0 and kill.variant == "pruned" else "checkpoint.pt"
    assert (begun / stem).exists() is (
        kill.file != "cut-0" and (not kill.file.startswith("checkpoint") or kill.number > 1)
    )
    run(folder, kill.variant)
    assert models(folder) == {name: models(whole)[name] for name in ("fp32", kill.variant)}
    assert not begun.exists()


def test_killed_runs_curve_is_whole(whole: Path, killed: dict[str, Path]) -> None:
    moment = "in a distillation, while it learns"
    folder = killed[moment]
    curves = [workshop(one).facts(chain(one, "pruned")[1])["curve"] for one in (whole, folder)]
    assert len(curves[0]) == 4
    assert curves[0] == curves[1]


def test_finished_run_repeated_trains_nothing_and_publishes_nothing(whole: Path) -> None:
    before = files(whole / "models"), files(whole / "cache/steps"), files(whole / "cache/frames")
    refs = run(whole)
    assert {ref.version for ref in refs} == {1}
    assert (files(whole / "models"), files(whole / "cache/steps"), files(whole / "cache/frames")) == before
    assert {one["event"] for one in events(whole)} == {"run", "variant", "end"}
    assert not [path for path in before[1] if "checkpoint" in path or "cut-" in path or "taught-" in path]


def test_two_fresh_folders_end_with_the_same_models(whole: Path, tmp_path: Path) -> None:
    write_recipe(tmp_path, TRAINED)
    run(tmp_path)
    assert models(tmp_path) == models(whole)
    assert len(models(tmp_path)) == 7


# --- what does not depend on what ---


ALL_CHANNELS = '{ prune = { keep = 0.3, scope = "all", rounds = 2, pictures = 8, probe = 4 } }'
NARROW = "{ distill = { pictures = 4, student = { width = 0.5 } } }"


@pytest.mark.parametrize(
    "steps",
    [
        f"{PRUNE}, {DISTILL}",
        f"{NARROW}, {DISTILL}",
        pytest.param(
            ALL_CHANNELS,
        ),
    ],
    ids=["without adapters", "adapters for a student", "adapters while pruning"],
)
def test_result_does_not_depend_on_the_process_random_state(steps: str, tmp_path: Path) -> None:
    """A run that is gone on with has another random state where its next step begins than one that is not."""
    states = []
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        write_recipe(folder, recipe(steps, teacher="block_detector"))
        shop = workshop(folder)
        end = plan(shop.recipe, shop.inputs)["a"]
        for task in end.chain if end else []:
            torch.manual_seed(seed)
            shop.facts(task)
        states.append(shop.network(end).state_dict())
    assert [tuple(value.shape) for value in states[0].values()] == [tuple(value.shape) for value in states[1].values()]
    assert [name for name, value in states[0].items() if not torch.equal(value, states[1][name])] == []


def frames_text(first: str, second: str, weight: float) -> str:
    head = recipe(DISTILL).replace('pictures = ["frames/*.png"]', f"pictures = [{first}]")
    return head + f"\n[[frames]]\npictures = [{second}]\nweight = {weight}\n"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(
            frames_text('"frames/[0-3].png"', '"frames/[45].png"', 1.0),
            frames_text('"frames/[0-3].png"', '"frames/[45].png"', 9.0),
            id="weights",
        ),
        pytest.param(
            frames_text('"frames/[0-3].png"', '"frames/[45].png"', 1.0),
            frames_text('"frames/[0-1].png"', '"frames/[2-5].png"', 1.0),
            id="groups",
        ),
        pytest.param(recipe(DISTILL), recipe(DISTILL).replace('"frames/*.png"', '"frames/[0-4].png"'), id="pictures"),
    ],
)
def test_other_frames_are_another_task(one: str, other: str, tmp_path: Path) -> None:
    keys = []
    for text in (one, other):
        write_recipe(tmp_path, text)
        keys.append([task.key for task in chain(tmp_path, "a")])
    assert keys[0] != keys[1]


def test_changed_picture_changes_the_keys_behind_it_alone(tmp_path: Path) -> None:
    write_recipe(tmp_path, recipe(DISTILL, "{ quantize = {} }", f"{DISTILL}, {{ quantize = {{}} }}"))
    steps = [(variant, place) for variant, length in {"a": 1, "b": 1, "c": 2}.items() for place in range(length)]

    def keys() -> dict[tuple[str, int], str]:
        return {(variant, place): chain(tmp_path, variant)[place].key for variant, place in steps}

    behind = {
        "frames/2.png": {("a", 0), ("c", 0), ("c", 1)},
        "calibration/2.png": {("b", 0), ("c", 1)},
        "evaluation/2.png": set(),
    }
    for name, changed in behind.items():
        before = keys()
        pixels = cv2.imread(str(tmp_path / name))
        assert pixels is not None
        cv2.imwrite(str(tmp_path / name), 255 - pixels)
        after = keys()
        assert {step for step in steps if before[step] != after[step]} == changed, name


def test_students_factory_that_makes_another_network_is_another_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    write_recipe(tmp_path, recipe('{ distill = { pictures = 8, student = { factory = "own_student:build" } } }'))
    keys = []
    for activation in ("ReLU", "Hardswish"):  # of another length: Python tells files by time and size
        text = f"from torch import nn\ndef build(): return nn.Sequential(nn.Conv2d(3, 4, 1), nn.{activation}())\n"
        (tmp_path / "own_student.py").write_text(text)
        monkeypatch.delitem(sys.modules, "own_student", raising=False)
        importlib.invalidate_caches()
        keys.append([task.key for task in chain(tmp_path, "a")])
    monkeypatch.delitem(sys.modules, "own_student", raising=False)
    assert keys[0] != keys[1]


def digest_of(network: nn.Module) -> str:
    """Of a network as a teacher, without the recipe around it."""
    return _network_digest(traced(network))


@pytest.mark.parametrize(
    "other",
    [
        nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU()),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU()),
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()),
    ],
    ids=["stride", "activation", "padding"],
)
def test_teacher_of_other_layers_and_the_same_weights_is_another(other: nn.Module) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    other.load_state_dict(network.state_dict())
    assert digest_of(network) != digest_of(other)


def test_teacher_of_other_weights_is_another_and_a_copy_is_the_same() -> None:
    torch.manual_seed(0)
    networks = [nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()) for _ in range(2)]
    assert digest_of(networks[0]) != digest_of(networks[1])
    networks[1].load_state_dict(networks[0].state_dict())
    assert digest_of(networks[0]) == digest_of(networks[1])


def test_steps_show_the_network_what_the_exported_graph_will(tmp_path: Path) -> None:
    """Pixels of 0 to 255 become −1 to 1."""
    text = recipe(DISTILL).replace(
        "notices", "input = { mean = [127.5, 127.5, 127.5], std = [127.5, 127.5, 127.5] }\nnotices"
    )
    write_recipe(tmp_path, text)
    shop = workshop(tmp_path)
    seen: list[float] = []
    shop.teacher.get_submodule("stem.0").register_forward_pre_hook(
        lambda module, values: seen.append(float(values[0].abs().max()))
    )
    network = shop.network(None)
    shop.lesson.loss_for(network)[0](shop.batch(1, 0))
    assert max(seen) <= 1.01


def test_network_can_be_pruned_again(tmp_path: Path) -> None:
    """After the first time the second block's projection and the third's expansion are better joined."""
    again = "{ prune = { keep = 0.3, rounds = 1, probe = 4 } }"
    write_recipe(tmp_path, recipe(f"{again}, {again}", teacher="plain_block_detector"))
    shop = workshop(tmp_path)
    network = shop.network(plan(shop.recipe, shop.inputs)["a"])
    assert all(torch.isfinite(value).all() for value in network(torch.zeros(1, 3, 64, 96)))


def test_blocks_go_with_channels_and_the_variant_is_served_so(tmp_path: Path) -> None:
    """What went is known again from the facts, in the steps that follow and in another process."""
    prune = "{ prune = { keep = 0.5, blocks = 1, rounds = 2, pictures = 8, probe = 4 } }"
    write_recipe(tmp_path, recipe(f"{prune}, {DISTILL}, {{ quantize = {{}} }}", teacher="block_detector"))
    run(tmp_path)
    repository = Repository(tmp_path / "models")
    card = repository.card(repository.newest("spots", "a"))
    assert any(step.startswith("blocks: those that end in add") for step in card.lineage.steps)
    shop = workshop(tmp_path)
    end = plan(shop.recipe, shop.inputs)["a"]
    assert end
    assert end.parent
    assert len(residual_sums(shop.network(end.parent))) == 1
    assert len(residual_sums(shop.teacher)) == 2


# --- parts of a run, and what it would do ---


def test_only_makes_the_reference_and_the_named_variant(whole: Path, tmp_path: Path) -> None:
    write_recipe(tmp_path, TRAINED)
    assert [ref.variant for ref in run(tmp_path, "student")] == ["fp32", "student"]
    assert models(tmp_path) == {name: models(whole)[name] for name in ("fp32", "student")}
    assert len(list((tmp_path / "cache/steps").iterdir())) == 1


def test_unknown_variant_is_told_before_anything_is_done(tmp_path: Path) -> None:
    write_recipe(tmp_path, TRAINED)
    with pytest.raises(InvalidInput, match=r'no variant "studnet"; did you mean "student"\?'):
        run(tmp_path, "studnet")
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "models").exists()


def shown(folder: Path, capsys: pytest.CaptureFixture[str], only: Sequence[str] = ()) -> list[str]:
    """Lines of the plan, wrapped cells together."""
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "200")
        show_plan(load_recipe(folder / "spots.toml"), folder / "cache", only)
    return capsys.readouterr().out.splitlines()


def test_dry_run_prints_the_plan_and_makes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_recipe(tmp_path, TRAINED)
    lines = shown(tmp_path, capsys)
    assert lines[0].strip() == "plan of spots"
    for variant, step in {
        "fp32": "the teacher as it is",
        "pruned": "70% of macs",
        "student": "50% of the width",
    }.items():
        assert any(variant in line and step in line for line in lines), variant
    assert sum("shared, see above" in line for line in lines) == 5
    assert sum("to do" in line for line in lines) == 8
    assert any(line.startswith("training: about") and "none" not in line for line in lines)
    assert not (tmp_path / "models").exists()
    assert not (tmp_path / "cache/steps").exists()
    assert not (tmp_path / "cache/runs").exists()


def test_dry_run_of_a_finished_run_has_nothing_to_do(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(whole / "cache")
    lines = shown(whole, capsys)
    assert not any("to do" in line or "begun" in line for line in lines)
    assert sum("finished" in line for line in lines) == 8
    assert any("training: about none" in line for line in lines)
    assert files(whole / "cache") == before


def test_dry_run_tells_what_was_begun_and_takes_only(
    killed: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = killed["in a distillation, while it learns"]
    (part,) = [task.key for task in chain(folder, "student")]
    (folder / "cache/steps" / part).rename(folder / "cache/steps" / (part + ".part"))
    lines = shown(folder, capsys, ["student"])
    (folder / "cache/steps" / (part + ".part")).rename(folder / "cache/steps" / part)
    assert sum("begun" in line for line in lines) == 1
    assert not any("pruned" in line for line in lines)


@pytest.mark.parametrize(
    ("step", "scenes"),
    [
        ("{ distill = { pictures = 40 } }", 40),
        ("{ prune = { keep = 0.5, rounds = 3, pictures = 100, probe = 10 } }", 2 * 100 + 3 * 2 * 10),
        ("{ prune = { keep = 0.5, rounds = 1, probe = 10 } }", 20),
        ("{ quantize = {} }", 0),
        pytest.param(
            '{ quantize = { method = "qat", pictures = 60 } }',
            60,
        ),
    ],
)
def test_dry_run_counts_the_scenes_of_a_step(step: str, scenes: int, tmp_path: Path) -> None:
    write_recipe(tmp_path, recipe(step))
    (task,) = chain(tmp_path, "a")
    assert pictures(task) == scenes


# --- what goes wrong ---


@pytest.mark.parametrize(
    ("old", "new", "error", "told"),
    [
        ('"frames/*.png"', '"empty/*.png"', NotFound, "no file matches empty"),
        (
            '"frames/*.png"',
            '"broken/*.png"',
            InvalidInput,
            "group 1 of the training frames holds no picture that can be read",
        ),
        ('"frames/*.png"', '"$UNKNOWN_FOLDER/*.png"', InvalidInput, "names an environment variable that is not set"),
        ('"frames/*.png"', '"evaluation/*.png"', InvalidInput, "0.png both makes a variant and judges it"),
        ("tiny_detector", "branching_detector", BadVariant, "must not branch on the values"),
        pytest.param(
            '"frames/*.png"',
            '"frames"',
            LatheError,
            "frames",
        ),
    ],
)
def test_bad_input_is_told_and_nothing_is_published(
    old: str, new: str, error: type[LatheError], told: str, tmp_path: Path
) -> None:
    text = recipe(DISTILL)
    assert old in text
    write_recipe(tmp_path, text.replace(old, new))
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    for number in range(3):
        (tmp_path / f"broken/{number}.png").write_bytes(b"no picture")
    with pytest.raises(error, match=told):
        run(tmp_path)
    assert not (tmp_path / "models").exists()


def test_unreadable_frames_are_left_out_counted_and_named(tmp_path: Path) -> None:
    write_recipe(tmp_path, recipe(DISTILL))
    (tmp_path / "frames/2.png").write_bytes(b"no picture")
    (tmp_path / "frames/7.png").touch()
    (tmp_path / "frames/4.png").write_bytes((tmp_path / "frames/4.png").read_bytes()[:100])
    for _ in "twice":  # also when the frames come from the store
        output = StringIO()
        run(tmp_path, output=output)
        assert "3 training pictures cannot be read and are left out: 2.png, 4.png, 7.png" in output.getvalue()
    assert [ref.version for ref in run(tmp_path)] == [1, 1]


@pytest.mark.parametrize("purpose", ["calibration", "evaluation"])
def test_other_unreadable_pictures_are_left_out_too(purpose: str, tmp_path: Path) -> None:
    write_recipe(tmp_path)
    (tmp_path / f"{purpose}/1.png").write_bytes(b"no picture")
    output = StringIO()
    run(tmp_path, output=output)
    assert f"1 {purpose} pictures cannot be read and are left out: 1.png" in output.getvalue()
    for path in (tmp_path / purpose).iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(BadPicture, match=f"none of the {purpose} pictures can be decoded"):
        run(tmp_path)


def test_unreadable_frame_is_named_whatever_its_name(tmp_path: Path) -> None:
    write_recipe(tmp_path, recipe(DISTILL))
    (tmp_path / "frames/face [copy].png").write_bytes(b"no picture")
    output = StringIO()
    run(tmp_path, output=output)
    assert "face [copy].png" in output.getvalue()


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("frames", "frames.bin"),
        pytest.param(
            "steps",
            "state.pt.new",
        ),
        ("quantized", "model.onnx.new"),
        ("steps", "facts.json.new"),
    ],
)
def test_full_disk_is_told_and_a_later_run_completes(place: str, name: str, whole: Path, tmp_path: Path) -> None:
    """The file that fills it is a link to a device that is always full."""
    if not Path("/dev/full").is_char_device():
        pytest.skip("there is no /dev/full")
    write_recipe(tmp_path, TRAINED)
    if place == "frames":
        shop = workshop(tmp_path)
        assert shop.frames
        (entry,) = (tmp_path / "cache/frames").iterdir()
        shutil.rmtree(entry)
    else:
        run(tmp_path, "int8")
        variant = {"steps": "student", "quantized": "student-int8"}[place]
        entry = tmp_path / "cache/steps" / chain(tmp_path, variant)[-1].key
    part = entry.with_name(entry.name + ".part")
    part.mkdir(parents=True)
    (part / name).symlink_to("/dev/full")
    before = files(tmp_path / "models") if (tmp_path / "models").exists() else {}
    finished = set((tmp_path / "cache/steps").glob("*")) if (tmp_path / "cache/steps").exists() else set()
    with pytest.raises(DiskFull, match="no space left"):
        run(tmp_path, "student-int8")
    assert (files(tmp_path / "models") if (tmp_path / "models").exists() else {}) == before
    assert finished <= set((tmp_path / "cache/steps").glob("*")) | {part}
    (part / name).unlink()
    run(tmp_path, "student-int8")
    assert models(tmp_path)["student-int8"] == models(whole)["student-int8"]


def test_target_that_cannot_be_met_says_how_far_it_came(whole: Path) -> None:
    """A fifth was asked for; the only hidden channels of the narrow student are at their least already."""
    repository = Repository(whole / "models")
    card = repository.card(repository.newest("spots", "student-int8"))
    (sentence,) = [step for step in card.lineage.steps if step.startswith("prune:")]
    said = float(sentence.rpartition("; ")[2].removesuffix("% are left"))
    assert "to 20% of macs" in sentence
    teacher = repository.card(repository.newest("spots", "fp32"))
    assert said / 100 == pytest.approx(card.macs / teacher.macs, abs=0.001)
    assert said > 25


def test_target_that_is_met_says_so_too(whole: Path) -> None:
    repository = Repository(whole / "models")
    cards = [repository.card(repository.newest("spots", name)) for name in ("fp32", "pruned")]
    assert cards[1].macs <= 0.7 * cards[0].macs
    assert f"; {cards[1].macs / cards[0].macs:.1%} are left" in " ".join(cards[1].lineage.steps)


def test_training_that_diverges_is_told_and_publishes_nothing(tmp_path: Path) -> None:
    write_recipe(tmp_path, recipe("{ distill = { pictures = 16, rate = 0.5 } }", teacher="unsteady_detector"))
    with pytest.raises(BadVariant, match=r"training went astray at step 2: the loss is nan; lower the rate"):
        run(tmp_path)
    assert not (tmp_path / "models").exists()


def test_pictures_that_trained_are_on_the_card(whole: Path) -> None:
    repository = Repository(whole / "models")
    seen = {name: repository.used_pictures(repository.newest("spots", name)).content() for name in models(whole)}
    frames, calibration = (
        UsedPictures(file_digest(path) for path in (whole / name).iterdir()) for name in ("frames", "calibration")
    )
    assert seen["fp32"] == b""
    assert seen["int8"] == calibration.content()
    assert seen["pruned"] == seen["student"] == frames.content()
    assert seen["pruned-int8"] == seen["pruned-qat"] == (frames | calibration).content()


ORDERS = {
    "ptq": ("tiny_detector", ["{ quantize = {} }"]),
    "distill, prune, ptq": ("block_detector", [DISTILL, PRUNE, "{ quantize = {} }"]),
    "distill, prune, qat": ("block_detector", [DISTILL, PRUNE, QAT]),
    "prune, distill, qat": ("block_detector", [PRUNE, DISTILL, QAT]),
    "student, prune, qat": ("block_detector", [STUDENT, PRUNE, QAT]),
    "student, prune, distill, ptq": ("plain_block_detector", [STUDENT, PRUNE, DISTILL, "{ quantize = {} }"]),
}


@pytest.mark.parametrize(("teacher", "steps"), ORDERS.values(), ids=ORDERS)
def test_steps_in_any_order_end_in_int8_that_answers_as_its_own_network(
    teacher: str, steps: list[str], tmp_path: Path
) -> None:
    """Within a twentieth of each output's range, on a picture that calibrated nothing."""
    write_recipe(tmp_path, recipe(", ".join(steps), teacher=teacher))
    run(tmp_path)
    repository = Repository(tmp_path / "models")
    model = onnx.load_from_string(repository.model_bytes(repository.newest("spots", "a")))
    assert assert_int8_kernels(model) > 4
    shop = workshop(tmp_path)
    end = plan(shop.recipe, shop.inputs)["a"]
    assert end
    picture = np.random.default_rng(5).integers(0, 256, (1, 64, 96, 3), np.uint8)
    twin = shop.network(end.parent)(torch.from_numpy(picture).permute(0, 3, 1, 2).float())
    for own, other in zip(answer(model, picture), twin, strict=True):
        wanted = other.detach().numpy()
        assert float(np.sqrt(np.mean((own - wanted) ** 2))) < 0.05 * max(1.0, float(np.ptp(wanted)))


# --- decisions that rest on measurements ---


def test_latency_is_the_target_and_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here a network takes the square root of its multiply-accumulates: cuts are made anew until that fits."""
    asked: list[float] = []

    def share(model: onnx.ModelProto, reference: onnx.ModelProto, size_wh: tuple[int, int]) -> float:
        macs = [arithmetic(one, size_wh).macs for one in (model, reference)]
        asked.append((macs[0] / macs[1]) ** 0.5)
        return asked[-1]

    monkeypatch.setattr(carry_out, "latency_share", share)
    prune = '{ prune = { keep = 0.8, target = "latency", rounds = 1, round_to = 2, least = 2, probe = 4 } }'
    write_recipe(tmp_path, recipe(prune, teacher="block_detector"))
    (task,) = chain(tmp_path, "a")
    shop = workshop(tmp_path)
    facts = shop.facts(task)
    assert facts["rounds"][-1]["left"] == pytest.approx(0.8, rel=carry_out.LATENCY_TOLERANCE)
    assert len(asked) > 2, "the start, before the cut, and at least one cut"
    measured = len(asked)
    assert workshop(tmp_path).facts(task) == facts
    assert len(asked) == measured


def test_latencies_of_an_interrupted_step_are_not_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They decided the first cut, so the second run must go by the same ones."""
    times = itertools.count(100, -3)
    monkeypatch.setattr(carry_out, "latency_share", lambda *_: next(times) / 100)
    monkeypatch.setattr(carry_out, "LATENCY_ATTEMPTS", 1)
    prune = '{ prune = { keep = 0.7, target = "latency", rounds = 2, pictures = 8, probe = 4 } }'
    write_recipe(tmp_path, recipe(prune, teacher="block_detector"))
    (task,) = chain(tmp_path, "a")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(carry_out, "train", killed)
        with pytest.raises(KeyboardInterrupt):
            workshop(tmp_path).facts(task)
    taken = json.loads((tmp_path / f"cache/steps/{task.key}.part/{carry_out.LATENCIES_FILE}").read_text())
    facts = workshop(tmp_path).facts(task)
    kept = json.loads((tmp_path / f"cache/steps/{task.key}/{carry_out.LATENCIES_FILE}").read_text())
    assert taken.items() <= kept.items()
    assert len(kept) > len(taken) >= 2
    assert [one["round"] for one in facts["rounds"]] == [1, 2]


@pytest.mark.parametrize("method", ["ptq", "qat"])
def test_layers_that_lose_too_much_stay_in_float(method: str, tmp_path: Path) -> None:
    """Half of them do, where the middle one's loss is the most that is allowed."""

    def made(max_loss: float) -> tuple[dict[str, float], int]:
        """Each layer's error, and how many INT8 kernels the file has."""
        settings = f'method = "{method}", mixed = true, max_loss = {max_loss}, slower = 1.0, pictures = 8'
        write_recipe(tmp_path, recipe(f"{{ quantize = {{ {settings} }} }}"))
        run(tmp_path)
        (task,) = chain(tmp_path, "a")
        shop = workshop(tmp_path)
        errors = {name: cost["error"] for name, cost in shop.facts(task)["layers"].items()}
        return errors, assert_int8_kernels(shop.quantized_graph(task))

    errors, all_kernels = made(1.0)
    middle = float(np.median(list(errors.values())))
    again, kernels = made(middle)
    assert again == errors
    assert 0 < kernels < all_kernels


def test_labels_of_the_teacher_are_known_by_all_that_they_depend_on(tmp_path: Path) -> None:
    def key(text: str) -> str:
        write_recipe(tmp_path, text)
        (task,) = chain(tmp_path, "a")
        return task.key

    frames = 'pictures = ["frames/*.png"]\n'
    text = recipe(DISTILL).replace(frames, f'{frames}labels = "teacher"\n')
    keys = {
        key(text),
        key(text.replace("min_score = 0.5", "min_score = 0.4")),
        key(text.replace("nms = 0.3", "nms = 0.5")),
    }
    assert len(keys | {key(recipe(DISTILL))}) == 4
