"""`lathe evaluate` on small pictures: with labels, without, without torch, and on bad input."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lathe.cli import main
from lathe.repository import Repository, VariantRef
from lathe.used_pictures import UsedPictures
from lathe.v1 import card_pb2
from lathe_compression.evaluate import parse_variant_path, reference_of
from lathe_compression.pictures import file_digest
from tests.conftest import ROOT
from tests.models import bright_spots, card_for

SPOTS = (((40, 40), (120, 80)), ((20, 40), (120, 60)), ((40, 40),), ())
"""Left and top of the white cells of each picture."""


def save(path: Path, spots: tuple[tuple[int, int], ...]) -> None:
    """160×128, black with white cells; the network finds 12×12 boxes around them."""
    pixels = np.zeros((128, 160, 3), np.uint8)
    for left, top in spots:
        pixels[top : top + 4, left : left + 4] = 255
    assert cv2.imwrite(str(path), pixels)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """`0.png` to `3.png`, with two spots, two, one and none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, spots in enumerate(SPOTS):
        save(folder / f"{number}.png", spots)
    return folder


@pytest.fixture
def labelled(pictures: Path) -> Path:
    """All spots are labelled where they are, but one of the first picture is missing in `instances_few.json`."""
    boxes = [
        {"image_id": number, "category_id": 1, "bbox": [left - 4, top - 4, 12, 12], "area": 144, "iscrowd": 0}
        for number, spots in enumerate(SPOTS)
        for left, top in spots
    ]
    for name, chosen in {"all": boxes, "few": boxes[1:]}.items():
        content = {
            "images": [{"id": n, "file_name": f"{n}.png", "width": 160, "height": 128} for n in range(4)],
            "annotations": [{"id": n} | box for n, box in enumerate(chosen, 1)],
            "categories": [{"id": 1, "name": "spot"}],
        }
        (pictures / f"instances_{name}.json").write_text(json.dumps(content))
    return pictures


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """`wide`, made from `fp32`, whose boxes are too wide to match."""
    root = tmp_path / "models"
    root.mkdir()
    Repository(root).publish(card_for("spots", "fp32"), bright_spots())
    Repository(root).publish(card_for("spots", "wide", parent="fp32"), bright_spots(box_pixels=40))
    return root


def evaluate(capsys: pytest.CaptureFixture[str], variant: Path, data: Path, *flags: str) -> dict[str, Any]:
    assert main(["evaluate", str(variant), "--data", str(data), "--json", *flags]) == 0
    figures: dict[str, Any] = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)  # NaN is no JSON
    return figures


def test_labelled_folder_gives_average_precision(
    models: Path, labelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = evaluate(capsys, models / "spots/wide", labelled)
    assert figures["ap50_reference"]["all"] == pytest.approx(1.0)
    assert figures["ap50"] == {"all": 0.0, "few": 0.0}
    assert figures["ap50_difference"]["all"] == {"value": -1.0, "low": -1.0, "high": -1.0}
    assert figures["agreement"] == {"value": 0.0, "low": 0.0, "high": 0.0, "pictures": 3}
    assert figures["pictures"] == 4


def test_one_label_file_gives_one_number(models: Path, labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = evaluate(capsys, models / "spots/fp32", labelled / "instances_all.json")
    assert figures["ap50"] == pytest.approx(1.0)
    assert figures["reference"] == "spots/fp32/1"


def test_bare_pictures_give_agreement(models: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = evaluate(capsys, models / "spots/fp32", pictures)
    assert figures["ap50"] is None
    assert figures["agreement"] == {"value": 1.0, "low": 1.0, "high": 1.0, "pictures": 3}
    assert figures["protocol"]["metric"] == "agreement"
    assert re.fullmatch(r"onnxruntime \d+\.\d+\.\d+", figures["protocol"]["runtime"])


def test_nothing_found_is_null(models: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        save(pictures / f"{number}.png", ())
    figures = evaluate(capsys, models / "spots/wide", pictures)
    assert figures["agreement"] == {"value": None, "low": None, "high": None, "pictures": 0}


def test_table_for_people(
    models: Path, labelled: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["evaluate", str(models / "spots/wide"), "--data", str(labelled)]) == 0
    shown = capsys.readouterr().out
    (row,) = (line for line in shown.splitlines() if "AP@.5 all" in line)
    assert row.rstrip().endswith(")"), "an interval is not broken in a terminal of 80 columns"
    assert "\n4 pictures, " in shown


def test_size_is_the_cards_unless_given(models: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(capsys, models / "spots/wide", pictures)["size_wh"] == [160, 128]
    assert evaluate(capsys, models / "spots/wide", pictures, "--size", "320")["size_wh"] == [320, 320]


def test_pictures_that_made_the_variant_are_left_out(
    models: Path, labelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = card_for("spots", "wide", parent="fp32")
    Repository(models).publish(card, bright_spots(), pictures=UsedPictures([file_digest(labelled / "0.png")]))
    figures = evaluate(capsys, models / "spots/wide", labelled)
    assert (figures["variant"], figures["pictures"], figures["left_out"]) == ("spots/wide/2", 3, 1)
    assert figures["ap50"]["few"] == pytest.approx(1.0)  # the picture whose label is missing is the one left out
    assert evaluate(capsys, models / "spots/wide/1", labelled)["left_out"] == 0


def test_no_picture_left(models: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = card_for("spots", "wide")
    used = UsedPictures(file_digest(path) for path in pictures.iterdir())
    Repository(models).publish(card, bright_spots(), pictures=used)
    assert main(["evaluate", str(models / "spots/wide"), "--data", str(pictures)]) == 1
    assert "every picture was used to make the variant" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variant", "data", "flags", "told"),
    [
        ("spots/fp32", "none", (), "there is no folder or label file"),
        ("spots/fp32", "empty", (), "holds no JPEG or PNG"),
        ("spots/fp32", "broken.json", (), "broken.json is not a COCO instances file"),
        ("spots/fp32", "no-pictures.json", (), "the labels name no pictures"),
        ("spots/fp32", "lost.json", (), "1 labelled pictures are missing, lost.jpg among them"),
        ("spots/fp32", "damaged", (), "damaged.jpg: "),
        ("spots/fp32", "pictures", ("--size", "100"), "the size must be a multiple of 32, not 100"),
        ("spots/fp32", "pictures", ("--size", "0"), "the size must be a multiple of 32"),
        ("spots/fp32", "pictures", ("--min-score", "2"), "must be from 0 to 1"),
        ("spots/fp32", "pictures", ("--nms", "nan"), "must be from 0 to 1"),
        ("spots/fp32", "pictures", ("--max-detections", "0"), "detections at least 1"),
        ("spots/int4", "pictures", (), "model spots has no variant int4; it has fp32, wide"),
        ("dots/fp32", "pictures", (), "there is no model dots"),
        ("spots/fp32/7", "pictures", (), "spots/fp32/7 is not published"),
        ("none/spots/fp32", "pictures", (), "there is no repository at"),
    ],
)
def test_bad_input_is_one_line(
    variant: str,
    data: str,
    flags: tuple[str, ...],
    told: str,
    models: Path,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for folder in ("empty", "damaged"):
        (tmp_path / folder).mkdir()
    ok, jpeg = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))
    assert ok
    (tmp_path / "damaged/damaged.jpg").write_bytes(jpeg.tobytes()[:400])
    (tmp_path / "broken.json").write_text("{")
    labels: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    (tmp_path / "no-pictures.json").write_text(json.dumps(labels))
    labels["images"].append({"id": 1, "file_name": "lost.jpg"})
    (tmp_path / "lost.json").write_text(json.dumps(labels))
    assert main(["evaluate", str(models / variant), "--data", str(tmp_path / data), *flags]) == 1
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("lathe: ")
    assert told in line
    assert not captured.out


def test_network_of_tensors_is_not_judged(models: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = card_for("spots", "raw")
    card.task = card_pb2.TASK_TENSORS
    Repository(models).publish(card, bright_spots())
    assert main(["evaluate", str(models / "spots/raw"), "--data", str(pictures)]) == 1
    assert "spots/raw/1 is no detector" in capsys.readouterr().err


def test_reference_is_the_first_of_the_lineage(models: Path) -> None:
    repository = Repository(models)
    repository.publish(card_for("spots", "small", parent="wide"), bright_spots())
    assert reference_of(repository, VariantRef("spots", "small", 1)) == VariantRef("spots", "fp32", 1)


@pytest.mark.parametrize("parent", ["gone", "alone", "circle"])
def test_broken_lineage_ends_where_it_breaks(parent: str, models: Path) -> None:
    repository = Repository(models)
    repository.publish(card_for("spots", "circle", parent="alone"), bright_spots())
    repository.publish(card_for("spots", "alone", parent=parent), bright_spots())
    assert reference_of(repository, VariantRef("spots", "alone", 1)).variant in ("alone", "circle")


def test_path_may_name_the_version(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Repository(models).publish(card_for("spots", "wide"), bright_spots())
    assert parse_variant_path(models / "spots/wide")[1].version == 2
    assert parse_variant_path(models / "spots/wide/1")[1].version == 1
    monkeypatch.chdir(models)
    assert parse_variant_path(Path("spots/wide"))[1].version == 2


WITHOUT_TORCH = """
import sys
for name in ("torch", "onnx"):
    sys.modules[name] = None  # importing it fails
from lathe.cli import main
code = main(sys.argv[1:])
assert not sys.modules["torch"]
sys.exit(code)
"""


def test_evaluation_needs_no_torch(models: Path, labelled: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, "evaluate", str(models / "spots/wide"), "--data", str(labelled)]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ap50_reference"]["all"] == pytest.approx(1.0)


def test_compressing_without_torch_says_what_to_install() -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, "compress", "recipes/face.toml"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ['lathe: this needs onnx: install Lathe with its extra "compression"']
