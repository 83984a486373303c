"""Which variants the demo takes, and what it says where there are not enough."""

from __future__ import annotations

from pathlib import Path

import pytest

from lathe.cli import main
from lathe.demo.two_spaces import choose, threshold_at
from lathe.errors import NotFound, Refused
from lathe.repository import Repository
from lathe.v1 import card_pb2
from tests.models import bright_spots, card_for, embedding_card, face_vectors


@pytest.fixture
def shipped(tmp_path: Path) -> Repository:
    """A detector, and an embedding network with one variant."""
    repository = Repository(tmp_path)
    repository.publish(card_for("face", "int8", recommended=True), bright_spots())
    publish(repository, "b", 1, macs=100, recommended=True)
    return repository


def publish(repository: Repository, variant: str, seed: int, *, macs: int, recommended: bool = False) -> card_pb2.Card:
    network = face_vectors(seed)
    card = embedding_card("face-embed", variant, network, recommended=recommended)
    card.macs = macs
    repository.publish(card, network)
    return card


def test_the_recommended_one_gives_way_to_the_cheapest_of_another_space(shipped: Repository) -> None:
    publish(shipped, "a", 2, macs=50)
    publish(shipped, "c", 3, macs=20)
    spaces = choose(shipped.root, 0.001)
    assert [str(one) for one in (spaces.detector, spaces.before, spaces.after)] == [
        "face/int8/1",
        "face-embed/b/1",
        "face-embed/c/1",
    ]


def test_a_variant_that_may_be_compared_is_passed_over(shipped: Repository) -> None:
    before = shipped.card(shipped.newest("face-embed", "b"))
    network = face_vectors(2)
    card = embedding_card("face-embed", "a", network)
    card.embedding.cross_spaces.add(space=before.embedding.space, variant="b")
    shipped.publish(card, network)
    with pytest.raises(Refused, match="may be compared with those of b"):
        choose(shipped.root, 0.001)
    publish(shipped, "c", 3, macs=200)
    assert choose(shipped.root, 0.001).after.variant == "c"


def test_a_variant_without_a_threshold_does_not_count(shipped: Repository) -> None:
    network = face_vectors(2)
    card = embedding_card("face-embed", "a", network)
    del card.embedding.thresholds[1:]
    shipped.publish(card, network)
    with pytest.raises(
        NotFound, match=r"thresholds at a false match rate of 0.001, and there are 1.*face-embed-results"
    ):
        choose(shipped.root, 0.001)


def test_the_threshold_is_that_of_the_rate(shipped: Repository) -> None:
    card = shipped.card(shipped.newest("face-embed", "b"))
    assert threshold_at(card, 0.001).min_similarity == pytest.approx(0.9)


def test_a_missing_model_is_told_with_what_makes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Repository(tmp_path).publish(card_for("face", "int8"), bright_spots())
    assert main(["demo", "--biometric", "--models", str(tmp_path), "--output", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "there is no model face-embed in" in said
    assert "lathe compress recipes/face-embed-results.toml" in said
    assert not (tmp_path / "out").exists()


def test_the_two_demos_do_not_mix(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--biometric", "--experiment"]) == 1
    assert "no A/B test" in capsys.readouterr().err
