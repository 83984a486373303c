"""The gallery's embedding space: which routes go with it, when it changes, and by whose thresholds is decided."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from lathe.client import Client, ServerError
from lathe.embeddings import Embeddings
from lathe.errors import LatheError
from lathe.pipeline_file import PipelineSpec
from lathe.repository import Repository
from tests.conftest import start_server
from tests.models import embedding_card, face_vectors
from tests.server.faces import OTHER
from tests.server.gallery_people import (
    ANN,
    ANN_LATER,
    BOB,
    BOB_LATER,
    CAT,
    CAT_LATER,
    OTHER_SPACE,
    SPACE,
    embedded,
    publish_people,
    serving,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return publish_people(tmp_path)


@pytest.fixture
def client(root: Path) -> Iterator[Client]:
    """Ann and Bob are enrolled, and their faces kept."""
    with serving(root, "--gallery-keep-faces", "on") as running, running.client() as opened:
        opened.gallery.enroll("ann", ANN)
        opened.gallery.enroll("bob", BOB)
        yield opened


def test_a_swap_to_another_space_is_refused_until_everybody_is_re_enrolled(client: Client) -> None:
    client.set_route("face-embed", {"a": 1})
    with pytest.raises(ServerError, match="2 enrolled faces are in the embedding space") as caught:
        client.set_route("face-embed", {"b": 1})
    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
    with pytest.raises(ServerError, match="re-enrol the gallery with it first"):
        client.set_route("face-embed", {"a": 9, "b": 1})
    assert client.gallery.verify("ann", ANN_LATER).match
    client.load("face-embed", "b")
    with pytest.raises(ServerError, match=f"the embedding space {SPACE}, this one is in {OTHER_SPACE}"):
        client.gallery.verify("ann", Embeddings(embedded(ANN).vectors, OTHER_SPACE, np.zeros(1, np.int64)))
    moved = client.gallery.re_enroll("b")
    assert (moved.space, moved.records) == (OTHER_SPACE, 2)
    with pytest.raises(ServerError, match=f"are in the embedding space {OTHER_SPACE}, this one is in {SPACE}"):
        client.gallery.verify("ann", ANN_LATER)
    client.set_route("face-embed", {"b": 1})
    assert client.gallery.verify("ann", ANN_LATER).match
    assert not client.gallery.verify("ann", CAT).match
    assert [one.subject for one in client.gallery.identify(BOB_LATER).candidates] == ["bob"]
    with pytest.raises(ServerError, match="2 enrolled faces"):
        client.rollback("face-embed")


def test_a_swap_is_free_where_nobody_is_enrolled_or_the_card_permits_it(root: Path) -> None:
    other = face_vectors(3)
    card = embedding_card("face-embed", "c", other)
    cross = card.embedding.cross_spaces.add(space=SPACE, variant="a")
    cross.thresholds.add(fmr=0.001, min_similarity=0.97)
    Repository(root).publish(card, other)
    with serving(root) as running, running.client() as client:
        client.set_route("face-embed", {"b": 1})
        client.set_route("face-embed", {"a": 1})
        client.gallery.enroll("ann", ANN)
        client.set_route("face-embed", {"c": 1})
        assert client.gallery.verify("ann", ANN).threshold.min_similarity == 0.97
        with pytest.raises(ServerError, match="re-enrol the gallery first"):
            client.gallery.enroll("bob", BOB)


def test_a_route_that_others_wrote_meanwhile_is_not_carried_out_at_the_start(root: Path) -> None:
    """A server without a gallery knows of none, and writes it."""
    with serving(root) as first, first.client() as client:
        client.set_route("face-embed", {"a": 1})
        client.gallery.enroll("ann", ANN)
        first.stop()
    with start_server(root, root.parent / "log") as other, other.client() as client:
        client.set_route("face-embed", {"b": 1})
        assert client.embed("face-id", ANN).embedded_by == "face-embed/b/1"
    with serving(root) as again, again.client() as client:
        assert client.route("face-embed").revision == 1
        assert client.gallery.verify("ann", ANN_LATER).match
        assert "1 enrolled faces are in the embedding space" in again.log.read_text()


def test_the_first_face_needs_a_route_and_a_rate_by_which_the_gallery_can_decide(root: Path) -> None:
    with serving(root) as running, running.client() as client:
        client.set_route("face-embed", {"a": 99, "b": 1})
        for face in (ANN, embedded(ANN)):
            with pytest.raises(ServerError, match="1 enrolled faces are in the embedding space"):
                client.gallery.enroll("ann", face)
        client.set_route("face-embed", {"a": 1})
        client.gallery.enroll("ann", ANN)
        running.stop()
    strict = ("--gallery-fmr", "0.0001")
    with pytest.raises(LatheError), serving(root, *strict):
        pass
    assert "the gallery cannot decide at its false match rate: 1 enrolled faces" in (root.parent / "log").read_text()
    (root.parent / "people").unlink()
    with serving(root, *strict) as running, running.client() as client:
        with pytest.raises(ServerError, match=r"no decision threshold was measured at a false match rate of 0\.0001"):
            client.gallery.enroll("ann", ANN)
        assert client.gallery.describe().records == 0


def test_a_gallery_that_its_pipeline_has_left_stops_no_start(root: Path) -> None:
    """Nothing is compared by the network that it was enrolled with."""
    with serving(root) as running, running.client() as client:
        client.gallery.enroll("ann", ANN)
        running.stop()
    repository = Repository(root)
    repository.publish(embedding_card("elsewhere", "a", OTHER, recommended=True), OTHER)
    repository.write_pipeline("face-id", PipelineSpec("face", "elsewhere", largest=2))
    with serving(root, "--gallery-fmr", "0.0001") as running, running.client() as client:
        assert client.gallery.describe().space == SPACE
        with pytest.raises(ServerError, match="are in the embedding space"):
            client.gallery.verify("ann", ANN_LATER)


def test_nobody_is_re_enrolled_where_the_gallery_could_not_decide(root: Path) -> None:
    card = embedding_card("face-embed", "c", OTHER)
    del card.embedding.thresholds[1]
    Repository(root).publish(card, OTHER)
    with serving(root, "--gallery-keep-faces", "on") as running, running.client() as client:
        client.gallery.enroll("ann", ANN)
        client.load("face-embed", "c")
        with pytest.raises(ServerError, match=r"no decision threshold was measured at a false match rate of 0\.001"):
            client.gallery.re_enroll("c")
        assert client.gallery.verify("ann", ANN_LATER).match


@pytest.mark.parametrize("face", [BOB, embedded(BOB)], ids=["picture", "embedding"])
def test_a_card_that_is_altered_after_it_was_loaded_changes_no_threshold(root: Path, face: bytes | Embeddings) -> None:
    with serving(root) as running, running.client() as client:
        for path in (root / "face-embed").rglob("card.json"):
            card = path.read_text()
            assert "0.9" in card
            path.write_text(card.replace("0.9", "0.0"))
        client.gallery.enroll("ann", ANN)
        verdict = client.gallery.verify("ann", face)
        assert (verdict.match, verdict.threshold.min_similarity) == (False, 0.9)


def test_who_was_enrolled_without_a_kept_face_cannot_be_re_enrolled(client: Client) -> None:
    client.gallery.enroll("cat", embedded(CAT))
    client.load("face-embed", "b")
    with pytest.raises(ServerError, match="no face was kept of 1 records") as caught:
        client.gallery.re_enroll("b")
    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
    assert client.gallery.verify("cat", CAT_LATER).match
