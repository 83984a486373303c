"""Triton's own clients and tools against Lathe, unchanged. `make clients` installs them."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT, RunningServer

CLIENTS = ROOT / "work/clients"
PYTHON = CLIENTS / "triton/bin/python"
PERF_ANALYZER = CLIENTS / "perf_analyzer/bin/perf_analyzer"


@pytest.mark.skipif(not PYTHON.exists(), reason="Triton's clients are not installed: make clients")
def test_tritonclient_does_everything_unchanged(open_server: RunningServer, spot_jpeg: bytes, tmp_path: Path) -> None:
    picture = tmp_path / "spot.jpg"
    picture.write_bytes(spot_jpeg)
    command = [PYTHON, ROOT / "tests/foreign/triton_clients.py", open_server.grpc, open_server.http, picture]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    with open_server.client() as client:
        xyxy = client.detect("spots", spot_jpeg).detections.xyxy.tolist()
    expected = {
        "live": True,
        "server": "lathe",
        "inputs": ["x"],
        "config": ["double", 64],
        "infer": True,
        "pinned": True,
        "async": True,
        "xyxy": pytest.approx(xyxy[0]),
        "index": [
            *(f"{name}{variant}" for name in ("double", "echo", "halves", "named") for variant in ("", "/plain")),
            "spots",
            "spots/a",
            "spots/b",
        ],
        "loaded": [True, False],
        "counted": True,
        "refused": "no such model is served here",
    }
    told["grpc"]["xyxy"], told["http"]["xyxy"] = (told[way]["xyxy"][0] for way in ("grpc", "http"))
    assert told["grpc"] == expected | {"streams": [True] * 5 + ["no such model is served here"]}
    assert told["http"] == expected | {"in json": True, "packed": True}
    assert told["aio"] == {"infer": True, "streams": [True] * 5, "server": "lathe", "over http": True, "ready": True}


@pytest.mark.skipif(not PERF_ANALYZER.exists(), reason="perf_analyzer is not installed: make clients")
@pytest.mark.parametrize("how", [("grpc",), ("grpc", "--streaming"), ("http",)], ids=" ".join)
def test_perf_analyzer_drives_a_model_without_errors(
    open_server: RunningServer, tmp_path: Path, how: tuple[str, ...]
) -> None:
    protocol, *flags = how
    address = open_server.grpc if protocol == "grpc" else open_server.http
    report = tmp_path / "report.csv"
    command = [PERF_ANALYZER, "-m", "double", "-i", protocol, "-u", address, "-f", report, *flags]
    command += ["--concurrency-range", "4:4", "-p", "1000", "-s", "80", "-r", "3", "-b", "2"]
    if flags:
        command += ["--async"]
    libraries = os.pathsep.join(str(path.parent) for path in CLIENTS.glob("perf_analyzer/lib/**/*.so*"))
    done = subprocess.run(
        [str(word) for word in command],
        env=os.environ | {"LD_LIBRARY_PATH": libraries},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = csv.DictReader(report.read_text().splitlines())
    assert float(row["Inferences/Second"]) > 0
