"""A plan's keys: what two variants share, what a change reaches, and what it leaves alone."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lathe.errors import InvalidInput
from lathe_compression import plan as plan_module
from lathe_compression.plan import Inputs, Task, chosen_variants, essence, plan
from lathe_compression.recipe import Recipe, load_recipe
from tests.compression.small_faces import write_embedding_recipe
from tests.compression.small_recipe import TRAINED, recipe, write_recipe

INPUTS = Inputs("teacher", "frames", "calibration", {}, ["torch 2.0"])


def load(folder: Path, text: str = TRAINED) -> Recipe:
    return load_recipe(write_recipe(folder, text)).recipe


def keys(recipe: Recipe, inputs: Inputs = INPUTS) -> dict[str, list[str]]:
    """Of every variant, from the teacher on."""
    return {name: [one.key for one in task.chain] if task else [] for name, task in plan(recipe, inputs).items()}


def changed(before: dict[str, list[str]], after: dict[str, list[str]]) -> dict[str, list[int]]:
    """Places (from 1) of the steps whose keys differ, for variants that have some."""
    found = {
        name: [n for n, (one, other) in enumerate(zip(steps, after[name], strict=True), 1) if one != other]
        for name, steps in before.items()
    }
    return {name: places for name, places in found.items() if places}


def test_variants_have_the_steps_of_their_parents_before_their_own(tmp_path: Path) -> None:
    ends = plan(load(tmp_path), INPUTS)
    assert ends["fp32"] is None
    assert [type(one.step.settings).__name__ for one in chain(ends["pruned-qat"])] == ["Prune", "Distill", "Quantize"]
    assert [one.name for one in chain(ends["pruned-int8"])] == [
        "pruned, step 1",
        "pruned, step 2",
        "pruned-int8, step 1",
    ]


def chain(task: Task | None) -> list[Task]:
    assert task
    return task.chain


def test_common_prefixes_of_two_variants_are_one_task(tmp_path: Path) -> None:
    """Also where neither is the other's parent."""
    text = recipe(
        "{ prune = { keep = 0.5 } }, { quantize = {} }", "{ prune = { keep = 0.5 } }, { distill = { pictures = 8 } }"
    )
    ends = plan(load(tmp_path, text), INPUTS)
    first, second = chain(ends["a"]), chain(ends["b"])
    assert first[0] is second[0]
    assert first[1].key != second[1].key
    assert first[0].name == "a, step 1"  # of the variant that first asks for it


def test_the_same_step_after_another_is_another_task(tmp_path: Path) -> None:
    step = "{ distill = { pictures = 8 } }"
    (first, second, third) = chain(plan(load(tmp_path, recipe(f"{step}, {step}, {step}")), INPUTS)["a"])
    assert len({first.key, second.key, third.key}) == 3


def test_keys_do_not_depend_on_names_or_on_other_variants(tmp_path: Path) -> None:
    alone = keys(load(tmp_path, recipe("{ prune = { keep = 0.5 } }")))["a"]
    among = keys(load(tmp_path, recipe("{ quantize = {} }", "{ prune = { keep = 0.5 } }")))["b"]
    assert alone == among


PRUNED = {"pruned": [1, 2], "pruned-int8": [1, 2, 3], "pruned-qat": [1, 2, 3]}
TRAINING = PRUNED | {"student": [1], "student-int8": [1, 2, 3]}
EVERYTHING = TRAINING | {"int8": [1]}

CHANGES = {
    "a prune's target": ("keep = 0.7", "keep = 0.6", PRUNED),
    "a distillation's length": (
        "{ distill = { pictures = 16 } },",
        "{ distill = { pictures = 24 } },",
        {"pruned": [2], "pruned-int8": [2, 3], "pruned-qat": [2, 3]},
    ),
    "the last step alone": ('method = "qat", pictures = 16', 'method = "qat", pictures = 24', {"pruned-qat": [3]}),
    "a student's width": ("width = 0.5", "width = 0.75", {"student": [1], "student-int8": [1, 2, 3]}),
    "the batch": ("batch = 4", "batch = 5", TRAINING),
    "the seed": ("batch = 4", "batch = 4\nseed = 2", TRAINING),
    "the scenes": ("cells = [16, 96]", "cells = [16, 64]", TRAINING),
    "the losses": ("batch = 4", "batch = 4\nlosses = { features = 2 }", TRAINING),
    "the input's normalisation": ("notices = [", "input = { std = [255, 255, 255] }\nnotices = [", EVERYTHING),
    "the serving size": ("serving_size = [96, 64]", "serving_size = [64, 64]", EVERYTHING),
    "the thresholds": ("nms = 0.3", "nms = 0.4", {}),
    "the name": ('name = "spots"', 'name = "dots"', {}),
    "the notices": ("weights: made", "weights: found", {}),
    "what is recommended": ("recommended = true", "recommended = false", {}),
    "the evaluation pictures": ('"evaluation/*.png"', '"evaluation/0.png"', {}),
    "a setting that is written out at its default": ("quantize = {}", "quantize = { equalize = true }", {}),
    "training settings at their defaults": ("batch = 4", "batch = 4\nseed = 1\nlosses = { outputs = 1 }", {}),
}


@pytest.mark.parametrize(("old", "new", "behind"), CHANGES.values(), ids=CHANGES)
def test_change_reaches_the_keys_behind_it_and_no_others(
    old: str, new: str, behind: dict[str, list[int]], tmp_path: Path
) -> None:
    assert old in TRAINED
    before, after = load(tmp_path), load(tmp_path, TRAINED.replace(old, new))
    assert before != after or "default" in new or not behind
    assert changed(keys(before), keys(after)) == behind


@pytest.mark.parametrize(
    ("field", "behind"),
    [
        ("teacher", EVERYTHING),
        ("tools", EVERYTHING),
        ("frames", TRAINING),
        ("calibration", {"int8": [1], "pruned-int8": [3], "student-int8": [3], "pruned-qat": [3]}),
    ],
)
def test_other_inputs_reach_the_steps_that_read_them(field: str, behind: dict[str, list[int]], tmp_path: Path) -> None:
    """And all that come after those."""
    made = load(tmp_path)
    other: Any = ["torch 3.0"] if field == "tools" else "other"
    after = keys(made, dataclasses.replace(INPUTS, **{field: other}))
    assert changed(keys(made), after) == behind


@dataclass(frozen=True)
class Inner:
    share: float = 0.5


@dataclass(frozen=True)
class Settings:
    needed: int
    known: str = "usual"
    inner: Inner = dataclasses.field(default_factory=Inner)
    parts: tuple[Inner, ...] = ()


@dataclass(frozen=True)
class NewerInner(Inner):
    new: bool = False


@dataclass(frozen=True)
class Newer(Settings):
    new: int | None = None
    inner: Inner = dataclasses.field(default_factory=NewerInner)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (Settings(1), {"needed": 1}),
        (Settings(1, "usual", Inner(), ()), {"needed": 1}),
        (Settings(1, "other"), {"needed": 1, "known": "other"}),
        (Settings(1, inner=Inner(0.6)), {"needed": 1, "inner": {"share": 0.6}}),
        (Settings(1, parts=(Inner(), Inner(1))), {"needed": 1, "parts": [{}, {"share": 1}]}),
        (Newer(1), {"needed": 1}),  # a new setting at its default changes nothing
        (Newer(1, inner=NewerInner(0.6)), {"needed": 1, "inner": {"share": 0.6}}),
        (Newer(1, new=2), {"needed": 1, "new": 2}),
        (Newer(1, inner=NewerInner(new=True)), {"needed": 1, "inner": {"new": True}}),
    ],
)
def test_essence_is_what_is_not_at_its_default(settings: Settings, told: dict[str, object]) -> None:
    assert essence(settings) == told


@pytest.mark.parametrize(
    ("only", "made"),
    [
        ([], ["fp32", "int8", "pruned", "pruned-int8", "student", "student-int8", "pruned-qat"]),
        (["pruned-qat"], ["fp32", "pruned-qat"]),
        (["student", "int8"], ["fp32", "int8", "student"]),
        (["fp32"], ["fp32"]),
    ],
)
def test_only_the_named_variants_and_the_reference(only: list[str], made: list[str], tmp_path: Path) -> None:
    assert [variant.name for variant in chosen_variants(load(tmp_path), only)] == made


@pytest.mark.parametrize(
    ("name", "told"),
    [("prunde", r'no variant "prunde"; did you mean "pruned"\?'), ("zzz", 'no variant "zzz"$')],
)
def test_unknown_variant_is_told_with_the_nearest(name: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=told):
        chosen_variants(load(tmp_path), ["pruned", name])


def test_what_embeddings_learn_reaches_their_steps_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marks = load_recipe(write_embedding_recipe(tmp_path)).recipe
    detector = load(tmp_path)
    before = keys(marks), keys(detector)
    monkeypatch.setattr(plan_module, "EMBEDDING_REVISION", plan_module.EMBEDDING_REVISION + 1)
    assert changed(before[0], keys(marks)) == {"int8": [1], "pruned": [1, 2], "pruned-qat": [1, 2, 3]}
    assert changed(before[1], keys(detector)) == {}
