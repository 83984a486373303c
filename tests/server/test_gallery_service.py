"""The gallery over a real port: by picture and by embedding, before and after a restart, and who may do what."""

from __future__ import annotations

import asyncio
import json
import math
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import grpc
import numpy as np
import pytest

from lathe import Connection
from lathe.cli import main
from lathe.client import AsyncClient, Client, ServerError
from lathe.embeddings import Embeddings
from lathe.errors import InvalidInput, LatheError
from lathe.repository import Repository
from lathe.v1 import gallery_pb2, gallery_pb2_grpc
from lathe_server.access.tokens import digest
from lathe_server.gallery.kept_face import portrait
from lathe_server.gallery.store import Store
from lathe_server.vision import EncodedPicture, Picture
from lathe_server.vision.decode import decode
from lathe_server.vision.picture import read_header
from tests.calls import channel, exposition, refusal, until
from tests.conftest import RunningServer, start_server
from tests.models import embedding_card, face_vectors
from tests.pictures import jpeg
from tests.server.faces import DETECTOR, EMBEDDER, NETWORK, OTHER, publish_faces
from tests.server.test_live_server import state

SPACE, OTHER_SPACE = (embedding_card("face-embed", "", network).embedding.space for network in (NETWORK, OTHER))
KEY = bytes(range(32))


def person(number: int, moment: int = 0, *, also: tuple[int, int] | None = None) -> bytes:
    """640 × 480, a face of random colours around a white spot, with a little noise of its moment.

    Args:
        also: left and top of another face's spot.
    """
    tiles = np.random.default_rng(number).choice([0, 110], (6, 8, 3))
    pixels = np.kron(tiles, np.ones((80, 80, 1), np.int64))
    pixels += np.random.default_rng([number, moment]).integers(0, 12, pixels.shape)
    for left, top in filter(None, ((320, 240), also)):
        pixels[top : top + 16, left : left + 16] = 255
    return jpeg(pixels.astype(np.uint8))


ANN, BOB, CAT = (person(number) for number in (0, 4, 6))
ANN_LATER, BOB_LATER, CAT_LATER = (person(number, 1) for number in (0, 4, 6))
"""Their similarities are at most 0.62, and 0.99 of the same person; the cards' thresholds are 0.8 and 0.9."""
NOBODY = jpeg(np.zeros((480, 640, 3), np.uint8))


def embedded(picture: bytes) -> Embeddings:
    """What the variant `a` makes of the face, in this process."""
    encoded: Picture = EncodedPicture(picture)
    header = read_header(encoded)
    landmarks = DETECTOR.detect(encoded).detections.landmarks[:1]
    vectors = EMBEDDER.embed(decode(encoded, header, header.upright_wh), landmarks)
    return Embeddings(vectors, SPACE, np.zeros(1, np.int64))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of a repository with a pipeline, beside a gallery's key."""
    publish_faces(tmp_path / "models")
    (tmp_path / "key").write_bytes(KEY)
    (tmp_path / "key").chmod(0o600)
    return tmp_path / "models"


def serving(root: Path, *flags: str) -> AbstractContextManager[RunningServer]:
    folder = root.parent
    own = ("--gallery", str(folder / "people"), "--gallery-key", str(folder / "key"), *flags)
    return start_server(root, folder / "log", *own)


@pytest.fixture
def server(root: Path) -> Iterator[RunningServer]:
    with serving(root, "--gallery-keep-faces", "on") as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    """Ann and Bob are enrolled."""
    with server.client() as opened:
        opened.gallery.enroll("ann", ANN)
        opened.gallery.enroll("bob", BOB)
        yield opened


def test_a_face_is_verified_and_identified_by_picture_and_by_embedding(client: Client) -> None:
    for ann, bob in ((ANN_LATER, BOB_LATER), (embedded(ANN_LATER), embedded(BOB_LATER))):
        yes, no = client.gallery.verify("ann", ann), client.gallery.verify("ann", bob)
        assert (yes.match, no.match, no.similarity) == (True, False, 0.0)
        assert (yes.similarity > 0.95) is isinstance(ann, bytes), "whoever makes embeddings could find the template"
        assert (yes.threshold.fmr, yes.threshold.fnmr, yes.comparisons) == (0.001, 0.1, 1)
        assert client.gallery.verify("ann", ann, fmr=0.01).threshold.min_similarity == 0.8
        found = client.gallery.identify(bob, limit=5)
        assert [candidate.subject for candidate in found.candidates] == ["bob"]
        assert (found.candidates[0].similarity > 0.95) is isinstance(bob, bytes)
        assert (found.comparisons, found.expected_false_matches) == (2, 0.002)
    assert list(client.gallery.identify(CAT, limit=5).candidates) == []


def test_an_enrolment_tells_what_it_made_and_a_description_what_there_is(client: Client) -> None:
    made = client.gallery.enroll("ann", embedded(ANN_LATER))
    assert (made.space, made.templates) == (SPACE, 2)
    told = client.gallery.describe()
    assert (told.model, told.space, told.people, told.records) == ("face-id", SPACE, 2, 3)
    assert (told.keeps_faces, told.fmr, told.retention_days, told.max_records) == (True, 0.001, 0.0, 100_000)
    exported = list(client.gallery.export("ann", vectors=True))
    assert [one.record for one in exported][1:] == [made.record]
    np.testing.assert_allclose(exported[1].vector, embedded(ANN_LATER).vectors[0], atol=1e-6)
    assert {one.subject: len(one.vector) for one in client.gallery.export()} == {"ann": 0, "bob": 0}


def test_what_is_deleted_is_known_no_more(client: Client) -> None:
    second = client.gallery.enroll("ann", ANN_LATER).record
    assert client.gallery.delete("ann", second) == 1
    assert client.gallery.verify("ann", ANN_LATER).match
    assert client.gallery.delete("ann") == 1
    assert list(client.gallery.identify(ANN).candidates) == []
    with pytest.raises(ServerError, match="no such person is enrolled") as caught:
        client.gallery.verify("ann", ANN)
    assert caught.value.code is grpc.StatusCode.NOT_FOUND


SEVERAL = person(0, also=(480, 400))
REFUSED: dict[str, tuple[Callable[[Client], object], str, str]] = {
    "a picture of nobody": (lambda c: c.gallery.enroll("cat", NOBODY), "INVALID_ARGUMENT", "shows no face"),
    "a picture of two": (lambda c: c.gallery.enroll("cat", SEVERAL), "INVALID_ARGUMENT", "the picture shows 2 faces"),
    "two at the gate": (lambda c: c.gallery.identify(SEVERAL), "INVALID_ARGUMENT", "the picture shows 2 faces"),
    "no picture": (lambda c: c.gallery.enroll("cat", b"?"), "INVALID_ARGUMENT", "JPEG"),
    "an empty picture": (lambda c: c.gallery.verify("ann", b""), "INVALID_ARGUMENT", "picture"),
    "a name of two lines": (lambda c: c.gallery.enroll("a\nb", ANN), "INVALID_ARGUMENT", "printable"),
    "no name": (lambda c: c.gallery.verify("", ANN), "INVALID_ARGUMENT", "printable"),
    "a long name": (lambda c: c.gallery.delete("x" * 1_000_000), "INVALID_ARGUMENT", "printable"),
    "a record that is no name": (lambda c: c.gallery.delete("ann", "x"), "INVALID_ARGUMENT", "32 hex digits"),
    "another record": (lambda c: c.gallery.delete("ann", "0" * 32), "NOT_FOUND", "no such record"),
    "a stranger's name": (lambda c: list(c.gallery.export("cat")), "NOT_FOUND", "no such person"),
    "a rate that was not measured": (
        lambda c: c.gallery.verify("ann", ANN, fmr=1e-6),
        "FAILED_PRECONDITION",
        "at a false match rate of 1e-06; the card has those at 0.01, 0.001",
    ),
    "a negative rate": (lambda c: c.gallery.identify(ANN, fmr=-1.0), "INVALID_ARGUMENT", "above 0 and below 1"),
    "a rate of all": (lambda c: c.gallery.identify(ANN, fmr=1.0), "INVALID_ARGUMENT", "above 0 and below 1"),
    "a rate that is no number": (lambda c: c.gallery.verify("ann", ANN, fmr=math.nan), "INVALID_ARGUMENT", "above 0"),
    "too many people": (lambda c: c.gallery.identify(ANN, limit=101), "INVALID_ARGUMENT", "1 to 100 people"),
    "an unknown space": (
        lambda c: c.gallery.verify("ann", Embeddings(embedded(ANN).vectors, "face-embed/0", np.zeros(1, np.int64))),
        "FAILED_PRECONDITION",
        "no variant of face-embed that is in memory",
    ),
    "the space of a variant that is not in memory": (
        lambda c: c.gallery.verify("ann", Embeddings(embedded(ANN).vectors, OTHER_SPACE, np.zeros(1, np.int64))),
        "FAILED_PRECONDITION",
        "no variant of face-embed that is in memory",
    ),
    "a vector that is none": (
        lambda c: c.gallery.identify(Embeddings(np.full((1, 8), np.nan, np.float32), SPACE, np.zeros(1, np.int64))),
        "INVALID_ARGUMENT",
        "length 1",
    ),
    "a variant that is not there": (lambda c: c.gallery.re_enroll("z"), "NOT_FOUND", "has no variant z"),
    "a variant that is not in memory": (lambda c: c.gallery.re_enroll("b"), "FAILED_PRECONDITION", "not loaded"),
    "a variant's name that is none": (lambda c: c.gallery.re_enroll("a/x"), "INVALID_ARGUMENT", "VARIANT/VERSION"),
}


@pytest.mark.fault(1, 8, 9)
def test_what_makes_no_sense_is_refused_and_changes_nothing(server: RunningServer, client: Client) -> None:
    for name, (call, code, words) in REFUSED.items():
        with pytest.raises(ServerError) as caught:
            call(client)
        assert (name, caught.value.code.name) == (name, code)
        assert words in caught.value.message, name
    assert client.gallery.describe().records == 2
    assert client.gallery.verify("ann", SEVERAL, largest=True).match
    assert "internal error" not in server.log.read_text()
    with pytest.raises(InvalidInput, match="a face has one embedding, and these are 2"):
        client.gallery.identify(Embeddings(np.ones((2, 8), np.float32), SPACE, np.zeros(2, np.int64)))


@pytest.mark.fault(1, 5)
def test_messages_that_say_too_little_or_too_much_are_invalid(server: RunningServer) -> None:
    long = gallery_pb2.Face(embedding=gallery_pb2.FaceVector(values=np.ones(5_000_000, np.float32), space=SPACE))
    with channel(server.grpc) as opened:
        stub = gallery_pb2_grpc.GalleryServiceStub(opened)
        for request in (
            gallery_pb2.VerifyRequest(),
            gallery_pb2.VerifyRequest(subject="ann"),
            gallery_pb2.VerifyRequest(subject="ann", face=gallery_pb2.Face()),
            gallery_pb2.VerifyRequest(subject="ann", face=gallery_pb2.Face(embedding=gallery_pb2.FaceVector())),
            gallery_pb2.VerifyRequest(subject="ann", face=long),
        ):
            assert refusal(lambda r=request: stub.Verify(r)).code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_restart_knows_whom_it_knew_whatever_way_it_ended(root: Path) -> None:
    with serving(root) as first, first.client() as client:
        client.gallery.enroll("ann", ANN)
        first.process.kill()
        first.process.wait()
    with serving(root) as second, second.client() as client:
        assert client.gallery.verify("ann", ANN_LATER).match
        client.gallery.enroll("bob", BOB)
        assert second.stop() == 0
        assert not (root.parent / "people-wal").exists(), "an ordered end leaves one file"
    with serving(root) as third, third.client() as client:
        assert [one.subject for one in client.gallery.identify(BOB_LATER).candidates] == ["bob"]
        assert client.gallery.describe().records == 2


def test_a_server_that_is_killed_while_it_enrols_loses_nobody_who_was_acknowledged(root: Path) -> None:
    dice = np.random.default_rng(5)
    acknowledged: dict[str, np.ndarray] = {}
    for number in range(3):
        with serving(root) as running, running.client() as client:
            found = {one.subject: np.array(one.vector) for one in client.gallery.export(vectors=True)}
            assert found.keys() >= acknowledged.keys(), f"lost before round {number}"
            for subject, vector in acknowledged.items():
                np.testing.assert_allclose(found[subject], vector, atol=1e-6)
            killer = threading.Timer(float(dice.uniform(0.05, 0.4)), running.process.kill)
            killer.start()
            with suppress(LatheError):
                for place in range(10_000):
                    vector = dice.standard_normal((1, 8)).astype(np.float32)
                    vector /= np.linalg.norm(vector)
                    client.gallery.enroll(f"{number}-{place}", Embeddings(vector, SPACE, np.zeros(1, np.int64)))
                    acknowledged[f"{number}-{place}"] = vector[0]
            killer.join()
    assert len(acknowledged) > 10


def test_many_callers_at_once_are_answered_as_one_after_the_other(server: RunningServer) -> None:
    """Each enrols, finds and deletes people of its own, while the others do."""
    vectors = np.linalg.qr(np.random.default_rng(3).standard_normal((8, 8)))[0].astype(np.float32)
    faces = [Embeddings(vector[None], SPACE, np.zeros(1, np.int64)) for vector in vectors]

    async def caller(client: AsyncClient, own: int) -> None:
        name, face = f"person {own}", faces[own]
        for _ in range(15):
            record = (await client.gallery.enroll(name, face)).record
            found = await client.gallery.identify(face, limit=5)
            assert [(one.subject, one.record) for one in found.candidates] == [(name, record)]
            assert not (await client.gallery.verify(name, faces[own - 1])).match
            assert await client.gallery.delete(name) == 1
        await client.gallery.enroll(name, face)

    async def all_at_once() -> None:
        async with server.async_client() as client:
            await asyncio.gather(*(caller(client, own) for own in range(8)))
            assert {one.subject async for one in client.gallery.export()} == {f"person {own}" for own in range(8)}

    asyncio.run(all_at_once())


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "key").write_bytes(bytes(32)), "the key does not open this gallery"),
        (lambda folder: (folder / "key").unlink(), "the file of the gallery's key cannot be read"),
        (lambda folder: (folder / "key").write_text("secret"), "holds no key"),
        (lambda folder: (folder / "people").write_bytes(b"x" * 9999), "is damaged, or no gallery"),
    ],
    ids=["another key", "no key", "no such key", "a damaged file"],
)
def test_a_gallery_that_does_not_open_stops_the_start_with_a_reason(
    root: Path, spoil: Callable[[Path], object], words: str
) -> None:
    with serving(root) as first, first.client() as client:
        client.gallery.enroll("ann", ANN)
        first.stop()
    spoil(root.parent)
    before = (root.parent / "people").read_bytes()
    with pytest.raises(LatheError), serving(root):
        pass
    log = (root.parent / "log").read_text()
    assert words in log
    assert "Traceback" not in log
    assert "secret" not in log
    assert (root.parent / "people").read_bytes() == before


def test_a_server_without_a_gallery_has_no_such_service(root: Path) -> None:
    with start_server(root, root.parent / "log") as running, running.client() as client:
        with pytest.raises(ServerError) as caught:
            client.gallery.describe()
        assert caught.value.code is grpc.StatusCode.UNIMPLEMENTED


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


def test_a_kept_face_is_the_face_and_little_more(root: Path) -> None:
    with serving(root, "--gallery-keep-faces", "on") as running, running.client() as client:
        record = client.gallery.enroll("ann", ANN).record
    store = Store(root.parent / "people", KEY)
    shown = portrait(store.face(record))
    store.close()
    header = read_header(shown.picture)
    assert header.upright_wh == (320, 320), "twice the face's box"
    assert shown.landmarks is not None
    pixels = decode(shown.picture, header, header.upright_wh)
    similarity = EMBEDDER.embed(pixels, shown.landmarks)[0] @ embedded(ANN).vectors[0]
    assert similarity > 0.999


def status_of(call: Callable[[], object]) -> grpc.StatusCode:
    try:
        call()
    except ServerError as error:
        return error.code
    return grpc.StatusCode.OK


def test_who_may_do_what(root: Path, tmp_path: Path) -> None:
    names = ("infer", "gallery", "control")
    entries = [f'[[tokens]]\nname = "{name}"\nrole = "{name}"\nsha256 = "{digest(name)}"\n' for name in names]
    (tmp_path / "tokens").write_text("".join(entries))
    calls: dict[str, Callable[[Client], object]] = {
        "enroll": lambda c: c.gallery.enroll("ann", ANN),
        "verify": lambda c: c.gallery.verify("ann", ANN),
        "identify": lambda c: c.gallery.identify(ANN),
        "ask loosely": lambda c: c.gallery.identify(ANN, fmr=0.01),
        "describe": lambda c: c.gallery.describe(),
        "export": lambda c: list(c.gallery.export()),
        "re-enroll": lambda c: c.gallery.re_enroll("a"),
        "delete": lambda c: c.gallery.delete("ann", c.gallery.enroll("ann", ANN).record),
        "swap": lambda c: c.set_route("face-embed", {"a": 1}),
    }
    told: dict[str, set[str]] = {}
    with serving(root, "--tokens", str(tmp_path / "tokens"), "--gallery-keep-faces", "on") as running:
        for name in reversed(names):  # who may enrol comes first
            with Client(running.grpc, running.control, Connection(token=name)) as client:
                told[name] = set()
                for what, call in calls.items():
                    code = status_of(lambda call=call, client=client: call(client))
                    told[name] |= {what} if code is grpc.StatusCode.OK else set()
                    assert code in (grpc.StatusCode.OK, grpc.StatusCode.PERMISSION_DENIED), (name, what)
        with Client(running.grpc, running.control, Connection(token="none")) as client, pytest.raises(ServerError):
            client.gallery.describe()
    assert told == {
        "control": set(calls),
        "gallery": set(calls) - {"swap"},
        "infer": {"verify", "identify", "describe"},
    }
    lines = [json.loads(line) for line in (tmp_path / "people.audit.jsonl").read_text().splitlines()]
    assert {line["who"] for line in lines if line["what"] == "enroll"} == {"control", "gallery"}


@pytest.mark.fault(87)
def test_pictures_that_the_gallery_sees_are_on_no_live_page(root: Path) -> None:
    with serving(root, "--live", "plain") as running, running.client() as client:
        told: list[str] = []

        def is_shown() -> bool:
            client.detect("face", BOB)
            told[:] = [camera["model"] for camera in state(running)["cameras"]]
            return "face" in told

        state(running)
        client.gallery.enroll("ann", ANN)
        client.gallery.identify(ANN)
        until(is_shown)
        assert told == ["face"]


@pytest.mark.fault(87)
def test_no_face_name_or_vector_is_told_to_log_metric_or_audit(server: RunningServer, client: Client) -> None:
    client.gallery.enroll("planted-marker-8f3c", CAT)
    numbers = np.array([[0.2718281, 0.3141592, 0.1414213, 0.5772156, 0.1618033, 0.1732050, 0.2236067, 0.0]])
    numbers[0, -1] = np.sqrt(1 - (numbers**2).sum())
    vector = Embeddings(numbers.astype(np.float32), SPACE, np.zeros(1, np.int64))
    client.gallery.enroll("planted-marker-8f3c", vector)
    client.gallery.verify("planted-marker-8f3c", vector)
    client.gallery.identify(vector)
    for call in (
        lambda: client.gallery.verify("planted-marker-8f3c ", vector),
        lambda: client.gallery.enroll("planted-marker-8f3c", Embeddings(vector.vectors * 2, SPACE, vector.detection)),
        lambda: client.gallery.delete("planted-marker-8f3cc"),
    ):
        with pytest.raises(ServerError) as caught:
            call()
        assert "planted" not in caught.value.message
    client.gallery.delete("planted-marker-8f3c")
    folder = server.log.parent
    audit = (folder / "people.audit.jsonl").read_text()
    said = audit + server.log.read_text() + exposition(server)
    assert "planted" not in said
    assert not any(f"{number:.7f}"[1:] in said for number in numbers[0])
    lines = [json.loads(line) for line in audit.splitlines()]
    assert [(line["what"], line["outcome"]) for line in lines] == [
        ("open", "OK"),
        ("enroll", "OK"),
        ("enroll", "OK"),
        ("enroll", "OK"),
        ("enroll", "OK"),
        ("verify", "match"),
        ("identify", "1 candidates"),
        ("enroll", "INVALID_ARGUMENT"),
        ("delete", "NOT_FOUND"),
        ("delete", "2 records"),
    ]
    assert lines[3]["subject"] == lines[5]["subject"] == lines[9]["subject"] != lines[1]["subject"]


def test_the_command_does_what_the_client_does(
    server: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, picture in (("ann.jpg", ANN), ("later.jpg", ANN_LATER), ("cat.jpg", CAT)):
        (tmp_path / name).write_bytes(picture)

    def told(*words: str) -> tuple[int, str]:
        code = main(["gallery", "--server", server.grpc, *words])
        out = capsys.readouterr()
        return code, out.out + out.err

    ann, later, cat = (str(tmp_path / name) for name in ("ann.jpg", "later.jpg", "cat.jpg"))
    code, words = told("enroll", "badge 7", ann, later)
    assert (code, words.count("badge 7 has")) == (0, 2)
    assert told("verify", "badge 7", later)[0] == 0
    assert told("verify", "badge 7", cat) == (
        3,
        "no match\nfrom 0.900 on, the false match rate 0.001 of one comparison; 2 were made\n",
    )
    code, words = told("identify", later, "--limit", "3")
    assert (code, words.count("badge 7, similarity")) == (0, 1)
    assert "a stranger's face matches 0.002 templates on average" in words
    assert told("identify", cat)[0] == 3
    code, words = told("export", "--vectors")
    assert [len(json.loads(line)["vector"]) for line in words.splitlines()] == [8, 8]
    assert told("describe")[1].startswith("1 people with 2 records, of 100000 that there may be\n")
    assert told("delete", "badge 7") == (0, "2 records are deleted\n")
    code, words = told("enroll", "badge 7", str(tmp_path / "none.jpg"))
    assert (code, "cannot be read" in words) == (1, True)


def test_the_command_makes_keys_and_changes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new, people = (str(tmp_path / name) for name in ("old", "new", "people"))
    for key in (old, new):
        assert main(["gallery", "key", key]) == 0
    assert main(["gallery", "key", old]) == 1
    assert main(["gallery", "rekey", people, "--key", old, "--new-key", new]) == 1
    assert not Path(people).exists()
    Store(Path(people), bytes.fromhex(Path(old).read_text())).close()
    assert main(["gallery", "rekey", people, "--key", new, "--new-key", old]) == 1
    assert "the key does not open this gallery" in capsys.readouterr().err
    assert main(["gallery", "rekey", people, "--key", old, "--new-key", new]) == 0
    Store(Path(people), bytes.fromhex(Path(new).read_text())).close()


def test_old_records_go_when_a_server_starts(root: Path) -> None:
    with serving(root) as first, first.client() as client:
        client.gallery.enroll("ann", ANN)
    with serving(root, "--gallery-retention-days", "1e-6") as second, second.client() as client:
        assert client.gallery.describe().records == 0
        second.stop()
    with sqlite3.connect(root.parent / "people") as raw:
        assert raw.execute("SELECT count(*) FROM records").fetchone() == (0,)
    raw.close()
    audit = [json.loads(line) for line in (root.parent / "people.audit.jsonl").read_text().splitlines()]
    assert [line["what"] for line in audit] == ["open", "enroll", "open", "expire"]
    assert audit[1]["subject"] == audit[3]["subject"]
