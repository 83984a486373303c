"""What an embedding network and its card must hold before it serves."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lathe.errors import BadVariant, InvalidInput
from lathe.repository import Repository, VariantRef
from lathe.v1 import card_pb2
from lathe_server.engines import OnnxRuntimeEngine
from lathe_server.engines.golden import golden_answers, golden_picture
from lathe_server.loading import load_servable
from lathe_server.servable import Servable
from lathe_server.vision import Answer, EncodedPicture, Portrait
from lathe_server.vision.align import TEMPLATES
from tests.models import card_for, embedding_card, face_vectors, spotted_faces
from tests.pictures import jpeg, scene

NETWORK = face_vectors()


def loaded(folder: Path, card: card_pb2.Card, network: bytes = NETWORK, **how: float) -> Servable:
    root = folder / "models"
    root.mkdir(exist_ok=True)
    repository = Repository(root)
    ref = repository.publish(card, network)
    return load_servable(repository, ref, max_pixels=10**6, max_model_bytes=10**8, **how)  # type: ignore[arg-type]


def test_a_good_one_serves_faces_and_nothing_else(tmp_path: Path) -> None:
    card = embedding_card("face-embed", "a", NETWORK)
    card.golden.extend(golden_answers(OnnxRuntimeEngine(NETWORK).run(golden_picture((32, 32)))))
    servable = loaded(tmp_path, card)
    picture = EncodedPicture(jpeg(scene()))
    answer = servable.judge(Portrait(picture, (TEMPLATES["dlib"] * 100).astype(np.float32)[None]))
    assert isinstance(answer, Answer)
    assert answer.embeddings
    assert answer.embeddings.space == card.embedding.space
    assert all(seconds > 0 for seconds in (answer.stages.decode, answer.stages.preprocess, answer.stages.infer))
    with pytest.raises(InvalidInput, match="face-embed detects nothing"):
        servable.judge(picture)


def test_an_embedding_says_nothing_of_its_numbers(tmp_path: Path) -> None:
    answer = loaded(tmp_path, embedding_card("face-embed", "a", NETWORK)).judge(Portrait(EncodedPicture(SMALL)))
    assert isinstance(answer, Answer)
    assert answer.embeddings
    assert f"{answer.embeddings.vectors[0, 0]:.4f}" not in repr(answer)
    assert repr(answer.embeddings) == f"Embeddings(space='{answer.embeddings.space}')"


SMALL = jpeg(scene(32, 32))


def threshold(
    fmr: float = 0.0001, least: float = 0.95, fnmr: float = 0.2, high: float = 0.5
) -> card_pb2.MatchThreshold:
    return card_pb2.MatchThreshold(fmr=fmr, min_similarity=least, fnmr=fnmr, fnmr_low=0.1, fnmr_high=high)


def across(card: card_pb2.Card, *spaces: str, thresholds: int = 1) -> None:
    for space in spaces:
        card.embedding.cross_spaces.add(space=space, thresholds=[threshold()] * thresholds)


BAD: dict[str, tuple[Callable[[card_pb2.Card], object], str]] = {
    "nothing of embeddings": (lambda card: card.ClearField("embedding"), "names no embedding space"),
    "no space": (lambda card: card.embedding.ClearField("space"), "names no embedding space"),
    "another network's space": (
        lambda card: setattr(card.embedding, "space", "face-embed/0123456789abcdef"),
        "another embedding space than its network's",
    ),
    "another model's space": (lambda card: setattr(card, "model", "other"), "another embedding space"),
    "another alignment": (lambda card: setattr(card.embedding, "alignment", 2), "another embedding space"),
    "no alignment": (lambda card: setattr(card.embedding, "alignment", 0), "no alignment"),
    "no dimensions": (lambda card: setattr(card.embedding, "dimensions", 0), "the card says 0"),
    "other dimensions": (lambda card: setattr(card.embedding, "dimensions", 9), r"of the shape \(1, 9\) is needed"),
    "no thresholds": (lambda card: card.embedding.ClearField("thresholds"), "the thresholds of the card are missing"),
    "a rate above 1": (lambda card: card.embedding.thresholds.append(threshold(fmr=2)), "cannot be"),
    "a rate of NaN": (lambda card: card.embedding.thresholds.append(threshold(fmr=math.nan)), "cannot be"),
    "a similarity above 1": (lambda card: card.embedding.thresholds.append(threshold(least=1.5)), "cannot be"),
    "a similarity of NaN": (lambda card: card.embedding.thresholds.append(threshold(least=math.nan)), "cannot be"),
    "an interval beside its rate": (lambda card: card.embedding.thresholds.append(threshold(fnmr=0.6)), "outside"),
    "thresholds in no order": (lambda card: card.embedding.thresholds.append(threshold(fmr=0.01)), "do not rise"),
    "a lower threshold at a lower rate": (lambda card: card.embedding.thresholds.append(threshold(least=0)), "rise"),
    "its own space across": (lambda card: across(card, card.embedding.space), "not its own"),
    "a space without a name": (lambda card: across(card, ""), "each other embedding space once"),
    "a space twice": (lambda card: across(card, "x/1", "x/1"), "each other embedding space once"),
    "a space without thresholds": (lambda card: across(card, "x/1", thresholds=0), "across spaces are missing"),
    "another size": (lambda card: setattr(card.serving_size, "width", 64), "must be uint8, batch × 32 × 64 × 3"),
    "a huge size": (lambda card: setattr(card.serving_size, "width", 10**6), "at most 1000000 pixels"),
    "another golden answer": (
        lambda card: card.golden.add(output="embedding", low=-1, high=1, values=[-1, 1] * 4),
        "on the golden picture",
    ),
}


@pytest.mark.fault(43)
@pytest.mark.parametrize(("change", "reason"), BAD.values(), ids=BAD.keys())
def test_a_card_that_does_not_fit_is_refused(
    tmp_path: Path, change: Callable[[card_pb2.Card], object], reason: str
) -> None:
    card = embedding_card("face-embed", "a", NETWORK)
    change(card)
    with pytest.raises(BadVariant, match=reason):
        loaded(tmp_path, card)


def test_a_golden_answer_that_is_a_little_off_is_another_space(tmp_path: Path) -> None:
    """By 5 % of its range, which detectors may be."""
    card = embedding_card("face-embed", "a", NETWORK)
    card.golden.extend(golden_answers(OnnxRuntimeEngine(NETWORK).run(golden_picture((32, 32)))))
    (golden,) = card.golden
    for place in range(0, len(golden.values), 2):
        golden.values[place] += 0.05 * 2**0.5 * (golden.high - golden.low)
    with pytest.raises(BadVariant, match=r"off by 5\.0% of its range .* at most 2% is allowed"):
        loaded(tmp_path, card)


NETWORKS = {
    "no unit vectors": (face_vectors(unit=False), "length is not 1"),
    "NaN": (face_vectors(fixed=[0.0] * 8), "length is not 1"),
    "detections": (spotted_faces(), "must be uint8, batch × 32 × 32 × 3"),
}


@pytest.mark.parametrize(("network", "reason"), NETWORKS.values(), ids=NETWORKS.keys())
def test_a_network_that_gives_no_embeddings_is_refused(tmp_path: Path, network: bytes, reason: str) -> None:
    with pytest.raises(BadVariant, match=reason):
        loaded(tmp_path, embedding_card("face-embed", "a", network), network)


def test_a_network_slower_than_its_card_says_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lathe_server.loading.cpu_name", lambda: "this one")
    card = embedding_card("face-embed", "a", NETWORK)
    card.latency.add(cpu="this one", size=card.serving_size, stages={"infer": 1e-9})
    with pytest.raises(BadVariant, match="of CPU time; its card says"):
        loaded(tmp_path, card, max_slowdown=4.0)


def test_a_detector_knows_its_landmarks(tmp_path: Path) -> None:
    servable = loaded(tmp_path, card_for("face", "a"), spotted_faces())
    assert (servable.ref, servable.landmarks) == (VariantRef("face", "a", 1), 5)
