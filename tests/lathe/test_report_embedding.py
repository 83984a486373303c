"""`lathe report` of an embedding network: from its cards, by the true match rate that they share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lathe.cli import main
from lathe.repository import Repository
from tests.conftest import ROOT
from tests.lathe.test_making import STEPS
from tests.models import embedding_card, face_vectors


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """`fp32`, `int8` and `small`, by the card cheaper and cheaper and, at 1 in 1 000, worse and worse."""
    publish(tmp_path, "fp32", fnmr=0.09)
    publish(tmp_path, "int8", fnmr=0.1)
    publish(tmp_path, "small", fnmr=0.2)
    return tmp_path


def publish(root: Path, variant: str, fnmr: float, fmr: float = 0.001, data: str = "pairs.txt") -> None:
    network = face_vectors()
    card = embedding_card("faces", variant, network)
    card.size_bytes = len(network)
    for one in card.embedding.thresholds:
        one.data = data
    card.embedding.thresholds[1].fmr, card.embedding.thresholds[1].fnmr = fmr, fnmr
    latency = card.latency.add(speedup=2.0, reference_variant="fp32", runs=60, cpu="a cpu", runtime="ort")
    latency.size.CopyFrom(card.serving_size)
    latency.stages.preprocess, latency.stages.infer = 0.001, 0.003 - fnmr / 100
    if variant != "fp32":
        card.lineage.parent = "fp32"
        card.quality.add(metric="cosine", value=1 - fnmr / 10, size=card.serving_size)
    steps = [{key: value for key, value in step.items() if key != "agreement"} | {"cosine": 0.987} for step in STEPS]
    Repository(root).publish(card, network, {"steps": steps} if variant == "small" else None)


def report(models: Path, *flags: str | Path) -> dict[str, Any]:
    page = models / "page.html"
    assert main(["report", str(models / "faces"), "--output", str(page), *map(str, flags)]) == 0
    figures: dict[str, Any] = json.loads(page.with_suffix(".json").read_text(), parse_constant=pytest.fail)
    return figures


def test_the_true_match_rate_at_one_in_a_thousand_decides(models: Path) -> None:
    figures = report(models, "--markdown", models / "page.md")
    assert (figures["reference"], figures["quality"]) == ("fp32", "TMR@0.001 pairs.txt")
    assert figures["recommendation"]["variant"] == "fp32"
    found = {one["name"]: one["value"] for one in figures["variants"]["int8"]["qualities"]}
    assert found == {
        "TMR@0.001 pairs.txt": pytest.approx(0.9),
        "TMR@0.01 pairs.txt": pytest.approx(0.99),
        "cosine": pytest.approx(0.99),
    }
    assert figures["variants"]["int8"]["frame_ms"] == pytest.approx(3.0)
    assert figures["variants"]["small"]["making"]["steps"][0]["after"]["agreement"] == 0.987
    page = (models / "page.html").read_text("utf-8")
    assert "1 − FNMR" in page
    assert "from a picture&#x27;s landmarks to the vector" in page
    assert "detections" not in page
    assert "TMR@0.001 pairs.txt" in (models / "page.md").read_text("utf-8")


def test_a_limit_leaves_the_best_within_it(models: Path) -> None:
    figures = report(models, "--max-latency-ms", "2.05")
    assert figures["recommendation"]["variant"] == "int8"


def test_rates_on_other_faces_are_not_compared(models: Path) -> None:
    """What is left is the likeness to the reference, which then wins."""
    publish(models, "own", fnmr=0.01, data="others.txt")
    figures = report(models)
    assert figures["quality"] == "cosine"
    assert figures["recommendation"]["variant"] == "fp32"
    page = (models / "page.html").read_text("utf-8")
    assert "Cosine is with fp32 itself" in page
    assert "Thresholds on known faces would tell" in page


def test_another_rate_decides_where_one_in_a_thousand_is_not_everybodys(models: Path) -> None:
    publish(models, "own", fnmr=0.01, fmr=0.0001)
    assert report(models)["quality"] == "TMR@0.01 pairs.txt"


@pytest.mark.parametrize("flags", [("--data", "pairs.txt"), ("--min-ap", "0.5")])
def test_what_is_of_detectors_is_refused(
    flags: tuple[str, str], models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(models / "faces"), "--output", str(models / "page.html"), *flags]) == 1
    assert "faces is an embedding network, whose report is of its cards" in capsys.readouterr().err


def test_of_the_networks_that_come_with_the_repository(tmp_path: Path) -> None:
    model = ROOT / "models/face-embed"
    if not model.is_dir():
        pytest.skip("no embedding network comes with the repository yet")
    assert main(["report", str(model), "--output", str(tmp_path / "page.html")]) == 0
    figures = json.loads((tmp_path / "page.json").read_text("utf-8"))
    assert figures["quality"] == "TMR@0.001 lfw-dev/pairs.txt"
    assert sorted(figures["variants"]) == sorted(Repository(ROOT / "models").variants("face-embed"))
    assert None not in [one["frame_ms"] for one in figures["variants"].values()]
