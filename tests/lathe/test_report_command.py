"""`lathe report`: from the cards alone, on pictures, without torch, on bad input, and in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from lathe.cli import main
from lathe.repository import Repository
from lathe.used_pictures import UsedPictures
from lathe_compression.pictures import file_digest
from tests.conftest import ROOT
from tests.end_to_end.test_demo import CHROMIUM
from tests.lathe.test_making import LAYER, STEPS
from tests.models import bright_spots, card_for

SPOTS = (((40, 40), (120, 80)), ((20, 40), (120, 60)), ((40, 40),), ())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four pictures of 160×128 with white cells, labelled."""
    folder = tmp_path / "data"
    folder.mkdir()
    boxes = []
    for number, spots in enumerate(SPOTS):
        pixels = np.zeros((128, 160, 3), np.uint8)
        for left, top in spots:
            pixels[top : top + 4, left : left + 4] = 255
            boxes.append({"image_id": number, "category_id": 1, "bbox": [left - 4, top - 4, 12, 12]})
        assert cv2.imwrite(str(folder / f"{number}.png"), pixels)
    content = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 160, "height": 128} for n in range(4)],
        "annotations": [{"id": n} | box for n, box in enumerate(boxes, 1)],
        "categories": [{"id": 1, "name": "spot"}],
    }
    (folder / "instances_all.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def models(tmp_path: Path, data: Path) -> Path:
    """`fp32`; `same`, which finds the same; `wide`, whose boxes are too wide to match and which saw a picture."""
    root = tmp_path / "models"
    root.mkdir()
    repository = Repository(root)
    for name, box_pixels in {"fp32": 12, "same": 12, "wide": 40}.items():
        card = card_for("spots", name, parent="" if name == "fp32" else "fp32")
        card.lineage.teacher = "the <b>teacher</b>"
        card.lineage.steps.extend(["prune: half of the channels", "without any colon"])
        if name != "fp32":
            card.quality.add(metric="agreement", value=1.0 if name == "same" else 0.1, size=card.serving_size)
        latency = card.latency.add(speedup=1.0, reference_variant="fp32", runs=50, cpu="a cpu", runtime="ort")
        latency.size.CopyFrom(card.serving_size)
        latency.stages.infer = 0.004 if name == "fp32" else 0.002
        used = UsedPictures([file_digest(data / "0.png")] if name == "wide" else [])
        making = {"steps": STEPS, "layers": [LAYER] * 20, "hygiene_speedup": 1.25} if name == "wide" else None
        repository.publish(card, bright_spots(box_pixels=box_pixels), making, used)
    return root


def report(models: Path, output: Path, *flags: str | Path) -> dict[str, Any]:
    words = ["report", str(models / "spots"), "--output", str(output), *map(str, flags)]
    assert main(words) == 0
    figures: dict[str, Any] = json.loads(output.with_suffix(".json").read_text(), parse_constant=pytest.fail)
    return figures


def test_from_the_cards_alone(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = report(models, tmp_path / "page.html")
    assert (figures["reference"], figures["quality"]) == ("fp32", "agreement")
    assert figures["recommendation"]["variant"] == "same"
    assert figures["fronts"]["latency"]["variants"] == ["same"]
    assert figures["variants"]["wide"]["qualities"][0]["value"] == 0.1
    assert "Serve same." in capsys.readouterr().out
    page = (tmp_path / "page.html").read_text()
    assert "<img" not in page
    assert "the &lt;b&gt;teacher" in page
    assert "20 layers: 20 int8" in page
    assert "Sensitivity" in page


def test_on_labelled_pictures(models: Path, data: Path, tmp_path: Path) -> None:
    figures = report(models, tmp_path / "page.html", "--data", data, "--watts-per-core", "10")
    assert figures["quality"] == "AP@.5 all"
    precision = {name: one["qualities"][0] for name, one in figures["variants"].items()}
    assert precision["fp32"]["value"] == pytest.approx(1.0)
    assert (precision["fp32"]["low"], precision["fp32"]["high"]) == (None, None)
    assert precision["same"] == {"name": "AP@.5 all", "value": pytest.approx(1.0), "low": 0, "high": 0} | {
        "interval_of": "difference"
    }
    assert (precision["wide"]["value"], precision["wide"]["high"]) == (0.0, -1.0)
    evaluations = figures["facts"]["evaluations"]
    assert {one["left_out"] for one in evaluations.values()} == {1}, "what made one variant judges none"
    wide = figures["variants"]["wide"]
    assert wide["energy_millijoules_estimated"] == pytest.approx(10 * wide["frame_ms"])
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2, "of three pictures without the left out, two have spots"
    assert "1.png: 4 boxes by one of the two alone" in page
    assert "It and fp32 disagree on no picture." in page


def test_as_markdown(models: Path, data: Path, tmp_path: Path) -> None:
    """Tables that a renderer takes, drawings that exist and stand for themselves, old ones gone."""
    drawings = tmp_path / "spots"
    drawings.mkdir()
    (drawings / "old.svg").write_text("<svg/>")
    (tmp_path / "preface.md").write_text("# Spots\n\nMade by hand.\n")
    page = tmp_path / "spots.md"
    flags = ["--markdown", page, "--preface", tmp_path / "preface.md", "--data", data, "--size", "160"]
    figures = report(models, tmp_path / "page.html", *flags)
    text = page.read_text()
    assert text.startswith("# Spots\n\nMade by hand.\n\n## Figures\n")
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    assert len(tables) == 2  # the figures, and what each step of `wide` gained and lost
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1
    columns = dict(
        zip(*([cell.strip() for cell in tables[0].splitlines()[row].split("|")] for row in (0, 3)), strict=True)
    )
    assert columns["variant"] == "`same`"
    assert columns["AP@.5 all"] == f"{figures['variants']['same']['qualities'][0]['value']:.4f}"
    assert columns["speed at 160×128"] == "1.00×"
    assert "Version 1 from `fp32`" in text
    named = re.findall(r"!\[[^]]*\]\((.*?)\)", text)
    assert sorted(named) == sorted(f"spots/{path.name}" for path in drawings.iterdir())
    assert len(named) == 2 + sum(len(step.get("curve", ())) > 1 for step in STEPS)
    for path in drawings.iterdir():
        assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_how_a_variant_was_made_is_on_the_page_and_in_the_figures(models: Path, tmp_path: Path) -> None:
    figures = report(models, tmp_path / "page.html", "--markdown", tmp_path / "page.md")
    told = "the clean graph is 1.25 times as fast as the exported one"
    assert told in (tmp_path / "page.html").read_text("utf-8")
    assert told in (tmp_path / "page.md").read_text("utf-8")
    making = figures["variants"]["wide"]["making"]
    assert making["hygiene_speedup"] == 1.25
    assert [step["name"] for step in making["steps"]] == [step["name"] for step in STEPS]
    assert figures["variants"]["same"]["making"] is None


def test_markdown_from_the_cards_has_one_speed(models: Path, tmp_path: Path) -> None:
    report(models, tmp_path / "page.html", "--markdown", tmp_path / "spots.md")
    text = (tmp_path / "spots.md").read_text()
    assert text.startswith("# spots: 3 variants\n")
    assert "| speed | M MACs |" in text


def test_where_the_reference_is_not_published_its_figures_still_stand(models: Path, tmp_path: Path) -> None:
    for name in ("fp32", "same"):
        shutil.rmtree(models / "spots" / name)
    figures = report(models, tmp_path / "out.html")
    assert [one["value"] for one in figures["variants"]["wide"]["qualities"]] == [0.1]


def test_on_bare_pictures_agreement_decides(models: Path, data: Path, tmp_path: Path) -> None:
    (data / "instances_all.json").unlink()
    figures = report(models, tmp_path / "page.html", "--data", data, "--max-size-mb", "1")
    assert figures["quality"] == "agreement"
    assert figures["variants"]["wide"]["qualities"][0]["value"] == 0.0
    assert figures["limits"] == {"max_latency_ms": None, "min_ap": None, "max_size_mb": 1.0}


def test_a_version_without_a_figure_does_not_stop_it(models: Path, tmp_path: Path) -> None:
    Repository(models).publish(card_for("spots", "bare", parent="fp32"), bright_spots())
    figures = report(models, tmp_path / "page.html")
    assert figures["variants"]["bare"]["infer_ms"] is None
    assert "in no plot: bare" in (tmp_path / "page.html").read_text()


def test_where_no_variant_keeps_to_the_limits(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = report(models, tmp_path / "page.html", "--max-latency-ms", "1")
    assert (figures["recommendation"]["variant"], figures["recommendation"]["nearest"]) == ("", "same")
    assert "No variant keeps to at most 1 ms. Nearest is same: 2.00 ms is more than 1 ms." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "flags", "told"),
    [
        ("dots", (), "there is no model dots"),
        ("none/spots", (), "there is no repository at"),
        ("spots", ("--min-ap", "0.5"), "give --data with labels"),
        ("spots", ("--min-ap", "2"), "limits must be above 0"),
        ("spots", ("--max-latency-ms", "nan"), "limits must be above 0"),
        ("spots", ("--price-per-core-hour", "-1"), "numbers from 0 up"),
        ("spots", ("--size", "320"), "which is not given"),
        ("spots", ("--output", "report.json"), "report.json must end in .html"),
        ("spots", ("--output", "none/report.html"), "there is no folder none"),
        ("spots", ("--markdown", "report.txt"), "report.txt must end in .md"),
        ("spots", ("--markdown", "none/report.md"), "there is no folder none"),
        ("spots", ("--preface", "preface.md"), "--markdown, which is not given"),
        ("spots", ("--markdown", "report.md", "--preface", "none.md"), "none.md cannot be read"),
        ("spots", ("--data", "none"), "there is no folder or label file none"),
    ],
)
def test_bad_input_is_one_line(
    model: str, flags: tuple[str, ...], told: str, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ["--output", str(tmp_path / "page.html")]
    assert main(["report", str(models / model), *output, *flags]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lathe: ")
    assert told in line
    assert not (tmp_path / "page.html").exists()


def test_a_broken_making_is_told(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (models / "spots/wide/1/making.json").write_text('{"steps": [{}]}')
    assert main(["report", str(models / "spots"), "--output", str(tmp_path / "page.html")]) == 1
    assert capsys.readouterr().err == "lathe: making.json of spots/wide/1, steps 1: name is not text\n"


WITHOUT_TORCH = """
import sys
from lathe.cli import main
code = main(sys.argv[1:])
assert not {"torch", "onnx"} & sys.modules.keys()
sys.exit(code)
"""


@pytest.mark.parametrize("with_data", [False, True])
def test_it_needs_neither_torch_nor_onnx(models: Path, data: Path, tmp_path: Path, with_data: bool) -> None:
    words = ["report", str(models / "spots"), "--output", str(tmp_path / "page.html")]
    words += ["--data", str(data)] if with_data else []
    command = [sys.executable, "-c", WITHOUT_TORCH, *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def test_it_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["report", "--help"])
    assert stopped.value.code == 0
    assert "usage: lathe report" in capsys.readouterr().out


def test_the_page_opens_in_a_browser(models: Path, data: Path, tmp_path: Path) -> None:
    """It fetches nothing, its pictures load, and even a narrow window need not be scrolled sideways."""
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("chromium is not installed")
    report(models, tmp_path / "page.html", "--data", data)
    page = (tmp_path / "page.html").read_text()
    assert not re.findall(r"""(?:src|href)=["']?(?!data:)[^"'> ]+""", page)
    script = (
        "<script>onload=()=>{const i=[...document.images];document.title=[i.length,"
        "i.filter(p=>p.complete&&p.naturalWidth>100).length,document.querySelectorAll('circle').length,"
        "document.documentElement.scrollWidth-innerWidth].join(' ')}</script>"
    )
    (tmp_path / "probe.html").write_text(page.replace("</body>", script + "</body>"))
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    command = [chromium, *CHROMIUM, profile, "--window-size=500,900", "--dump-dom", (tmp_path / "probe.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    title = re.search(r"<title>(\d+) (\d+) (\d+) (-?\d+)</title>", done.stdout)
    assert title, "the page's script did not run"
    pictures, loaded, dots, too_wide = map(int, title.groups())
    assert (pictures, loaded, dots) == (2, 2, 4 * 3), "a dot a variant in each of four fronts"
    assert too_wide <= 0
