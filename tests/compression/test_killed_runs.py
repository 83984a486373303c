"""Runs that are killed and gone on with, or repeated, end with the same files."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from lathe_compression import carry_out, training
from tests.compression.small_recipe import CHOSEN, TRAINED, write_recipe
from tests.compression.small_runs import chain, events, files, latency_by_macs, models, run, workshop

pytestmark = pytest.mark.usefixtures("one_thread", "the_same_settings")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def the_same_settings() -> Iterator[None]:
    """As the killed runs have them: every step is a point of the curve, and no time is really taken."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "STEPS_PER_POINT", 1)
        patch.setattr(carry_out, "latency_share", latency_by_macs)
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, the_same_settings: None, one_thread: None) -> dict[str, Path]:
    """Folders of whole runs, by the variants that they have."""
    folders = {}
    for text in (TRAINED, CHOSEN):
        folder = tmp_path_factory.mktemp("undisturbed")
        write_recipe(folder, text)
        run(folder)
        folders |= dict.fromkeys(models(folder), folder)
    return folders


@dataclass(frozen=True)
class Kill:
    """A moment of a run: before a file is written for the n-th time, or when half of it is.

    Attributes:
        step: place in the variant's chain, from 0.
        file: the beginning of its name.
        left: files that the step has written whole by then.
    """

    variant: str
    step: int
    file: str
    number: int
    left: frozenset[str] = frozenset()
    half: bool = False


CUT = frozenset({"cut-0.pt", "sensitivity.json"})
LEARNS = frozenset({"checkpoint.pt"})
TIMED = frozenset({"latencies.json"})

KILLS = {
    "pruning, before it has cut": Kill("pruned", 0, "cut-0", 1, frozenset({"sensitivity.json"})),
    "pruning, before any checkpoint": Kill("pruned", 0, "checkpoint-0", 1, CUT),
    "pruning, while it learns": Kill("pruned", 0, "checkpoint-0", 2, CUT | {"checkpoint-0.pt"}),
    "pruning, between two rounds": Kill("pruned", 0, "cut-1", 1, CUT | {"checkpoint-0.pt", "taught-0.pt"}, half=True),
    "pruning, while it writes which blocks go": Kill("a", 0, "blocks", 1, half=True),
    "pruning, when it knows which blocks go": Kill("a", 0, "cut-0", 1, frozenset({"blocks.json", "sensitivity.json"})),
    "pruning, while it writes the first time taken": Kill("b", 0, "latencies", 1, half=True),
    "pruning, while it writes a later time taken": Kill("b", 0, "latencies", 3, TIMED, half=True),
    "pruning, when a cut was made by times taken": Kill("b", 0, "checkpoint-0", 2, TIMED | CUT | {"checkpoint-0.pt"}),
    "distillation, before any checkpoint": Kill("pruned", 1, "checkpoint", 1),
    "distillation, while it learns": Kill("pruned", 1, "checkpoint", 3, LEARNS),
    "distillation, while it writes a checkpoint": Kill("pruned", 1, "checkpoint", 3, LEARNS, half=True),
    "distillation, while it writes the result": Kill("pruned", 1, "state", 1, LEARNS, half=True),
    "distillation of a new student": Kill("student", 0, "checkpoint", 3, LEARNS),
    "post-training quantization, while it writes the model": Kill("int8", 0, "model", 1, half=True),
    "post-training quantization, before it is finished": Kill("int8", 0, "facts", 1, frozenset({"model.onnx"})),
    "mixed precision, while it writes what layers cost": Kill("c", 0, "layers", 1, half=True),
    "mixed precision, when it knows what layers cost": Kill("c", 0, "model", 1, frozenset({"layers.json"})),
    "quantization-aware training, before any checkpoint": Kill("pruned-qat", 2, "checkpoint", 1),
    "quantization-aware training, while it learns": Kill("pruned-qat", 2, "checkpoint", 3, LEARNS),
}

DRIVER = """
import json, os, signal, sys
from pathlib import Path

import torch
import torch._dynamo  # what the optimiser would load in each child

from lathe.progress import Progress
from lathe_compression import carry_out, training
from lathe_compression.compress import compress
from lathe_compression.recipe import load_recipe
from tests.compression.small_runs import latency_by_macs

torch.set_num_threads(1)
training.CHECKPOINT_SECONDS, training.STEPS_PER_POINT = 0, 1
carry_out.latency_share = latency_by_macs
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
        left, training.write_whole, carry_out.write_whole = kill["number"], write, write
        folder = Path(kill["folder"])
        compress(load_recipe(folder / "spots.toml"), folder / "models", Progress(), only=[kill["variant"]])
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def killed(undisturbed: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of runs that were killed: each had all the steps before finished, and none from there on."""
    folders = {}
    for name, kill in KILLS.items():
        folder = folders[name] = tmp_path_factory.mktemp("killed")
        shutil.copytree(undisturbed[kill.variant], folder, dirs_exist_ok=True)
        shutil.rmtree(folder / "models")
        for task in chain(folder, kill.variant)[kill.step :]:
            shutil.rmtree(folder / "cache/steps" / task.key)
    told = json.dumps([asdict(kill) | {"folder": str(folders[name]), "left": []} for name, kill in KILLS.items()])
    ended = subprocess.run(
        [sys.executable, "-c", DRIVER, told], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.stdout.split() == [str(-signal.SIGKILL)] * len(KILLS), ended.stderr[-3000:]
    return folders


@pytest.mark.parametrize("moment", KILLS)
def test_killed_run_started_again_ends_with_the_same_model(
    moment: str, undisturbed: Mapping[str, Path], killed: Mapping[str, Path]
) -> None:
    folder, kill = killed[moment], KILLS[moment]
    assert not (folder / "models").exists()
    begun = folder / "cache/steps" / (chain(folder, kill.variant)[kill.step].key + ".part")
    assert {path.name for path in begun.iterdir() if path.suffix != ".new"} == kill.left
    run(folder, kill.variant)
    expected = models(undisturbed[kill.variant])
    assert models(folder) == {name: expected[name] for name in ("fp32", kill.variant)}
    assert not begun.exists()


def test_killed_runs_curve_is_whole(undisturbed: Mapping[str, Path], killed: Mapping[str, Path]) -> None:
    folders = undisturbed["pruned"], killed["distillation, while it learns"]
    curves = [workshop(one).facts(chain(one, "pruned")[1])["curve"] for one in folders]
    assert len(curves[0]) == 4
    assert curves[0] == curves[1]


def test_finished_run_repeated_trains_nothing_and_publishes_nothing(undisturbed: Mapping[str, Path]) -> None:
    folder = undisturbed["pruned"]

    def kept() -> list[dict[str, str]]:
        return [files(folder / name) for name in ("models", "cache/steps", "cache/frames")]

    before = kept()
    refs = run(folder)
    assert {ref.version for ref in refs} == {1}
    assert kept() == before
    assert {one["event"] for one in events(folder)} == {"run", "variant", "end"}
    assert not [path for path in before[1] if "checkpoint" in path or "cut-" in path or "taught-" in path]


def test_two_fresh_folders_end_with_the_same_models(whole: Path, tmp_path: Path) -> None:
    write_recipe(tmp_path, TRAINED)
    run(tmp_path)
    assert models(tmp_path) == models(whole)
    assert len(models(tmp_path)) == 7
