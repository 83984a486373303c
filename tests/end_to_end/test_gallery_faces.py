"""Real faces at a gallery: known people are found, strangers are not, by the networks that come with the repository."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from lathe.client import Client
from lathe.demo.portraits import load_portraits
from lathe.pipeline_file import PipelineSpec
from lathe.repository import Repository
from lathe_server.gallery.sealing import write_key
from tests.conftest import ROOT, start_server

KNOWN, STRANGERS = range(1, 31), range(31, 41)
ENROLLED, LATER = 1, range(2, 11)
"""Numbers of a person's pictures."""


@cache
def portraits() -> dict[tuple[str, int], NDArray[np.uint8]]:
    return {(one.person, one.number): one.pixels for one in load_portraits()}


def picture(person: int, number: int) -> NDArray[np.uint8]:
    return portraits()[f"s{person}", number]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Of a server at which the known people are enrolled with one picture each."""
    shipped = ROOT / "models"
    if not (shipped / "face-embed").is_dir():
        pytest.skip("no embedding network comes with the repository yet")
    folder = tmp_path_factory.mktemp("gallery")
    for model in ("face", "face-embed"):
        shutil.copytree(shipped / model, folder / "models" / model)
    Repository(folder / "models").write_pipeline("face-id", PipelineSpec("face", "face-embed", largest=1, min_side=16))
    write_key(folder / "key")
    flags = ("--gallery", str(folder / "people"), "--gallery-key", str(folder / "key"))
    with start_server(folder / "models", folder / "log", *flags) as running, running.client() as opened:
        for person in KNOWN:
            opened.gallery.enroll(str(person), picture(person, ENROLLED))
        yield opened


def test_known_people_are_found_by_later_pictures(client: Client) -> None:
    found: Counter[str] = Counter()
    for person in KNOWN:
        for number in LATER:
            candidates = client.gallery.identify(picture(person, number), fmr=0.001).candidates
            found["right" if [one.subject for one in candidates] == [str(person)] else "wrong or nobody"] += 1
    assert found["right"] >= 0.99 * found.total()


def test_strangers_match_about_as_often_as_is_said(client: Client) -> None:
    """Ten strangers are few people, so the bound is wide: a threshold that lets everybody in fails."""
    matches, expected = 0, 0.0
    for person in STRANGERS:
        for number in (1, 5, 9):
            found = client.gallery.identify(picture(person, number), fmr=0.001, limit=100)
            matches += len(found.candidates)
            expected += found.expected_false_matches
    assert expected == pytest.approx(0.9)
    assert matches <= 10 * expected


def test_a_person_is_herself_and_nobody_else(client: Client) -> None:
    assert client.gallery.verify("1", picture(1, 7)).match
    assert not client.gallery.verify("2", picture(1, 7)).match
