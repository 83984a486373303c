"""Soft targets and hard labels together, through a whole recipe."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from lathe.errors import InvalidInput, NotFound
from lathe.progress import Progress
from lathe_compression.compress import compress
from lathe_compression.recipe import load_recipe
from tests.compression.small_recipe import recipe, write_recipe

FRAMES = 'pictures = ["frames/*.png"]\n'


def write_labels(path: Path, file_names: list[str], categories: int = 1) -> None:
    content = {
        "images": [{"id": n, "file_name": name} for n, name in enumerate(file_names)],
        "categories": [{"id": n, "name": str(n)} for n in range(categories)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 0, "bbox": [20, 10, 40, 30], "iscrowd": 0}
            for n in range(len(file_names))
        ],
    }
    path.write_text(json.dumps(content))


def trained(folder: Path, labels: str = "", losses: str = "", output: StringIO | None = None) -> dict[str, Any]:
    """The facts and weights that one step of distillation leaves."""
    step = f"{{ distill = {{ pictures = 16, rate = 0.01{losses} }} }}"
    text = recipe(step).replace(FRAMES, f'{FRAMES}labels = "{labels}"\n' if labels else FRAMES)
    write_recipe(folder, text)
    torch.set_num_threads(1)
    progress = Progress(Console(file=output or StringIO(), width=300))
    refs = compress(load_recipe(folder / "spots.toml"), folder / "models", progress)
    making: dict[str, Any] = json.loads((folder / f"models/spots/a/{refs[1].version}/making.json").read_text())
    return making


def test_labels_are_learnt_from_beside_the_teachers_answers(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    write_labels(tmp_path / "frames/labels.json", [f"{n}.png" for n in range(4)])
    alone = trained(tmp_path)["steps"][0]["curve"][-1][1]
    both = trained(tmp_path, "frames/labels.json")["steps"][0]["curve"][-1][1]
    heavier = trained(tmp_path, "frames/labels.json", ", losses = { labels = 10.0 }")["steps"][0]["curve"][-1][1]
    none = trained(tmp_path, "frames/labels.json", ", losses = { labels = 0.0 }")["steps"][0]["curve"][-1][1]
    assert heavier > both > alone  # the same scenes, and more that is asked of the student
    assert none == alone


def test_labels_of_the_teacher_need_no_file(tmp_path: Path) -> None:
    """On noise the untrained teacher finds enough to learn from."""
    alone = trained(tmp_path)["steps"][0]["curve"][-1][1]
    both = trained(tmp_path, "teacher")["steps"][0]["curve"][-1][1]
    none = trained(tmp_path, "teacher", ", losses = { labels = 0.0 }")["steps"][0]["curve"][-1][1]
    assert both > alone
    assert none == alone


def test_labels_of_other_pictures_are_told(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    write_labels(tmp_path / "frames/labels.json", ["other.png"])
    (tmp_path / "frames/other.png").write_bytes((tmp_path / "evaluation/0.png").read_bytes())
    output = StringIO()
    text = recipe("{ distill = { pictures = 4 } }").replace(
        FRAMES, 'pictures = ["frames/[0-5].png"]\nlabels = "frames/labels.json"\n'
    )
    write_recipe(tmp_path, text)
    progress = Progress(Console(file=output, width=300))
    compress(load_recipe(tmp_path / "spots.toml"), tmp_path / "models", progress)
    assert "no training picture is one of those that the labels are of" in output.getvalue()


@pytest.mark.parametrize(
    ("labels", "error", "told"),
    [
        ("frames/none.json", NotFound, "no file matches frames/none.json"),
        ("frames/two.json", InvalidInput, r"two\.json has 2 categories, and the model 1 classes"),
        ("frames/0.png", InvalidInput, r"0\.png is not a COCO instances file"),
    ],
)
def test_labels_that_cannot_be_used_are_told(labels: str, error: type[Exception], told: str, tmp_path: Path) -> None:
    write_recipe(tmp_path)
    write_labels(tmp_path / "frames/two.json", ["0.png"], categories=2)
    with pytest.raises(error, match=told):
        trained(tmp_path, labels)
    assert not (tmp_path / "models").exists()
