"""Recipes of embedding networks: what they must say, and a whole run of every kind of step in small."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lathe.embedding_space import space_id
from lathe.errors import InvalidInput
from lathe.progress import Progress
from lathe.repository import Repository
from lathe.v1 import card_pb2
from lathe_compression.compress import compress
from lathe_compression.dlib_face import MEAN, STD
from lathe_compression.pictures import file_digest
from lathe_compression.quantize import assert_int8_kernels
from lathe_compression.recipe import load_recipe
from lathe_server.engines import OnnxRuntimeEngine
from lathe_server.engines.golden import check_golden, golden_picture
from tests.compression.small_faces import RECIPE, publish_detector, write_embedding_recipe
from tests.compression.small_recipe import RECIPE as DETECTOR
from tests.compression.small_recipe import TRAINED
from tests.conftest import ROOT


def write(folder: Path, text: str = RECIPE) -> Path:
    path = folder / "marks.toml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run: the recipe, its pictures, and `models`."""
    folder = tmp_path_factory.mktemp("marks")
    compress(load_recipe(write_embedding_recipe(folder)), folder / "models", Progress())
    return folder


def card(folder: Path, variant: str) -> card_pb2.Card:
    repository = Repository(folder / "models")
    return repository.card(repository.newest("marks", variant))


VARIANTS = ("fp32", "int8", "pruned", "pruned-qat")


def test_cards_hold_the_space_that_follows_from_the_file(made: Path) -> None:
    spaces = set()
    for variant in VARIANTS:
        held = card(made, variant)
        assert (held.task, held.decoder) == (card_pb2.TASK_EMBEDDING, card_pb2.DECODER_UNSPECIFIED)
        assert (held.serving_size.width, held.serving_size.height) == (32, 32)
        assert not held.HasField("thresholds")
        assert (held.embedding.dimensions, held.embedding.alignment) == (16, card_pb2.ALIGNMENT_DLIB)
        assert held.embedding.space == space_id("marks", held.sha256, "dlib")
        spaces.add(held.embedding.space)
    assert len(spaces) == len(VARIANTS)


def test_files_take_single_faces_of_one_size_and_give_unit_vectors(made: Path) -> None:
    repository = Repository(made / "models")
    for variant in VARIANTS:
        engine = OnnxRuntimeEngine(repository.model_bytes(repository.newest("marks", variant)))
        assert [spec.name for spec in (*engine.inputs, *engine.outputs)] == ["pixels", "embedding"]
        assert engine.inputs[0].shape == (-1, 32, 32, 3)
        faces = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
        embeddings = engine.run(faces)["embedding"]
        assert embeddings.shape == (3, 16)
        assert np.linalg.norm(embeddings, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
        check_golden(engine.run(golden_picture((32, 32))), card(made, variant).golden)


def test_quality_is_the_cosine_to_the_reference(made: Path) -> None:
    assert not card(made, "fp32").quality
    for variant in VARIANTS[1:]:
        (quality,) = card(made, variant).quality
        assert (quality.metric, quality.pictures) == ("cosine", 3)
        assert 0.5 < quality.value < 1
        (latency,) = card(made, variant).latency
        assert latency.reference_variant == "fp32"
        assert latency.stages.infer > 0
        assert latency.stages.preprocess > 0


def test_pictures_that_made_a_variant_are_those_that_the_faces_came_from(made: Path) -> None:
    repository = Repository(made / "models")
    for variant, folders in {
        "int8": ["calibration"],
        "pruned": ["frames"],
        "pruned-qat": ["calibration", "frames"],
    }.items():
        used = repository.used_pictures(repository.newest("marks", variant))
        digests = {file_digest(path) for folder in folders for path in (made / folder).iterdir()}
        assert len(used) == len(digests)
        assert all(digest in used for digest in digests)


def test_every_convolution_of_the_int8_variants_runs_in_int8(made: Path) -> None:
    import onnx

    repository = Repository(made / "models")
    for variant in ("int8", "pruned-qat"):
        model = onnx.load_from_string(repository.model_bytes(repository.newest("marks", variant)))
        assert assert_int8_kernels(model) == 4


def test_pruning_took_hidden_channels_and_left_the_embedding(made: Path) -> None:
    repository = Repository(made / "models")
    making = json.loads((repository.folder(repository.newest("marks", "pruned")) / "making.json").read_text())
    assert set(making["steps"][0]["channels"]) == {"first", "down.0"}
    assert card(made, "pruned").macs < card(made, "fp32").macs
    assert {"cosine", "speedup"} <= set(making["steps"][1])


def test_a_second_run_publishes_nothing_new(made: Path) -> None:
    refs = compress(load_recipe(made / "marks.toml"), made / "models", Progress())
    assert [ref.version for ref in refs] == [1] * len(VARIANTS)


def test_pictures_without_a_face_are_named(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publish_detector(made / "models", "blind", min_score=0.95)
    recipe = write(made, RECIPE.replace("models/middle", "models/blind"))
    with pytest.raises(InvalidInput, match="quantizing needs calibration pictures"):
        compress(load_recipe(recipe), made / "models", Progress(), only=["int8"])
    write(made)
    assert "4 pictures show no face and are left out: 0.png" in capsys.readouterr().err


WRONG = {
    "no alignment": ('alignment = "dlib"\n', "", 'the key "alignment" is missing: the task is embedding'),
    "another alignment": ('"dlib"', '"dlob"', 'must be one of "dlib", "arcface"; did you mean "dlib"'),
    "no detector": ('detector = "models/middle/fp32"\n', "", 'the key "detector" is missing'),
    "half a detector": ("models/middle/fp32", "middle/fp32", "detector must be repository/model/variant"),
    "a decoder": (
        'alignment = "dlib"',
        'alignment = "dlib"\ndecoder = "boxes"',
        '"decoder" is not of the task embedding',
    ),
    "classes": (
        'alignment = "dlib"',
        'alignment = "dlib"\nclasses = ["face"]',
        '"classes" is not of the task embedding',
    ),
    "no size": ("[32, 32]", "[0, 32]", "serving_size must be at least 1"),
    "a training size": ("batch = 4", "batch = 4\nsize = [64, 64]", "an embedding network learns at its serving_size"),
    "labels": ('["frames/*.png"]', '["frames/*.png"]\nlabels = "teacher"', "labels are of the task detection"),
    "a grid": ('["calibration/*.png"]', '["calibration/*.png"]\ngrid = 2', "grid is of the task detection"),
    "cells": ("batch = 4", "batch = 4\naugment = { cells = [24, 100] }", "augment.cells is of the task detection"),
    "zoom": ("batch = 4", "batch = 4\naugment = { zoom = 2 }", "augment.zoom is of the task detection"),
    "no rate": (
        "[training]",
        '[verification]\npairs = "pairs.txt"\nfmrs = []\n[training]',
        "fmrs must be above 0 and no more than 0.05",
    ),
    "a rate of one": (
        "[training]",
        '[verification]\npairs = "p"\nfmrs = [1.0]\n[training]',
        "fmrs must be above 0 and no more than 0.05",
    ),
}


@pytest.mark.parametrize(("old", "new", "told"), WRONG.values(), ids=WRONG)
def test_wrong_recipe_is_told(old: str, new: str, told: str, tmp_path: Path) -> None:
    assert old in RECIPE
    with pytest.raises(InvalidInput, match=told):
        load_recipe(write(tmp_path, RECIPE.replace(old, new, 1)))


@pytest.mark.parametrize("added", ['alignment = "dlib"', 'detector = "models/face/int8"'])
def test_detectors_have_neither_alignment_nor_detector(added: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is not of the task detection"):
        load_recipe(write(tmp_path, DETECTOR.replace('decoder = "heatmap"', f'decoder = "heatmap"\n{added}')))


@pytest.mark.parametrize(
    ("training", "told"),
    [
        ("augment = { scale = 0.1 }", "augment.scale"),
        ("augment = { turn = 0 }", "augment.turn"),
        ("augment = { shift = 0.1 }", "augment.shift"),
        ("losses = { relations = 0 }", "losses.relations"),
        ("losses = { mirrored = true }", "losses.mirrored"),
    ],
)
def test_detectors_do_not_learn_as_embeddings_do(training: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=f"{told} is of the task embedding"):
        load_recipe(write(tmp_path, f"{DETECTOR}\n[training]\n{training}\n"))


@pytest.mark.parametrize("kind", ["distill = { pictures = 8", "prune = { keep = 0.5"])
def test_a_step_of_a_detector_does_not_either(kind: str, tmp_path: Path) -> None:
    step = f"{{ {kind}, losses = {{ relations = 2 }} }} }}"
    text = TRAINED.replace("{ distill = { pictures = 16 } }", step)
    assert text != TRAINED
    with pytest.raises(InvalidInput, match=r"losses\.relations is of the task embedding"):
        load_recipe(write(tmp_path, text))


def test_verification_is_of_embeddings(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"\[verification\] is of the task embedding"):
        load_recipe(write(tmp_path, DETECTOR + '\n[verification]\npairs = "pairs.txt"\n'))


@pytest.mark.parametrize("name", ["face-embed.toml", "face-embed-results.toml"])
def test_the_shipped_recipes_are_of_one_model(name: str) -> None:
    recipe = load_recipe(ROOT / "recipes" / name).recipe
    assert (recipe.model.name, recipe.model.alignment_name, recipe.model.fixed_wh) == ("face-embed", "dlib", (150, 150))
    assert (recipe.model.input.mean, recipe.model.input.std) == (MEAN, STD)
    assert [variant.name for variant in recipe.variant][:2] == ["fp32", "int8"]
    assert [variant.name for variant in recipe.variant if variant.recommended] == ["int8"]
    assert recipe.model.output_names == ("embedding",)
