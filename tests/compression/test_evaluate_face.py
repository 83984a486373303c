"""The committed recipe's INT8 variant on real labelled pictures, as the command line judges it."""

from __future__ import annotations

import contextlib
import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from lathe.cli import main

REFERENCE_AP_MEDIUM = 0.794
"""CenterFace as shipped, long side 512."""


@cache
def evaluated(repository: Path, data: Path, *flags: str) -> dict[str, Any]:
    """`lathe evaluate … --json` in this process; it judges fp32 beside int8."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main(
            ["evaluate", str(repository / "face/int8"), "--data", str(data / "widerface-dev"), "--json", *flags]
        )
    assert code == 0
    figures: dict[str, Any] = json.loads(out.getvalue())
    return figures


@pytest.fixture
def at_512(face_repository: Path, lathe_data: Path) -> dict[str, Any]:
    return evaluated(face_repository, lathe_data, "--size", "512")


@pytest.fixture
def at_serving_size(face_repository: Path, lathe_data: Path) -> dict[str, Any]:
    return evaluated(face_repository, lathe_data)


def test_fp32_is_as_good_as_the_published_network(at_512: dict[str, Any]) -> None:
    assert at_512["ap50_reference"]["medium"] == pytest.approx(REFERENCE_AP_MEDIUM, abs=0.005)


def test_int8_is_within_a_point(at_512: dict[str, Any]) -> None:
    assert at_512["ap50"]["medium"] > at_512["ap50_reference"]["medium"] - 0.01


def test_int8_is_within_a_point_at_the_serving_size(at_serving_size: dict[str, Any]) -> None:
    assert at_serving_size["size"] == 320
    assert at_serving_size["ap50"]["medium"] > at_serving_size["ap50_reference"]["medium"] - 0.01


def test_difference_has_a_paired_interval(at_512: dict[str, Any]) -> None:
    for name in ("easy", "medium", "hard"):
        difference = at_512["ap50_difference"][name]
        assert difference["value"] == pytest.approx(at_512["ap50"][name] - at_512["ap50_reference"][name])
        assert difference["low"] <= difference["value"] <= difference["high"]
        assert difference["high"] - difference["low"] < 0.05  # unpaired, it would be four times as wide


def test_figures_say_how_they_were_made(at_512: dict[str, Any]) -> None:
    assert {"ap50", "size", "latency_ms", "protocol"} <= at_512.keys()
    assert (at_512["variant"], at_512["reference"]) == ("face/int8/1", "face/fp32/1")
    assert (at_512["size"], at_512["pictures"], at_512["left_out"]) == (512, 100, 0)
    assert set(at_512["latency_ms"]) == {"decode", "preprocess", "infer", "postprocess", "total"}
    protocol = at_512["protocol"]
    assert (protocol["min_score"], protocol["nms"], protocol["max_detections"]) == (0.02, 0.3, 1000)
    assert protocol["scaled_to_fit"] == [512, 512]
    assert protocol["cpu"]


def test_int8_is_faster(at_512: dict[str, Any]) -> None:
    """How much faster is the benchmark's to say: this machine may be busy."""
    assert at_512["speedup"] > 1.2
