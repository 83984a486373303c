"""Calls of the gallery that get between each other, one after the other as this test wants it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import pytest

from lathe.errors import BadPicture, DiskFull, LatheError, Overloaded, Refused, Unavailable
from lathe.repository import VariantRef
from lathe.v1 import card_pb2, gallery_pb2
from lathe_server.access.gate import Gate
from lathe_server.gallery.audit import Audit, Entry, audit_file
from lathe_server.gallery.desk import Desk
from lathe_server.gallery.footing import Footing
from lathe_server.gallery.gallery import Gallery, GallerySettings
from lathe_server.gallery.probe import Probe
from lathe_server.gallery.store import Store
from lathe_server.gallery_service import GalleryService
from tests.server.test_gallery import ANN, BOB, KEY, embedding, face

T = TypeVar("T")
ReEnrolling: TypeAlias = Coroutine[Any, Any, gallery_pb2.ReEnrollResponse]
B = embedding("face/b")
SEEN = {b"ann": face(0, 0, 1, of=B), b"bob": face(0, 0, 0, 1, of=B)}


class Here:
    """The context of a call from this machine."""

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"


@dataclass
class Mirror:
    """Eyes that take what was kept of a face for the face.

    Attributes:
        fails: with these first.
    """

    sees: dict[bytes, Probe]
    made_by: card_pb2.Embedding = field(default_factory=lambda: B)
    fails: list[LatheError] = field(default_factory=list)

    async def variant(self, name: str) -> VariantRef:
        return VariantRef("face", name, 1)

    def embedding(self, by: VariantRef) -> card_pb2.Embedding:
        return self.made_by

    async def again(self, kept: bytes, by: VariantRef) -> Probe:
        if self.fails:
            raise self.fails.pop(0)
        return self.sees[kept]

    def meaning(self, space: str) -> card_pb2.Embedding:
        return self.made_by


class NoRoutes:
    def __init__(self) -> None:
        self.turn = asyncio.Lock()

    def route(self, model: str) -> None:
        return None


async def opened(folder: Path) -> tuple[Desk, NoRoutes, Footing]:
    desk = BusyDesk(folder / "people", KEY, GallerySettings())
    await desk.open()
    routes: Any = NoRoutes()
    nothing: Any = None
    return desk, routes, Footing(desk, routes, nothing, nothing, 0.001)


class BusyDesk(Desk):
    """At which somebody is served right before a re-enrolment, or an enrolment."""

    before: Callable[[Gallery], object] | None = None

    async def do(self, entry: Entry, work: Callable[[Gallery], T], *how: Any, **more: Any) -> T:
        if entry.what in ("re-enroll", "enroll") and self.before:
            before, self.before = self.before, None
            await self.ask(before)
        return await super().do(entry, work, *how, **more)


@asynccontextmanager
async def moving(folder: Path, eyes: Mirror) -> AsyncIterator[tuple[BusyDesk, Callable[[], ReEnrolling]]]:
    """A desk where Ann is enrolled, and what begins a re-enrolment."""
    desk = BusyDesk(folder / "people", KEY, GallerySettings(keep_faces=True))
    await desk.open()
    await desk.ask(lambda gallery: gallery.enroll("ann", ANN, b"ann"))
    nothing: Any = None
    here: Any = Here()
    seeing: Any = eyes
    service = GalleryService(desk, seeing, nothing, Gate(None), 0.001, keeps_faces=True)
    try:
        yield desk, lambda: service.ReEnroll(gallery_pb2.ReEnrollRequest(variant="b"), here)
    finally:
        await desk.close()


def re_enrolled(
    folder: Path, before: Callable[[Gallery], object] = len, eyes: Mirror | None = None
) -> tuple[gallery_pb2.ReEnrollResponse, set[str]]:
    """The answer, and the vectors' spaces afterwards."""

    async def whole() -> tuple[gallery_pb2.ReEnrollResponse, set[str]]:
        async with moving(folder, eyes or Mirror(dict(SEEN))) as (desk, begin):
            desk.before = before
            done = await begin()
            return done, {record.space for record in await desk.ask(lambda gallery: list(gallery.export()))}

    return asyncio.run(whole())


def test_whoever_comes_at_the_very_end_of_a_re_enrolment_is_looked_at_too(tmp_path: Path) -> None:
    done, spaces = re_enrolled(tmp_path, lambda gallery: gallery.enroll("bob", BOB, b"bob"))
    assert (done.records, done.space, spaces) == (2, "face/b", {"face/b"})


def test_a_re_enrolment_from_which_everybody_goes_ends(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="nobody is enrolled"):
        re_enrolled(tmp_path, lambda gallery: gallery.delete("ann"))


@pytest.mark.fault(72)
def test_a_re_enrolment_asks_again_where_the_server_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lathe_server.gallery.re_enrolment.PAUSES_SECONDS", (0.0, 0.0))
    done, spaces = re_enrolled(tmp_path, eyes=Mirror(dict(SEEN), fails=[Overloaded("busy"), Unavailable("just gone")]))
    assert (done.records, spaces) == (1, {"face/b"})


@pytest.mark.parametrize("fails", [[BadPicture("no JPEG", detail="more")], [Overloaded("busy")] * 3])
def test_a_re_enrolment_that_fails_on_a_face_names_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: list[LatheError]
) -> None:
    monkeypatch.setattr("lathe_server.gallery.re_enrolment.PAUSES_SECONDS", (0.0, 0.0))
    kind, words = type(fails[0]), fails[0].message
    with pytest.raises(kind, match=rf"the kept face of record [0-9a-f]{{32}}: {words}") as caught:
        re_enrolled(tmp_path, eyes=Mirror(dict(SEEN), fails=list(fails)))
    assert caught.value.detail == fails[0].detail


def test_a_re_enrolment_takes_no_vectors_of_another_space_than_it_was_begun_for(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="face/b/1 has become another network meanwhile"):
        re_enrolled(tmp_path, eyes=Mirror({b"ann": face(0, 0, 1, of=embedding("face/c"))}))


def test_one_re_enrolment_at_a_time(tmp_path: Path) -> None:
    class Slow(Mirror):
        may_end = asyncio.Event()

        async def again(self, kept: bytes, by: VariantRef) -> Probe:
            await self.may_end.wait()
            return await super().again(kept, by)

    async def whole() -> None:
        eyes = Slow(dict(SEEN))
        async with moving(tmp_path, eyes) as (_, begin):
            for is_cancelled in (True, False):
                first = asyncio.create_task(begin())
                await asyncio.sleep(0)
                with pytest.raises(Refused, match="a re-enrolment is going on"):
                    await asyncio.wait_for(begin(), 5)
                if is_cancelled:
                    first.cancel()
                    await asyncio.wait([first])
            eyes.may_end.set()
            assert (await first).records == 1

    asyncio.run(whole())


def test_a_gallery_with_nobody_in_it_is_closed_as_others(tmp_path: Path) -> None:
    async def whole() -> None:
        desk, _, _ = await opened(tmp_path)
        await desk.ask(lambda gallery: gallery.enroll("ann", ANN))
        await desk.ask(lambda gallery: gallery.delete("ann"))
        await desk.close()
        assert not (tmp_path / "people-wal").exists()
        Store(tmp_path / "people", KEY).close()

    asyncio.run(whole())


def test_a_first_face_waits_for_a_route_that_changes(tmp_path: Path) -> None:
    """And none changes while it is enrolled; later ones wait for nobody."""

    async def whole() -> None:
        desk, routes, footing = await opened(tmp_path)
        async with footing.entry(ANN.made_by):
            assert routes.turn.locked()
            await desk.ask(lambda gallery: gallery.enroll("ann", ANN))
        async with routes.turn, footing.entry(ANN.made_by):
            pass
        await desk.ask(lambda gallery: gallery.delete("ann"))
        with pytest.raises(Refused, match="no decision threshold"):
            await footing.entry(card_pb2.Embedding(space="face/c")).__aenter__()
        assert not routes.turn.locked()
        await desk.close()

    asyncio.run(whole())


def test_a_first_face_whose_caller_goes_away_holds_the_routes_until_it_is_written(tmp_path: Path) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def enroll(gallery: Gallery) -> None:
        begun.set()
        assert may_end.wait(10)
        gallery.enroll("ann", ANN)

    async def whole() -> None:
        desk, routes, footing = await opened(tmp_path)

        async def call() -> None:
            async with footing.entry(ANN.made_by):
                await desk.ask(enroll)

        calling = asyncio.create_task(call())
        await asyncio.to_thread(begun.wait, 10)
        for _ in range(2):
            calling.cancel()
            await asyncio.sleep(0.05)
            assert routes.turn.locked()
        assert desk.enrolled == ("", 0)
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert not routes.turn.locked()
        assert desk.enrolled == (ANN.made_by.space, 1)
        await desk.close()

    asyncio.run(whole())


def test_a_full_line_takes_changes_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lathe_server.gallery.desk.MOST_WAITING", 3)
    monkeypatch.setattr("lathe_server.gallery.desk.KEPT_FOR_CHANGES", 1)
    may_end = threading.Event()

    async def whole() -> None:
        desk = Desk(tmp_path / "people", KEY, GallerySettings())
        await desk.open()
        look, change = Entry("verify"), Entry("delete", is_change=True)
        holding = asyncio.create_task(desk.ask(lambda gallery: may_end.wait(10)))
        waiting = [asyncio.create_task(desk.do(look, len)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="more calls than it can answer"):
            await desk.do(look, len)
        waiting.append(asyncio.create_task(desk.do(change, len)))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await desk.do(change, len)
        may_end.set()
        assert await asyncio.gather(holding, *waiting) == [True, 0, 0, 0]
        assert await desk.do(look, len) == 0
        await desk.close()

    asyncio.run(whole())
    lines = audit_file(tmp_path / "people").read_text("utf-8").splitlines()
    assert sum('"verify"' in line for line in lines) == 3


@pytest.mark.parametrize("fits", [True, False])
def test_a_face_that_comes_as_the_last_person_goes_is_looked_at_as_the_first(tmp_path: Path, *, fits: bool) -> None:
    """One whose space nobody can decide in is not let in because somebody was there when it came."""
    made_by = embedding("face/a" if fits else "face/c")
    if not fits:
        del made_by.thresholds[:]
    shown = gallery_pb2.Face(embedding=gallery_pb2.FaceVector(values=BOB.vector.tolist(), space=made_by.space))

    async def whole() -> list[tuple[str, str]]:
        desk, _, footing = await opened(tmp_path)
        assert isinstance(desk, BusyDesk)
        await desk.ask(lambda gallery: gallery.enroll("ann", ANN))
        desk.before = lambda gallery: gallery.delete("ann")
        eyes: Any = Mirror({}, made_by)
        here: Any = Here()
        service = GalleryService(desk, eyes, footing, Gate(None), 0.001, keeps_faces=False)
        try:
            enrolment = service.Enroll(gallery_pb2.EnrollRequest(subject="bob", face=shown), here)
            if fits:
                assert (await enrolment).templates == 1
            else:
                with pytest.raises(Refused, match="no decision threshold"):
                    await enrolment
            return [(record.subject, record.space) for record in await desk.ask(lambda gallery: list(gallery.export()))]
        finally:
            await desk.close()

    assert asyncio.run(whole()) == ([("bob", "face/a")] if fits else [])


def test_what_comes_after_a_change_comes_also_where_its_line_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(audit: Audit, entry: Entry, outcome: str) -> None:
        raise DiskFull("no room for the audit log")

    tidied = []

    async def whole() -> None:
        desk, _, _ = await opened(tmp_path)
        await desk.ask(lambda gallery: gallery.enroll("ann", ANN))
        with monkeypatch.context() as patch:
            patch.setattr(Audit, "write", full)
            with pytest.raises(DiskFull):
                await desk.do(Entry("delete"), lambda gallery: gallery.delete("ann"), after=tidied.append)
            with pytest.raises(DiskFull):
                await desk.do(Entry("delete"), lambda gallery: gallery.delete("ann"), after=tidied.append)
        await desk.close()

    asyncio.run(whole())
    assert len(tidied) == 1, "after the one that deleted her"
