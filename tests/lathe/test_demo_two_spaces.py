"""Which variants the demo takes, and what it says where there are not enough."""

from __future__ import annotations

from pathlib import Path

import pytest

from lathe.cli import main
from lathe.demo import Demo
from lathe.demo.biometric import BiometricDemo
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
    card.embedding.cross_spaces.add(space=before.embedding.space, variant="b", thresholds=card.embedding.thresholds)
    shipped.publish(card, network)
    with pytest.raises(Refused, match="may be compared with those of b"):
        choose(shipped.root, 0.001)
    publish(shipped, "c", 3, macs=200)
    assert choose(shipped.root, 0.001).after.variant == "c"


def test_a_variant_that_may_be_compared_at_another_rate_alone_is_refused_at_this_one(shipped: Repository) -> None:
    before = shipped.card(shipped.newest("face-embed", "b"))
    network = face_vectors(2)
    card = embedding_card("face-embed", "a", network)
    card.embedding.cross_spaces.add(space=before.embedding.space, variant="b", thresholds=card.embedding.thresholds)
    del card.embedding.cross_spaces[0].thresholds[1:]
    shipped.publish(card, network)
    assert choose(shipped.root, 0.001).after.variant == "a"
    with pytest.raises(Refused, match=r"with those of b at a false match rate of 0\.01: no swap is refused"):
        choose(shipped.root, 0.01)


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


@pytest.mark.parametrize(
    "flag",
    [
        "--recipe=recipes/face.toml",
        "--source=a.mp4",
        "--frames=frames",
        "--data=coco",
        "--seconds=20",
        "--price-per-core-hour=0.04",
        "--experiment",
    ],
)
def test_what_the_biometric_demo_has_not_is_refused(
    flag: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is what the other demo would take anyway."""
    monkeypatch.setattr(BiometricDemo, "run", lambda _: 0)
    assert main(["demo", "--biometric", flag]) == 1
    assert f"alone, not with {flag.partition('=')[0]}\n" in capsys.readouterr().err


def test_models_are_of_the_biometric_demo(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Demo, "run", lambda _: 0)
    assert main(["demo", "--models", "models"]) == 1
    assert "--models goes with --biometric" in capsys.readouterr().err


def test_the_demo_with_cameras_takes_what_is_given_and_its_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    run: list[Demo] = []
    monkeypatch.setattr(Demo, "run", lambda demo: run.append(demo) or 0)
    assert main(["demo"]) == 0
    assert (
        main(["demo", "--recipe", "own.toml", "--source=a.mp4", "--source=b.mp4", "--seconds=6", "--experiment"]) == 0
    )
    given = {"recipe": Path("own.toml"), "sources": [Path("a.mp4"), Path("b.mp4")], "seconds": 6.0, "experiment": True}
    assert run == [Demo(Path("work/demo")), Demo(Path("work/demo"), **given)]  # type: ignore[arg-type]
