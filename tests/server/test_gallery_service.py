"""The gallery over a real port: by picture and by embedding, before and after a restart, and who may do what."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import numpy as np
import pytest

from lathe import Connection
from lathe.client import AsyncClient, Client, ServerError
from lathe.embeddings import Embeddings
from lathe.errors import InvalidInput, LatheError
from lathe.v1 import gallery_pb2, gallery_pb2_grpc
from lathe_server.access.tokens import digest
from lathe_server.gallery.kept_face import portrait
from lathe_server.gallery.store import Store
from lathe_server.vision.decode import decode
from lathe_server.vision.picture import read_header
from tests.calls import channel, exposition, refusal, until
from tests.conftest import RunningServer, start_server
from tests.server.faces import EMBEDDER
from tests.server.gallery_people import (
    ANN,
    ANN_LATER,
    BOB,
    BOB_LATER,
    CAT,
    KEY,
    NOBODY,
    OTHER_SPACE,
    SPACE,
    embedded,
    person,
    publish_people,
    serving,
)
from tests.server.test_live_server import state


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return publish_people(tmp_path)


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
