"""A whole run: recipe in, measured and published variants out, or nothing at all."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import onnx
import onnxruntime
import pytest

from lathe.errors import BadPicture, BadVariant, InvalidInput, LatheError, NotFound
from lathe.progress import Progress
from lathe.repository import Repository, VariantRef
from lathe.used_pictures import UsedPictures
from lathe.v1 import card_pb2
from lathe_compression.compress import compress
from lathe_compression.latency import RUNS
from lathe_compression.pictures import file_digest
from lathe_compression.quantize import assert_int8_kernels
from lathe_compression.recipe import load_recipe
from tests.compression.networks import tiny_detector
from tests.compression.small_recipe import RECIPE, write_recipe


def run(folder: Path, text: str = RECIPE) -> list[VariantRef]:
    return compress(load_recipe(write_recipe(folder, text)), folder / "models", Progress())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run: the recipe, its pictures, and `models`."""
    folder = tmp_path_factory.mktemp("recipe")
    run(folder)
    return folder


def card(folder: Path, variant: str) -> card_pb2.Card:
    repository = Repository(folder / "models")
    return repository.card(repository.newest("spots", variant))


def test_cards_hold_the_contract(made: Path) -> None:
    for variant in ("fp32", "int8"):
        held = card(made, variant)
        assert (held.model, held.variant, held.version) == ("spots", variant, 1)
        assert (held.task, held.decoder) == (card_pb2.TASK_DETECTION, card_pb2.DECODER_HEATMAP)
        assert (held.serving_size.width, held.serving_size.height, held.size_multiple) == (96, 64, 32)
        assert (held.thresholds.min_score, held.thresholds.nms, held.thresholds.max_detections) == (0.5, 0.3, 100)
        assert (list(held.classes), list(held.notices)) == (["spot"], ["weights: made on the spot"])


def test_cards_hold_size_and_cost(made: Path) -> None:
    repository = Repository(made / "models")
    for variant in ("fp32", "int8"):
        held = card(made, variant)
        content = repository.model_bytes(repository.newest("spots", variant))
        assert (held.size_bytes, held.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        assert held.macs > 0
        assert held.parameters == pytest.approx(sum(p.numel() for p in tiny_detector().parameters()), rel=0.02)
        assert held.created_at.seconds > 1.7e9
    assert card(made, "fp32").precision == card_pb2.PRECISION_FP32
    assert card(made, "int8").precision == card_pb2.PRECISION_INT8
    assert [card(made, name).recommended for name in ("fp32", "int8")] == [False, True]


def test_cards_hold_their_lineage(made: Path) -> None:
    first, second = card(made, "fp32").lineage, card(made, "int8").lineage
    assert (first.parent, second.parent) == ("", "fp32")
    assert [step.partition(":")[0] for step in first.steps] == ["hygiene"]
    assert second.steps[0] == first.steps[0]
    assert {"layout", "quantize"} <= {step.partition(":")[0] for step in second.steps}
    calibration = {file_digest(path) for path in (made / "calibration").iterdir()}
    assert (first.pictures, second.pictures) == (0, len(calibration))
    repository = Repository(made / "models")
    assert repository.used_pictures(repository.newest("spots", "int8")).content() == UsedPictures(calibration).content()
    for lineage in (first, second):
        assert lineage.teacher == "tests.compression.networks:tiny_detector"
        assert lineage.teacher_sha256 == ""
        assert lineage.recipe_sha256 == file_digest(made / "spots.toml")
        assert f"onnxruntime {onnxruntime.__version__}" in lineage.made_with


def test_cards_hold_quality_and_latency(made: Path) -> None:
    held = card(made, "int8")
    (quality,), (latency,) = held.quality, held.latency
    assert (quality.metric, quality.pictures, quality.size) == ("agreement", 3, held.serving_size)
    assert 0 < quality.value <= 1
    assert (latency.reference_variant, latency.runs, latency.size) == ("fp32", RUNS, held.serving_size)
    assert latency.stages.infer > 0
    assert latency.speedup > 0
    assert latency.cpu
    assert not card(made, "fp32").quality  # it is the reference
    assert card(made, "fp32").latency[0].speedup == 1.0


def test_what_hygiene_gained_stands_with_the_reference_alone(made: Path) -> None:
    repository = Repository(made / "models")
    reference, other = (repository.making(repository.newest("spots", name)) for name in ("fp32", "int8"))
    assert reference is not None
    assert other is not None
    assert reference["hygiene_speedup"] > 0
    assert "hygiene_speedup" not in other


def test_a_second_run_finds_all_of_it_done(made: Path) -> None:
    before = {path: file_digest(path) for path in (made / "models").rglob("*") if path.is_file()}
    refs = run(made)
    assert [str(ref) for ref in refs] == ["spots/fp32/1", "spots/int8/1"]
    assert {path: file_digest(path) for path in (made / "models").rglob("*") if path.is_file()} == before
    assert card(made, "int8").sha256 == before[made / "models/spots/int8/1/model.onnx"]


def test_another_recipe_adds_a_version_and_changes_none(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    before = {path: file_digest(path) for path in (tmp_path / "models").rglob("*") if path.is_file()}
    refs = run(tmp_path, RECIPE.replace("quantize = {}", "quantize = { equalize = false }"))
    assert [str(ref) for ref in refs] == ["spots/fp32/2", "spots/int8/2"]
    assert {path: file_digest(path) for path in before} == before


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ('"calibration/*.png"', '"none/*.png"', NotFound),
        ('"evaluation/*.png"', '"none/*.png"', NotFound),
        ('"evaluation/*.png"', '"spots.toml"', BadPicture),
        ('"evaluation/*.png"', '"evaluation/*.png", "calibration/2.png"', InvalidInput),
        ("networks:tiny_detector", "networks:nothing", NotFound),
        ("networks:tiny_detector", "networks:not_a_network", InvalidInput),
        ('"landmarks"]', '"landmarks", "more"]', BadVariant),
    ],
)
def test_nothing_is_published_when_something_fails(old: str, new: str, error: type[LatheError], tmp_path: Path) -> None:
    assert old in RECIPE
    with pytest.raises(error):
        run(tmp_path, RECIPE.replace(old, new))
    assert not (tmp_path / "models").exists()


def test_calibrating_picture_under_another_name_does_not_judge(tmp_path: Path) -> None:
    """Told by content: a copy is the same picture."""
    recipe = write_recipe(tmp_path)
    shutil.copy(tmp_path / "calibration/1.png", tmp_path / "evaluation/copy.png")
    with pytest.raises(InvalidInput, match=r"copy\.png both makes a variant and judges it"):
        compress(load_recipe(recipe), tmp_path / "models", Progress())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the exporter that a user may well have used
def test_onnx_teacher_and_variant_of_a_variant(tmp_path: Path) -> None:
    """A published graph cannot be a teacher (its input is pixels), but an ONNX file of planes can."""
    import torch

    torch.onnx.export(
        tiny_detector(),
        (torch.zeros(1, 3, 64, 96),),
        str(tmp_path / "net.onnx"),
        dynamo=False,
        output_names=["a", "b", "c", "d"],
    )
    text = RECIPE.replace("tests.compression.networks:tiny_detector", "net.onnx")
    text += '\n[[variant]]\nname = "again"\nparent = "int8"\n'
    run(tmp_path, text)
    again, second = card(tmp_path, "again"), card(tmp_path, "int8")
    assert second.lineage.teacher_sha256 == file_digest(tmp_path / "net.onnx")
    assert (again.sha256, again.precision) == (second.sha256, card_pb2.PRECISION_INT8)
    assert again.lineage.steps == second.lineage.steps
    assert again.lineage.pictures_sha256 == second.lineage.pictures_sha256


def test_committed_recipe_makes_int8_that_agrees(face_repository: Path) -> None:
    repository = Repository(face_repository)
    reference, made = (repository.card(repository.newest("face", name)) for name in ("fp32", "int8"))
    model = onnx.load_from_string(repository.model_bytes(repository.newest("face", "int8")))
    convolutions = sum(node.op_type == "Conv" for node in model.graph.node)
    assert assert_int8_kernels(model) == convolutions > 50
    assert made.recommended
    assert made.size_bytes < reference.size_bytes / 3
    assert made.macs == reference.macs == 493_742_080
    assert made.quality[0].value > 0.95
    assert made.quality[0].pictures > 40
    assert made.latency[0].speedup > 1.2
