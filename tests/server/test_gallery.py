"""Enrolment, verification and identification: what is decided, by which threshold, and what is refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lathe.errors import Conflict, InvalidInput, NotFound, Refused
from lathe.v1 import card_pb2
from lathe_server.gallery.decision import Unmeasured, refuse_stranger, threshold
from lathe_server.gallery.gallery import MAX_TEMPLATES, Gallery, GallerySettings, check_subject
from lathe_server.gallery.probe import Probe
from lathe_server.gallery.search import Index
from lathe_server.gallery.store import Store

KEY = bytes(range(32))
DIMENSIONS = 8


def embedding(space: str = "face/a", *, crosses: tuple[str, ...] = ()) -> card_pb2.Embedding:
    """Of a card with thresholds at 1e-2 and 1e-3, and one more, higher, across spaces."""
    made = card_pb2.Embedding(
        space=space,
        dimensions=DIMENSIONS,
        thresholds=[
            card_pb2.MatchThreshold(fmr=0.01, min_similarity=0.5),
            card_pb2.MatchThreshold(fmr=0.001, min_similarity=0.8),
        ],
    )
    for cross in crosses:
        made.cross_spaces.add(space=cross, thresholds=[card_pb2.MatchThreshold(fmr=0.001, min_similarity=0.9)])
    return made


def face(*numbers: float, of: card_pb2.Embedding | None = None) -> Probe:
    """A unit vector that begins with these numbers, the rest of its length in its last place."""
    vector = np.zeros(DIMENSIONS, np.float32)
    vector[: len(numbers)] = numbers
    vector[-1] = np.sqrt(max(0.0, 1 - float(vector @ vector)))
    return Probe(vector, of or embedding())


ANN, BOB = face(1), face(0, 1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "people", KEY)
    yield opened
    opened.close()


@pytest.fixture
def gallery(store: Store) -> Gallery:
    """Ann and Bob are in it."""
    made = Gallery(store, GallerySettings(keep_faces=True))
    made.enroll("ann", ANN, b"ann's face")
    made.enroll("bob", BOB, b"bob's face")
    return made


@pytest.mark.parametrize(
    ("probe", "fmr", "match"),
    [
        (face(0.99), 0.001, True),
        (face(0.8001), 0.001, True),
        (face(0.79), 0.001, False),
        (face(0.79), 0.01, True),
        (face(0.49), 0.01, False),
        (face(-1), 0.01, False),
        (face(0, 1), 0.01, False),
    ],
)
def test_a_face_is_somebodys_from_the_cards_threshold_on(
    gallery: Gallery, probe: Probe, fmr: float, match: bool
) -> None:
    verdict = gallery.verify("ann", probe, fmr)
    assert verdict.match is match
    assert verdict.threshold.fmr == fmr
    assert (verdict.similarity is not None) is match, "how near a forger comes is not told"


def test_the_best_of_a_persons_templates_counts(gallery: Gallery) -> None:
    assert not gallery.verify("ann", face(0, 0, 1), 0.01).match
    gallery.enroll("ann", face(0, 0, 1))
    verdict = gallery.verify("ann", face(0, 0, 1), 0.01)
    assert (verdict.match, verdict.comparisons) == (True, 2)
    assert not gallery.verify("bob", face(0, 0, 1), 0.01).match


def test_who_it_may_be_is_told_the_most_alike_first(gallery: Gallery) -> None:
    found = gallery.identify(face(0.6, 0.7), 0.01, limit=5)
    assert [match.subject for match in found.matches] == ["bob", "ann"]
    assert [round(match.similarity, 3) for match in found.matches] == [0.7, 0.6]
    assert found.comparisons == 2
    assert [match.subject for match in gallery.identify(face(0.6, 0.7), 0.01).matches] == ["bob"]
    assert gallery.identify(face(0.6, 0.7), 0.001, limit=5).matches == []
    assert gallery.identify(face(0.3, 0.3), 0.01, limit=5).matches == []


def test_an_empty_gallery_knows_nobody_and_takes_any_space(store: Store) -> None:
    gallery = Gallery(store)
    assert (gallery.space, len(gallery), gallery.people) == ("", 0, 0)
    assert gallery.identify(ANN, 0.001).matches == []
    gallery.enroll("ann", ANN)
    assert gallery.space == "face/a"
    gallery.delete("ann")
    gallery.enroll("ann", face(1, of=embedding("face/b")))
    assert gallery.space == "face/b"


def test_what_lies_in_two_spaces_is_not_compared(gallery: Gallery) -> None:
    stranger = face(1, of=embedding("face/b"))
    for call in (
        lambda: gallery.verify("ann", stranger, 0.001),
        lambda: gallery.identify(stranger, 0.001),
        lambda: gallery.enroll("cat", stranger),
    ):
        with pytest.raises(
            Refused, match=r"the gallery's faces are in the embedding space face/a, this one is in face/b"
        ):
            call()
    assert len(gallery) == 2


def test_a_card_may_permit_a_comparison_with_a_threshold_of_its_own(gallery: Gallery) -> None:
    cousin = embedding("face/b", crosses=("face/a",))
    assert gallery.verify("ann", face(0.91, of=cousin), 0.001).match
    assert not gallery.verify("ann", face(0.85, of=cousin), 0.001).match
    assert [match.subject for match in gallery.identify(face(0, 0.95, of=cousin), 0.001).matches] == ["bob"]
    with pytest.raises(Refused, match=r"rate of 0\.01; the card has those at 0\.001"):
        gallery.verify("ann", face(1, of=cousin), 0.01)
    with pytest.raises(Refused, match="re-enrol the gallery first"):
        gallery.enroll("cat", face(1, of=cousin))


@pytest.mark.parametrize("fmr", [0.0, 0.0001, 0.002, 1.0, float("nan")])
def test_a_rate_that_nothing_was_measured_at_is_refused(gallery: Gallery, fmr: float) -> None:
    with pytest.raises(Refused, match=r"no decision threshold was measured .*; the card has those at 0.01, 0.001"):
        gallery.verify("ann", ANN, fmr)


def test_a_card_without_thresholds_decides_nothing() -> None:
    with pytest.raises(Refused, match="the card has those at none"):
        threshold(card_pb2.Embedding(space="face/a"), "face/a", 0.001)


@pytest.mark.fault(8)
@pytest.mark.parametrize(
    "vector",
    [
        np.zeros(DIMENSIONS),
        np.full(DIMENSIONS, np.nan),
        np.full(DIMENSIONS, np.inf),
        np.full(DIMENSIONS, 3e38),
        np.ones(DIMENSIONS),
        np.eye(DIMENSIONS)[0] * 0.9,
        np.eye(DIMENSIONS - 1)[0],
        np.eye(DIMENSIONS + 1)[0],
        np.zeros(0),
    ],
    ids=["zeros", "NaN", "inf", "huge", "too long", "too short", "too few", "too many", "none"],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_only_unit_vectors_of_the_space_are_faces(gallery: Gallery, vector: NDArray[np.float64]) -> None:
    probe = Probe(vector.astype(np.float32), embedding())
    for call in (
        lambda: gallery.enroll("ann", probe),
        lambda: gallery.verify("ann", probe, 0.001),
        lambda: gallery.identify(probe, 0.001),
    ):
        with pytest.raises(InvalidInput, match=r"the vector has|length 1"):
            call()
    assert len(gallery) == 2


@pytest.mark.parametrize("name", ["", " ann", "ann ", "a\nb", "a\0b", "x" * 129, "\u202eann", "\ud800"])
def test_a_person_has_a_name_that_can_be_read(gallery: Gallery, name: str) -> None:
    with pytest.raises(InvalidInput, match="a person is named by 1 to 128 printable characters"):
        gallery.enroll(name, ANN)
    assert check_subject("Ann Öztürk, badge 7") == "Ann Öztürk, badge 7"


def test_nobody_who_is_not_enrolled_is_verified_deleted_or_exported(gallery: Gallery) -> None:
    for call in (
        lambda: gallery.verify("cat", ANN, 0.001),
        lambda: gallery.delete("cat"),
        lambda: gallery.export("cat"),
    ):
        with pytest.raises(NotFound, match="no such person is enrolled"):
            call()
    with pytest.raises(NotFound, match="no such record"):
        gallery.delete("ann", "0" * 32)


def test_what_is_deleted_is_found_no_more_now_or_later(gallery: Gallery, store: Store) -> None:
    second = gallery.enroll("ann", face(0, 0, 1))
    assert gallery.delete("ann", second) == 1
    assert gallery.identify(face(0, 0, 1), 0.01).matches == []
    assert gallery.verify("ann", ANN, 0.001).match
    assert gallery.delete("ann") == 1
    assert gallery.identify(ANN, 0.001).matches == []
    assert [record.subject for record in gallery.export()] == ["bob"]
    assert [record.subject for record in Gallery(store).export()] == ["bob"]
    assert (len(gallery), gallery.people) == (1, 1)


def test_there_is_room_for_so_many_and_no_more(store: Store) -> None:
    gallery = Gallery(store, GallerySettings(max_records=MAX_TEMPLATES + 1))
    for _ in range(MAX_TEMPLATES):
        gallery.enroll("ann", ANN)
    with pytest.raises(Refused, match=f"a person may have {MAX_TEMPLATES} templates"):
        gallery.enroll("ann", ANN)
    gallery.enroll("bob", BOB)
    with pytest.raises(Refused, match="the gallery is full"):
        gallery.enroll("cat", BOB)
    with pytest.raises(InvalidInput, match="1 to 100 people"):
        gallery.identify(ANN, 0.001, limit=0)


def test_a_re_enrolment_that_is_on_its_way_leaves_the_gallery_as_it_was(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For whoever looks from another thread, too."""
    seen, add = [], Index.add

    def watched(index: Index, *record: Any) -> None:
        add(index, *record)
        seen.append((gallery.space, len(gallery)))

    monkeypatch.setattr(Index, "add", watched)
    gallery.re_enroll(embedding("face/b"), dict.fromkeys(gallery.others(()), ANN.vector))
    assert seen == [("face/a", 2)] * 2
    assert gallery.enrolled == ("face/b", 2)


@pytest.mark.parametrize("is_first", [True, False])
def test_a_face_that_memory_has_no_room_for_is_not_enrolled(
    store: Store, monkeypatch: pytest.MonkeyPatch, *, is_first: bool
) -> None:
    gallery = Gallery(store)
    if not is_first:
        gallery.enroll("ann", ANN)
    before = gallery.enrolled

    def full(index: Index) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Index, "make_room", full)
        with pytest.raises(MemoryError):
            gallery.enroll("bob", BOB)
    assert gallery.enrolled == before
    assert len(list(store.records())) == before[1]
    gallery.enroll("bob", BOB)
    assert gallery.verify("bob", BOB, 0.001).match


def test_re_enrolment_moves_everybody_to_another_space(gallery: Gallery, store: Store) -> None:
    other = embedding("face/b")
    seen = {b"ann's face": face(0, 0, 1).vector, b"bob's face": face(0, 0, 0, 1).vector}
    vectors = {name: seen[gallery.kept_face(name)] for name in gallery.others(())}
    assert gallery.re_enroll(other, {**vectors, "0" * 32: ANN.vector}) == 2
    for one in (gallery, Gallery(store)):
        assert one.space == "face/b"
        assert one.verify("ann", face(0, 0, 1, of=other), 0.001).match
        assert [match.subject for match in one.identify(face(0, 0, 0, 1, of=other), 0.001).matches] == ["bob"]
        with pytest.raises(Refused):
            one.verify("ann", ANN, 0.001)
    assert {gallery.kept_face(name) for name in vectors} == seen.keys(), "the faces are still there"


def test_a_face_is_kept_only_where_that_is_allowed(gallery: Gallery, store: Store) -> None:
    record = Gallery(store).enroll("cat", face(0, 0, 1), b"not to be kept")
    assert store.face(record) == b""


@pytest.mark.parametrize("wrong", ["one is missing", "one is no vector"])
def test_a_re_enrolment_that_fails_leaves_everybody_where_he_was(gallery: Gallery, store: Store, wrong: str) -> None:
    vectors = dict.fromkeys(gallery.others(()), ANN.vector)
    if wrong == "one is missing":
        gallery.enroll("cat", face(0, 0, 1))
    else:
        vectors[list(vectors)[-1]] = np.zeros(DIMENSIONS, np.float32)
    with pytest.raises((Conflict, InvalidInput)):
        gallery.re_enroll(embedding("face/b"), vectors)
    for one in (gallery, Gallery(store)):
        assert one.space == "face/a"
        assert one.verify("bob", BOB, 0.001).match


@pytest.mark.parametrize(
    ("variant", "refused"),
    [
        (embedding("face/a"), False),
        (embedding("face/b"), True),
        (embedding("face/b", crosses=("face/a",)), False),
        (embedding("face/b", crosses=("face/c",)), True),
        (card_pb2.Embedding(), True),
    ],
    ids=["same", "another", "permitted", "permitted for others", "no space"],
)
def test_a_variant_of_a_space_that_the_gallery_does_not_know_is_held_back(
    variant: card_pb2.Embedding, refused: bool
) -> None:
    if not refused:
        refuse_stranger("face/x", variant, "face/a", 7, 0.001)
        return
    with pytest.raises(Refused, match=r"7 enrolled faces are in the embedding space face/a, and face/x makes vectors"):
        refuse_stranger("face/x", variant, "face/a", 7, 0.001)


def test_a_route_is_held_back_whose_card_has_no_threshold_at_the_gallerys_rate() -> None:
    cousin = embedding("face/b", crosses=("face/a",))
    refuse_stranger("face/1", cousin, "face/a", 7, 0.001)
    with pytest.raises(
        Unmeasured, match=r"7 enrolled faces are compared with what face/1 makes: no decision .* rate of 0.01"
    ):
        refuse_stranger("face/1", cousin, "face/a", 7, 0.01)


class LongLog:
    """Makes a store's log of changes one that cannot be cut, as where the disk fails or is full."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_stuck = True
        self._db = store._db
        monkeypatch.setattr(store, "_db", self)

    def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
        if "wal_checkpoint" in statement and self.is_stuck:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return self._db.execute(statement, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


@pytest.mark.fault(47)
def test_what_is_deleted_is_forgotten_though_the_log_of_changes_cannot_be_cut(
    gallery: Gallery, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LongLog(store, monkeypatch)
    assert gallery.delete("ann") == 1
    with pytest.raises(Refused, match="deleted, but the log of changes") as caught:
        gallery.tidy()
    assert "nothing was changed" not in caught.value.detail
    for one in (gallery, Gallery(store)):
        assert one.identify(ANN, 0.001).matches == []
        assert one.verify("bob", BOB, 0.001).match
    log.is_stuck = False
    gallery.tidy()


@pytest.mark.fault(47)
def test_a_re_enrolment_holds_though_the_log_of_changes_cannot_be_cut(
    gallery: Gallery, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    LongLog(store, monkeypatch)
    other = embedding("face/b")
    assert gallery.re_enroll(other, dict.fromkeys(gallery.others(()), ANN.vector)) == 2
    assert "what the gallery's file held before may be left in it" in caplog.text
    gallery.enroll("cat", face(0, 0, 1, of=other))
    for one in (gallery, Gallery(store)):
        assert (one.space, len(one)) == ("face/b", 3)
        assert one.verify("cat", face(0, 0, 1, of=other), 0.001).match


@pytest.mark.fault(47)
def test_a_new_key_holds_though_the_log_of_changes_cannot_be_cut(
    gallery: Gallery, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    LongLog(store, monkeypatch)
    store.rekey(bytes(32))
    record = gallery.enroll("cat", face(0, 0, 1), b"cat's face")
    assert gallery.kept_face(record) == b"cat's face"
    assert sorted(one.subject for one in gallery.export()) == ["ann", "bob", "cat"]
