"""Recipes are checked whole before anything starts, and each error says where."""

from __future__ import annotations

from pathlib import Path

import pytest

from lathe.errors import InvalidInput, NotFound
from lathe_compression.recipe import load_recipe
from tests.compression import small_recipe
from tests.conftest import ROOT

RECIPE = (
    small_recipe.RECIPE.replace('notices = ["weights: made on the spot"]', "\n[model.input]\nstd = [128, 128, 128]")
    .replace('pictures = ["calibration/*.png"]', 'pictures = ["a.png"]\ngrid = 2')
    .replace('[[evaluation]]\npictures = ["evaluation/*.png"]\n\n', "")
    .replace("quantize = {}", "quantize = { reduce_range = true }")
)


def write(folder: Path, text: str) -> Path:
    path = folder / "spots.toml"
    path.write_text(text)
    return path


def test_recipe_is_read(tmp_path: Path) -> None:
    file = load_recipe(write(tmp_path, RECIPE))
    recipe = file.recipe
    assert (file.folder, len(file.sha256)) == (tmp_path, 64)
    assert recipe.model.serving_size == (96, 64)
    assert recipe.model.input.std == (128.0, 128.0, 128.0)
    assert recipe.calibration[0].grid == 2
    assert [variant.name for variant in recipe.variant] == ["fp32", "int8"]
    assert recipe.variant[1].steps[0].quantize.reduce_range


def test_committed_recipe_is_valid() -> None:
    recipe = load_recipe(ROOT / "recipes/face.toml").recipe
    assert [variant.name for variant in recipe.variant][:2] == ["fp32", "int8"]
    assert recipe.evaluation


CHANGES = {
    "unknown key": ("grid = 2", "gird = 2", r'line 17: unknown key "gird"; did you mean "grid"\?'),
    "unknown key in an inline table": ("reduce_range", "reduce_rnage", 'line 26: unknown key "reduce_rnage"; did you'),
    "unknown table": ("[[variant]]", "[[variants]]", r'line 19: unknown key "variants"; did you mean "variant"\?'),
    "key of another table": ('parent = "fp32"', 'decoder = "boxes"', 'line 24: unknown key "decoder"'),
    "unknown step": ("{ quantize =", "{ quantise =", r'line 26: unknown key "quantise"; did you mean "quantize"\?'),
    "missing key": ('name = "int8"\n', "", r'line 22: the key "name" is missing'),
    "missing table": (RECIPE[RECIPE.index("[[variant]]") :], "", 'spots.toml: the key "variant" is missing'),
    "text for a number": (
        "size_multiple = 32",
        'size_multiple = "32"',
        "line 9: .* must be a whole number",
    ),
    "number for text": ('task = "detection"', "task = 1", 'line 3: "task" must be one of "detection"'),
    "number for a flag": ("recommended = true", "recommended = 1", 'line 25: "recommended" must be true or false'),
    "flag for a number": ("nms = 0.3", "nms = true", 'line 10: "nms" must be a number'),
    "text for a list": ('["spot"]', '"spot"', 'line 5: "classes" must be a list'),
    "list for a table": ("{ min_score = 0.5, nms = 0.3, max_detections = 100 }", "[]", '"thresholds" must be a table'),
    "one size": ("[96, 64]", "[96]", 'line 8: "serving_size" must have 2 entries'),
    "wrong word": ('"heatmap"\n', '"heat-map"\n', 'line 4: "decoder" must be one of "heatmap", "boxes"; did you mean'),
    "not TOML": ("[model]", "[model", "not valid TOML"),
    "size off the multiple": ("[96, 64]", "[96, 50]", "line 1: serving_size must be multiples of size_multiple"),
    "multiple of zero": ("size_multiple = 32", "size_multiple = 0", "both at least 1"),
    "deviation of zero": ("[128, 128, 128]", "[0, 1, 1]", "line 12: std must be above 0"),
    "score above one": ("min_score = 0.5", "min_score = 50", "line 10: min_score and nms must be from 0 to 1"),
    "decoder without its output": ('"landmarks"]', '"points"]', "the decoder heatmap needs the output landmarks"),
    "no pictures": ('["a.png"]', "[]", "line 15: pictures must name at least one"),
    "empty picture": ('["a.png"]', '[""]', "none may be empty"),
    "grid of zero": ("grid = 2", "grid = 0", "line 15: every and grid must be at least 1"),
    "unknown parent": ('parent = "fp32"', 'parent = "fp23"', r'the parent "fp23" of "int8" is no earlier variant; did'),
    "its own parent": ('parent = "fp32"', 'parent = "int8"', 'the parent "int8" of "int8" is no earlier variant'),
    "duplicate variant": ('name = "int8"', 'name = "fp32"', 'two variants are named "fp32"'),
    "first variant with steps": (
        'name = "fp32"\n',
        'name = "fp32"\nsteps = [{ quantize = {} }]\n',
        "the first variant",
    ),
    "quantized twice": (
        "{ quantize = { reduce_range = true } }",
        "{ quantize = {} }, { quantize = {} }",
        "a step follows quantization",
    ),
    "no calibration": ('[[calibration]]\npictures = ["a.png"]\ngrid = 2\n', "", r"need \[\[calibration"),
    "upper case": ('name = "int8"', 'name = "INT8"', "a variant is named by 1 to 63 of a-z"),
    "name of the routes": ('name = "int8"', 'name = "routes"', 'a variant cannot be named "routes"'),
    "path for a model": ('name = "spots"', 'name = "../spots"', "a model is named by"),
}


@pytest.mark.parametrize(("old", "new", "told"), CHANGES.values(), ids=CHANGES)
def test_wrong_recipe_is_told(old: str, new: str, told: str, tmp_path: Path) -> None:
    assert old in RECIPE
    with pytest.raises(InvalidInput, match=told):
        load_recipe(write(tmp_path, RECIPE.replace(old, new)))


@pytest.mark.parametrize("new", ["classes = []\n", ""])
def test_classes_need_no_names(new: str, tmp_path: Path) -> None:
    assert load_recipe(write(tmp_path, RECIPE.replace('classes = ["spot"]\n', new))).recipe.model.classes == ()


def test_nothing_follows_quantization(tmp_path: Path) -> None:
    more = '\n[[variant]]\nname = "again"\nparent = "int8"\nsteps = [{ quantize = {} }]\n'
    with pytest.raises(InvalidInput, match='in "again" a step follows quantization'):
        load_recipe(write(tmp_path, RECIPE + more))


def test_missing_recipe(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no file"):
        load_recipe(tmp_path / "none.toml")
