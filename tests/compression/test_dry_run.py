"""Parts of a run, and what one would do."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from lathe.errors import InvalidInput
from lathe_compression.dry_run import pictures, show_plan
from lathe_compression.recipe import load_recipe
from tests.compression.small_recipe import TRAINED, recipe, write_recipe
from tests.compression.small_runs import (
    chain,
    files,
    models,
    run,
)

pytestmark = pytest.mark.usefixtures("one_thread")


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
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    (task,) = chain(tmp_path, "student")
    finished = tmp_path / "cache/steps" / task.key
    finished.rename(finished.with_name(task.key + ".part"))
    lines = shown(tmp_path, capsys, ["student"])
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
