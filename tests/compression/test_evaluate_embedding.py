"""`lathe evaluate` of embedding networks, on people who are patterns of colour."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lathe.cli import main
from lathe.progress import Progress
from lathe.repository import Repository, VariantRef
from lathe.used_pictures import UsedPictures
from lathe.v1 import card_pb2
from lathe_compression.comparisons import Faces
from lathe_compression.evaluate_embedding import FaceProtocol, evaluate_embedding
from lathe_compression.pictures import file_digest
from lathe_compression.verification import accuracy
from tests.compression.face_networks import (
    DIMENSIONS,
    SIDE,
    cell_colours,
    detector_card,
    draw_people,
    embedder_card,
    face_finder,
    publish_embedder,
)
from tests.conftest import ROOT

PEOPLE, PICTURES = 60, 3
ALL = PEOPLE * PICTURES


@pytest.fixture
def people(tmp_path: Path) -> Path:
    draw_people(tmp_path / "people", PEOPLE, PICTURES)
    return tmp_path / "people"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """`near` answers nearly as `fp32` does, `turned` as well, but in another space."""
    root = tmp_path / "models"
    root.mkdir()
    repository = Repository(root)
    repository.publish(detector_card(recommended=True), face_finder())
    random = np.random.default_rng(0)
    turned = np.linalg.qr(random.normal(size=(DIMENSIONS, DIMENSIONS)))[0]
    publish_embedder(repository, "fp32", cell_colours())
    near = np.eye(DIMENSIONS) + random.normal(scale=0.02, size=(DIMENSIONS, DIMENSIONS))
    publish_embedder(repository, "near", cell_colours(near), parent="fp32")
    publish_embedder(repository, "turned", cell_colours(turned), parent="fp32")
    return root


def evaluate(capsys: pytest.CaptureFixture[str], variant: Path, data: Path, *flags: str) -> dict[str, Any]:
    assert main(["evaluate", str(variant), "--data", str(data), "--json", *flags]) == 0
    figures: dict[str, Any] = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)  # NaN is no JSON
    return figures


def test_figures_of_the_variant_and_its_reference(
    models: Path, people: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = evaluate(capsys, models / "face-embed/near", people / "pairs.txt")
    assert (figures["variant"], figures["reference_variant"]) == ("face-embed/near/1", "face-embed/fp32/1")
    assert (figures["pictures"], figures["subjects"], figures["pairs"]) == (2 * PEOPLE, PEOPLE, 2 * PEOPLE)
    assert (figures["failures_to_acquire"], figures["left_out"]) == (0, 0)
    assert 0.98 < figures["cosine"] < 1
    for one in (figures, figures["reference"], figures["cross"]):
        assert one["accuracy"]["low"] <= one["accuracy"]["value"] <= one["accuracy"]["high"]
        assert one["accuracy"]["value"] == pytest.approx(np.mean(one["accuracy"]["folds"]))
        assert 0.7 < one["accuracy"]["value"] <= 1
        assert list(one["fnmr"]) == ["0.01"]
        fnmr = one["fnmr"]["0.01"]
        assert 0 < fnmr["low"] < fnmr["value"] < fnmr["high"] < 1
        assert 0 < fnmr["threshold"] < 1
        assert fnmr["fmr_low"] < fnmr["fmr_value"] <= 0.01 < fnmr["fmr_high"]
        assert 0 < one["eer"] < 0.5
        assert 0.5 < one["identification"]["rank1"] <= 1
        assert one["identification"]["fnir"] == {}  # 60 strangers cannot tell one in a hundred
    assert figures["impostor_comparisons"] == figures["fnmr"]["0.01"]["impostor_comparisons"] == 120 * 118 // 2
    assert figures["cross"]["enrolled"] == "fp32"
    assert figures["cross"]["impostor_comparisons"] == 120 * 118
    difference = figures["difference"]["fnmr"]["0.01"]
    assert difference["value"] == pytest.approx(
        figures["fnmr"]["0.01"]["value"] - figures["reference"]["fnmr"]["0.01"]["value"]
    )
    assert set(figures["latency_ms"]) == {"decode", "detect", "preprocess", "infer", "total"}
    assert figures["protocol"]["detector"] == "face/fp32/1"


def test_another_space_is_as_good_alone_and_worthless_across(
    models: Path, people: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = evaluate(capsys, models / "face-embed/turned", people)
    nothing = {"value": 0.0, "low": 0.0, "high": 0.0}
    assert figures["difference"]["accuracy"] == pytest.approx(nothing, abs=0.02)
    assert figures["accuracy"]["value"] > 0.8
    assert figures["cross"]["accuracy"]["value"] < 0.65
    assert figures["cross"]["fnmr"]["0.01"]["value"] > 0.9
    assert figures["cross"]["difference"]["fnmr"]["0.01"]["low"] > 0.1
    assert figures["cross"]["identification"]["rank1"] < 0.2


def test_reference_is_enrolled_and_the_variant_probes(models: Path, people: Path) -> None:
    ref = VariantRef("face-embed", "turned", 1)
    evaluation = evaluate_embedding(Repository(models), ref, people, FaceProtocol(), Progress())
    probes, enrolled = (evaluation.judged.embedded[str(one)].vectors for one in (ref, evaluation.reference))
    subjects = np.array(evaluation.data.subjects)
    one, other = (
        accuracy(Faces(subjects, *sides), evaluation.data.pairs, resamples=1).mean.value
        for sides in ((probes, enrolled), (enrolled, probes))
    )
    assert evaluation.cross
    assert evaluation.cross.accuracy.mean.value == one != other


def test_reference_itself_has_nothing_across(models: Path, people: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = evaluate(capsys, models / "face-embed/fp32", people)
    assert figures["cross"] is None
    assert figures["difference"]["accuracy"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert (figures["speedup"], figures["cosine"]) == (1.0, pytest.approx(1.0))


def test_vectors_of_other_lengths_are_not_compared(
    models: Path, people: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_embedder(Repository(models), "short", cell_colours(np.eye(DIMENSIONS)[:, :20]), parent="fp32")
    figures = evaluate(capsys, models / "face-embed/short", people)
    assert (figures["cross"], figures["cosine"]) == (None, None)
    assert figures["accuracy"]["value"] > 0.7


def test_pictures_without_a_face_match_nobody(models: Path, people: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = evaluate(capsys, models / "face-embed/near", people)
    for person in range(0, PEOPLE, 4):  # the first of two pictures of every fourth person
        assert cv2.imwrite(str(people / f"P{person:02}/P{person:02}_0001.png"), np.zeros((SIDE, SIDE, 3), np.uint8))
    figures = evaluate(capsys, models / "face-embed/near", people)
    assert figures["failures_to_acquire"] == PEOPLE // 4
    assert figures["genuine_comparisons"] == before["genuine_comparisons"]
    assert figures["fnmr"]["0.01"]["value"] > before["fnmr"]["0.01"]["value"]
    assert figures["roc"][-1] == [1.0, 0.25]


def test_pictures_that_made_the_variant_or_its_reference_are_left_out(
    models: Path, people: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    used = {
        name: UsedPictures([file_digest(people / f"P0{place}/P0{place}_0001.png")]) for place, name in enumerate("ab")
    }
    repository = Repository(models)
    repository.publish(embedder_card("a", b""), cell_colours(), pictures=used["a"])
    repository.publish(embedder_card("b", b"", parent="a"), cell_colours(), pictures=used["b"])
    figures = evaluate(capsys, models / "face-embed/b", people)
    assert (figures["left_out"], figures["pairs_left_out"]) == (2, 4)
    assert (figures["pictures"], figures["pairs"]) == (2 * PEOPLE - 2, 2 * PEOPLE - 4)


def test_thresholds_of_the_card_are_held_against_these_faces(
    models: Path, people: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the threshold that keeps 1 in 100 here, at one that lets half of all strangers in, and at one whose rate would
    take more people."""
    measured = evaluate(capsys, models / "face-embed/near", people)["fnmr"]["0.01"]
    card = embedder_card("carded", b"", parent="fp32")
    for fmr, threshold in ((0.01, measured["threshold"]), (0.002, 0.0), (0.001, 0.99)):
        card.embedding.thresholds.add(fmr=fmr, min_similarity=threshold, data="people/pairs.txt")
    across = card.embedding.cross_spaces.add(space=card.embedding.space, variant="fp32")
    across.thresholds.add(fmr=0.02, min_similarity=0.9)
    repository = Repository(models)
    repository.publish(card, repository.model_bytes(repository.newest("face-embed", "near")))
    figures = evaluate(capsys, models / "face-embed/carded", people)
    good, bad = (figures["card_thresholds"][fmr] for fmr in ("0.01", "0.002"))
    assert good["keeps_fmr"]
    assert good["fmr"]["value"] == measured["fmr_value"]
    assert good["fnmr"]["value"] == measured["value"]
    assert bad["keeps_fmr"] is False
    untold = figures["card_thresholds"]["0.001"]
    assert (untold["fmr"], untold["keeps_fmr"]) == (None, None)
    assert untold["fnmr"]["value"] > 0.5
    assert 0.3 < bad["fmr"]["low"] < bad["fmr"]["value"] < 0.7
    assert bad["fnmr"]["value"] == 0
    assert figures["cross"]["card_thresholds"]["0.02"]["threshold"] == 0.9
    assert figures["reference"]["card_thresholds"] == {}
    assert main(["evaluate", str(models / "face-embed/carded"), "--data", str(people)]) == 0
    shown = capsys.readouterr().out
    assert "the card's thresholds do not keep an FMR of 0.2 % on these faces" in shown
    assert "too few comparisons to tell whether the card's FMR of 0.1 % is kept" in shown
    assert "the card's thresholds were measured on these very faces" in shown


def test_rates_and_seed_may_be_chosen(models: Path, people: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--fmr", "0.05", "--fmr", "0.02", "--seed", "7")
    one, other = (evaluate(capsys, models / "face-embed/near", people, *flags[: 4 + 2 * n]) for n in range(2))
    assert list(one["fnmr"]) == ["0.05", "0.02"]
    assert one["fnmr"]["0.05"]["value"] == other["fnmr"]["0.05"]["value"]
    assert one["accuracy"]["value"] == other["accuracy"]["value"]
    assert one["accuracy"]["low"] != other["accuracy"]["low"]
    assert (one["protocol"]["seed"], other["protocol"]["seed"]) == (0, 7)


def test_folder_of_people_needs_no_pairs(models: Path, people: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (people / "pairs.txt").unlink()
    figures = evaluate(capsys, models / "face-embed/near", people)
    assert (figures["pictures"], figures["subjects"], figures["pairs"]) == (ALL, PEOPLE, 0)
    assert figures["genuine_comparisons"] == 3 * PEOPLE
    assert list(figures["fnmr"]) == ["0.01", "0.001"]
    nothing = {"value": None, "low": None, "high": None}
    assert figures["accuracy"] == nothing | {"standard_error": None, "folds": []}
    assert (figures["difference"]["accuracy"], figures["protocol"]["folds"]) == (nothing, 0)
    assert main(["evaluate", str(models / "face-embed/near"), "--data", str(people)]) == 0
    assert "no accuracy, since there are no pairs" in capsys.readouterr().out


@pytest.mark.parametrize("columns", ["100", "80"])
def test_table_for_people(
    columns: str, models: Path, people: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert cv2.imwrite(str(people / "P07/P07_0001.png"), np.zeros((SIDE, SIDE, 3), np.uint8))
    assert main(["evaluate", str(models / "face-embed/near"), "--data", str(people)]) == 0
    shown = capsys.readouterr().out
    (row,) = (line for line in shown.splitlines() if "FNMR at FMR 1 " in line)
    assert row.count("(") == row.count(")") == 2, "no interval is broken"
    assert "…" not in shown
    assert "too few comparisons to tell the FNMR at FMR 0.1, 0.01 %" in shown
    assert "1 picture in which no face was found matches nobody" in shown


def test_single_fold_is_said_to_be_cut(models: Path, people: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = people / "pairs.txt"
    lines = pairs.read_text().splitlines()
    (people / "pairsDevTest.txt").write_text("\n".join([str(PEOPLE // 2), *lines[1 : PEOPLE + 1]]))
    figures = evaluate(capsys, models / "face-embed/near", people / "pairsDevTest.txt")
    assert figures["protocol"]["accuracy"].startswith("one fold, cut into 10 parts")
    assert (figures["protocol"]["folds"], len(figures["accuracy"]["folds"])) == (1, 10)


class TestReference:
    """Of a variant that was copied to a repository of its own."""

    @pytest.fixture
    def alone(self, models: Path, tmp_path: Path) -> Path:
        (tmp_path / "alone").mkdir()
        source, repository = Repository(models), Repository(tmp_path / "alone")
        for model, variant in (("face", "fp32"), ("face-embed", "near")):
            ref = source.newest(model, variant)
            repository.publish(source.card(ref), source.model_bytes(ref))
        return tmp_path / "alone"

    def test_that_is_not_there_is_told(self, alone: Path, people: Path, capsys: pytest.CaptureFixture[str]) -> None:
        figures = evaluate(capsys, alone / "face-embed/near", people)
        assert (figures["missing_reference"], figures["cross"]) == ("fp32", None)
        assert main(["evaluate", str(alone / "face-embed/near"), "--data", str(people)]) == 0
        assert "its reference fp32 is not in the repository" in capsys.readouterr().out

    def test_named(self, models: Path, alone: Path, people: Path, capsys: pytest.CaptureFixture[str]) -> None:
        reference = str(models / "face-embed/fp32")
        figures = evaluate(capsys, alone / "face-embed/near", people, "--reference", reference)
        within = evaluate(capsys, models / "face-embed/near", people)
        assert (figures["missing_reference"], within["missing_reference"]) == (None, None)
        assert figures["reference_variant"] == "face-embed/fp32/1"
        for name in ("cross", "reference", "difference"):
            assert figures[name] == within[name]

    def test_of_the_same_name(
        self, models: Path, alone: Path, people: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        flags = ["--data", str(people), "--reference", str(models / "face-embed/near")]
        assert main(["evaluate", str(alone / "face-embed/near"), *flags]) == 1
        assert "the reference is named as the variant is" in capsys.readouterr().err


class TestDetector:
    def test_recommended_variant_of_the_one_model(
        self, models: Path, people: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Repository(models).publish(detector_card("a"), face_finder())
        assert evaluate(capsys, models / "face-embed/fp32", people)["protocol"]["detector"] == "face/fp32/1"

    def test_named(self, models: Path, people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "others").mkdir()
        Repository(tmp_path / "others").publish(detector_card("a", model="heads"), face_finder())
        figures = evaluate(capsys, models / "face-embed/fp32", people, "--detector", str(tmp_path / "others/heads/a"))
        assert figures["protocol"]["detector"] == "heads/a/1"

    def test_one_of_several_must_be_named(self, models: Path, people: Path, capsys: pytest.CaptureFixture[str]) -> None:
        Repository(models).publish(detector_card(model="heads"), face_finder())
        assert main(["evaluate", str(models / "face-embed/fp32"), "--data", str(people)]) == 1
        assert "several models detect (face, heads); name one with --detector" in capsys.readouterr().err

    def test_none(self, people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "alone").mkdir()
        publish_embedder(Repository(tmp_path / "alone"), "fp32", cell_colours())
        assert main(["evaluate", str(tmp_path / "alone/face-embed/fp32"), "--data", str(people)]) == 1
        assert "no detection model to find the faces; name one with --detector" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variant", "data", "flags", "told"),
    [
        ("face-embed/fp32", "none", (), "there is no file of pairs"),
        ("face-embed/fp32", "empty", (), "holds neither a pairs.txt nor a folder of pictures for each person"),
        ("face-embed/fp32", "broken.txt", (), "broken.txt, line 1: the header must be"),
        (
            "face-embed/fp32",
            "lost.txt",
            (),
            "4 of the 4 pictures that the pairs name are missing beside them, A/A_0001.jpg",
        ),
        ("face-embed/fp32", "people", ("--fmr", "0"), "a false match rate must be above 0"),
        ("face-embed/fp32", "people", ("--fmr", "0.06"), "a false match rate must be above 0 and no more than 0.05"),
        (
            "face-embed/fp32",
            "people",
            ("--reference", "MODELS/face-embed/none"),
            "face-embed has no variant none",
        ),
        ("face-embed/fp32", "people", ("--reference", "MODELS/face/fp32"), "face/fp32 is no embedding network"),
        ("face-embed/fp32", "people", ("--fmr", "nan"), "a false match rate must be above 0"),
        ("face-embed/fp32", "people", ("--seed", "-1"), "the seed must be a whole number from 0 up"),
        ("face-embed/fp32", "people", ("--size", "64"), "--size is of a detector, and face-embed/fp32/1 is none"),
        ("face-embed/fp32", "people", ("--max-detections", "1"), "--max-detections is of a detector"),
        ("face-embed/fp32", "people", ("--detector", "MODELS/face-embed/near"), "face-embed/near/1 is no detector"),
        ("face-embed/fp32", "people", ("--detector", "MODELS/face/int2"), "model face has no variant int2"),
        ("face-embed/fp32", "dark", (), "the detector finds a face in none of the pictures"),
        ("face-embed/fp32", "damaged", (), "P00_0001.png: "),
        ("face/fp32", "people", ("--fmr", "0.1"), "--fmr is of an embedding network, and face/fp32/1 is none"),
        ("face/fp32", "people", ("--reference", "x"), "--reference is of an embedding network"),
        ("face/fp32", "people", ("--detector", "x"), "--detector is of an embedding network"),
    ],
)
def test_bad_input_is_one_line(
    variant: str,
    data: str,
    flags: tuple[str, ...],
    told: str,
    models: Path,
    people: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.txt").write_text("Ann\t1\t2\n")
    (tmp_path / "lost.txt").write_text("1\nA\t1\t2\nA\t3\tB\t1\n")
    for folder in ("dark", "damaged"):
        draw_people(tmp_path / folder, 4, 2)
    for path in (tmp_path / "dark").glob("*/*.png"):
        assert cv2.imwrite(str(path), np.zeros((SIDE, SIDE, 3), np.uint8))
    damaged = tmp_path / "damaged/P00/P00_0001.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    words = [flag.replace("MODELS", str(models)) for flag in flags]
    assert main(["evaluate", str(models / variant), "--data", str(tmp_path / data), *words]) == 1
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("lathe: ")
    assert told in line
    assert not captured.out


def test_every_picture_made_it(models: Path, people: Path, capsys: pytest.CaptureFixture[str]) -> None:
    used = UsedPictures(file_digest(path) for path in people.glob("*/*.png"))
    Repository(models).publish(embedder_card("own", b""), cell_colours(), pictures=used)
    assert main(["evaluate", str(models / "face-embed/own"), "--data", str(people)]) == 1
    assert "every picture was used to make the variant" in capsys.readouterr().err


def test_card_without_an_alignment(models: Path, people: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = embedder_card("odd", b"")
    card.embedding.alignment = card_pb2.ALIGNMENT_UNSPECIFIED
    Repository(models).publish(card, cell_colours())
    assert main(["evaluate", str(models / "face-embed/odd"), "--data", str(people)]) == 1
    assert "the card of face-embed/odd names no alignment" in capsys.readouterr().err


WITHOUT_TORCH = """
import sys
for name in ("torch", "onnx"):
    sys.modules[name] = None  # as if it were not installed
from lathe.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_it_needs_no_torch(models: Path, people: Path) -> None:
    words = ["evaluate", str(models / "face-embed/near"), "--data", str(people), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *words], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert "accuracy" in json.loads(done.stdout)
