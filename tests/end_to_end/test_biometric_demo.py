"""The biometric demo, whole, with the networks that come with the repository; its figures are real."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import simplejpeg

from lathe.cli import main
from lathe.client import AsyncClient
from lathe.demo.gallery_acts import Deletion, delete
from lathe.demo.portraits import Portrait, load_portraits
from lathe.errors import NotFound
from lathe.repository import Repository
from tests.conftest import ROOT

MODELS = ROOT / "models"
KEY = secrets.token_hex(32)
CONTENTS: list[bytes] = []
"""Of the gallery's files while people are enrolled."""


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (MODELS / "face-embed").is_dir():
        pytest.skip("no embedding network comes with the repository yet")
    try:
        load_portraits()
    except NotFound as error:
        pytest.skip(error.message)
    folder = tmp_path_factory.mktemp("biometric")

    async def delete_later(client: AsyncClient, person: str, probes: Sequence[Portrait], files: Path) -> Deletion:
        CONTENTS.extend(path.read_bytes() for path in files.rglob("*") if path.is_file())
        return await delete(client, person, probes, files)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lathe.demo.biometric.delete", delete_later)
        patch.setattr("lathe.demo.biometric.secrets.token_hex", lambda size: KEY[: 2 * size])
        assert main(["demo", "--biometric", "--models", str(MODELS), "--output", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def report(output: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((output / "report.json").read_text())
    return read


def test_known_people_are_found_before_the_swap_and_after(report: dict[str, Any]) -> None:
    assert len(report["variants"]) == 2
    for figures in report["variants"].values():
        assert figures["probes"] == report["probes"]
        assert figures["rank1"]["value"] >= 0.97
        assert figures["fnmr"]["value"] < 0.1
        unseen = figures["seen_by_no_network"]
        assert 50 < unseen["probes"] < figures["probes"]
        assert unseen["rank1"]["value"] >= 0.98
        assert 0 < figures["embed_ms"] < figures["latency_p50_ms"] <= figures["latency_p99_ms"]


def test_false_matches_are_about_as_many_as_the_card_says(report: dict[str, Any]) -> None:
    """Other faces than the card's, so the bound is wide: a threshold that lets everybody in fails."""
    for figures in report["variants"].values():
        assert figures["impostor_comparisons"] == report["probes"] * (report["people"] - 1) > 10_000
        assert figures["fmr"]["value"] <= 10 * figures["card"]["fmr"]


def test_no_picture_that_made_an_embedding_variant_judges(report: dict[str, Any]) -> None:
    repository = Repository(MODELS)
    made = [repository.used_pictures(repository.newest("face-embed", name)) for name in report["variants"]]
    clean = [one for one in load_portraits() if not any(one.digest in pictures for pictures in made)]
    assert report["left_out"] == 400 - len(clean) > 0
    assert report["probes"] == len(clean) - report["people"]


def test_the_swap_needs_its_plan(report: dict[str, Any]) -> None:
    before, after = report["variants"]
    assert "re-enrol the gallery" in report["unplanned_swap"]["reason"]
    assert report["unplanned_swap"]["serves"] == before
    assert report["planned_swap"]["serves"] == after
    assert report["planned_swap"]["records"] == report["people"]
    assert "cannot be compared" in report["planned_swap"]["between"]


def test_nothing_is_left_of_who_was_deleted(report: dict[str, Any]) -> None:
    deletion = report["deletion"]
    assert deletion["found_before"] == deletion["probes"] > 0
    assert deletion["found_after"] == deletion["on_disk_after"] == 0
    assert deletion["people"] == report["people"] - 1
    assert all(bar["is_met"] for bar in report["bars"])


def test_the_key_was_in_no_file_and_the_gallery_is_gone(output: Path) -> None:
    assert not (output / "gallery").exists()
    left = [path.read_bytes() for path in output.rglob("*") if path.is_file()]
    assert len(CONTENTS) >= 2
    for content in (*CONTENTS, *left):
        assert KEY.encode() not in content
        assert bytes.fromhex(KEY) not in content


def test_figures_are_single_numbers(report: dict[str, Any]) -> None:
    """No vector is among them."""

    def lists(value: Any) -> Iterator[list[Any]]:
        if isinstance(value, list):
            yield value
        for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from lists(part)

    assert list(lists(report)) == [report["bars"]]


def test_the_picture_is_one(output: Path) -> None:
    pixels = simplejpeg.decode_jpeg((output / "people.jpg").read_bytes())
    assert pixels.shape[0] > 2000
    assert pixels.std() > 30
