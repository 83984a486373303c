"""What a step's result depends on, and what it does not."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import cv2
import pytest
import torch
from torch import nn

from lathe.errors import InvalidInput
from lathe.repository import Repository
from lathe.used_pictures import UsedPictures
from lathe_compression.pictures import file_digest
from lathe_compression.plan import plan
from lathe_compression.student import residual_sums
from lathe_compression.taps import traced
from lathe_compression.workshop import _network_digest
from tests.compression.small_recipe import recipe, write_recipe
from tests.compression.small_runs import (
    DISTILL,
    PRUNE,
    chain,
    models,
    run,
    workshop,
)

pytestmark = pytest.mark.usefixtures("one_thread")

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


def test_pruning_weighs_the_loss_as_the_step_says(tmp_path: Path) -> None:
    """Blocks, channels and the rounds' training: all of them would look for a feature that is not there."""
    prune = "{ prune = { keep = 0.5, blocks = 1, rounds = 2, pictures = 8, probe = 4, losses = { features = 0.0 } } }"
    text = recipe(prune, teacher="block_detector")
    elsewhere = text.replace("batch = 4", 'batch = 4\nlosses = { at = ["nothing"] }')
    assert elsewhere != text
    write_recipe(tmp_path, elsewhere)
    run(tmp_path)
    write_recipe(tmp_path, elsewhere.replace(", losses = { features = 0.0 }", ""))
    with pytest.raises(InvalidInput, match="have no feature nothing"):
        run(tmp_path)


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
