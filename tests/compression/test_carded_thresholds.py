"""Thresholds in the cards: measured where a recipe's labelled faces are there, by the variants' own vectors."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from lathe.errors import NotFound
from lathe.progress import Progress
from lathe.repository import Repository
from lathe.v1 import card_pb2
from lathe_compression import carded_thresholds
from lathe_compression.compress import compress
from lathe_compression.match_thresholds import points_across
from lathe_compression.recipe import load_recipe
from tests.compression.small_faces import RECIPE, write_embedding_recipe

PEOPLE = 12
VERIFIED = RECIPE + '\n[verification]\npairs = "$TEST_FACES/pairs.txt"\nfmrs = [0.05, 0.001]\n'


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Two pictures each of twelve people, whose noise is their own, and a recipe that names them."""
    random = np.random.default_rng(0)
    for person in range(PEOPLE):
        (tmp_path / f"people/P{person}").mkdir(parents=True)
        own = cv2.resize(random.integers(0, 236, (4, 6, 3), np.uint8), (96, 64))
        for number in (1, 2):
            seen = own + random.integers(0, 20, own.shape, np.uint8)
            cv2.imwrite(str(tmp_path / f"people/P{person}/P{person}_{number:04}.png"), seen)
    same = [f"P{person}\t1\t2" for person in range(PEOPLE)]
    different = [f"P{person}\t1\tP{(person + 1) % PEOPLE}\t1" for person in range(PEOPLE)]
    (tmp_path / "people/pairs.txt").write_text("\n".join([f"1\t{PEOPLE}", *same, *different]))
    return write_embedding_recipe(tmp_path, VERIFIED)


@pytest.fixture
def few_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A margin so wide that the rule of three lets twelve people prove something."""
    monkeypatch.setattr(carded_thresholds, "points_across", partial(points_across, margin=0.3))


def cards(recipe: Path, *only: str) -> dict[str, card_pb2.Card]:
    """The newest ones, after a run."""
    compress(load_recipe(recipe), recipe.parent / "models", Progress(), only=only or ("int8",))
    repository = Repository(recipe.parent / "models")
    return {name: repository.card(repository.newest("marks", name)) for name in repository.variants("marks")}


@pytest.mark.usefixtures("few_are_enough")
def test_cards_hold_thresholds_and_the_spaces_that_may_be_compared(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_FACES", str(recipe.parent / "people"))
    made = cards(recipe)
    for name, other in (("fp32", "int8"), ("int8", "fp32")):
        embedding = made[name].embedding
        # One in a thousand is more than 264 comparisons of two people can say.
        (threshold,) = embedding.thresholds
        assert (threshold.fmr, threshold.data, threshold.impostor_comparisons) == (0.05, "people/pairs.txt", 264)
        assert 0 < threshold.min_similarity < 1
        assert threshold.fnmr == 0
        (across,) = embedding.cross_spaces
        assert (across.space, across.variant) == (made[other].embedding.space, other)
        assert [one.fmr for one in across.thresholds] == [0.05]


@pytest.mark.usefixtures("few_are_enough")
def test_variants_of_the_same_bytes_are_one_space(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers take no card that names a space twice, or its own among the others."""
    monkeypatch.setenv("TEST_FACES", str(recipe.parent / "people"))
    twin = '[[variant]]\nname = "twin"\nparent = "fp32"\nsteps = [{ quantize = {} }]\n'
    recipe.write_text(recipe.read_text().replace("[verification]", f"{twin}\n[verification]"))
    made = cards(recipe, "int8", "twin")
    assert made["int8"].embedding.space == made["twin"].embedding.space
    spaces = {name: [one.variant for one in card.embedding.cross_spaces] for name, card in made.items()}
    assert spaces == {"fp32": ["int8"], "int8": ["fp32"], "twin": ["fp32"]}


def test_twelve_people_prove_no_space_to_be_like_another(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_FACES", str(recipe.parent / "people"))
    for card in cards(recipe).values():
        assert card.embedding.thresholds
        assert not card.embedding.cross_spaces


def test_without_the_faces_the_cards_hold_none_and_it_is_said(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = cards(recipe)
    assert not any(one.embedding.thresholds or one.embedding.cross_spaces for one in made.values())
    told = " ".join(capsys.readouterr().err.split())
    assert "new hold no thresholds, and no server loads a variant without" in told


@pytest.mark.usefixtures("few_are_enough")
class TestLater:
    """What is published already is published anew where its card has more to say."""

    def test_with_the_faces_at_hand(self, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = cards(recipe)
        monkeypatch.setenv("TEST_FACES", str(recipe.parent / "people"))
        after = cards(recipe)
        for name, card in after.items():
            assert (before[name].version, card.version) == (1, 2)
            assert card.embedding.thresholds
            assert len(card.embedding.cross_spaces) == 1
            for one in (before[name], card):
                one.ClearField("version")
                one.ClearField("created_at")
                one.embedding.ClearField("thresholds")
                one.embedding.ClearField("cross_spaces")
            assert card == before[name]
        assert [card.version for card in cards(recipe).values()] == [2, 2]
        monkeypatch.delenv("TEST_FACES")
        assert [card.version for card in cards(recipe).values()] == [2, 2]

    def test_beside_another_variant(self, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TEST_FACES", str(recipe.parent / "people"))
        text = recipe.read_text()
        second = '[[variant]]\nname = "also"\nparent = "fp32"\nsteps = [{ quantize = { reduce_range = true } }]\n'
        recipe.write_text(text.replace("[verification]", f"{second}\n[verification]"))
        cards(recipe)
        made = cards(recipe, "also")
        spaces = {name: [one.variant for one in card.embedding.cross_spaces] for name, card in made.items()}
        assert spaces == {"fp32": ["also", "int8"], "int8": ["fp32"], "also": ["fp32"]}
        assert {name: card.version for name, card in made.items()} == {"fp32": 2, "int8": 1, "also": 1}


def test_faces_that_are_missing_are_told_before_anything_is_made(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_FACES", str(recipe.parent / "people"))
    (recipe.parent / "people/P3/P3_0002.png").unlink()
    with pytest.raises(NotFound, match=r"P3/P3_0002\.jpg among them"):
        cards(recipe)
    assert not list((recipe.parent / "cache/steps").glob("*"))
