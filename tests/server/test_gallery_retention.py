"""What is deleted because it is older than it may become; and when, where the clock may be wrong."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lathe_server.gallery import desk as desks
from lathe_server.gallery.desk import Desk
from lathe_server.gallery.gallery import Gallery, GallerySettings
from lathe_server.gallery.probe import Probe
from lathe_server.gallery.retention import DAY_SECONDS
from lathe_server.gallery.store import Store
from tests.models import embedding_card
from tests.server import gallery_people as people
from tests.server.faces import NETWORK
from tests.server.gallery_people import KEY, embedded, publish_people, serving
from tests.server.test_gallery import ANN, BOB


class Clock:
    def __init__(self) -> None:
        self.time = 1_700_000_000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "people", KEY)
    yield opened
    opened.close()


def test_records_go_when_they_are_older_than_they_may_become(store: Store) -> None:
    clock = Clock()
    gallery = Gallery(store, GallerySettings(retention_days=30), clock)
    gallery.enroll("ann", ANN)
    clock.time += 20 * DAY_SECONDS
    gallery.enroll("ann", ANN)
    gallery.enroll("bob", BOB)
    assert gallery.expire() == []
    clock.time += 11 * DAY_SECONDS
    assert gallery.expire() == ["ann"]
    assert (len(gallery), gallery.people) == (2, 2)
    clock.time += 19 * DAY_SECONDS
    gallery.enroll("cat", ANN)
    gallery.enroll("dan", ANN)
    clock.time += 1 * DAY_SECONDS
    assert sorted(Gallery(store, GallerySettings(retention_days=30), clock).expire()) == ["ann", "bob"]
    assert sorted(record.subject for record in store.records()) == ["cat", "dan"]
    clock.time += 1000 * DAY_SECONDS
    assert Gallery(store).expire() == []


class Aging:
    """Five people, enrolled at once, who may stay for 30 days; opened anew for each look."""

    def __init__(self, store: Store) -> None:
        self.clock = Clock()
        self._store = store
        self.enroll(5)

    def opened(self) -> Gallery:
        return Gallery(self._store, GallerySettings(retention_days=30), self.clock)

    def enroll(self, people: int) -> None:
        """So many more."""
        gallery = self.opened()
        for number in range(people):
            gallery.enroll(f"person {len(gallery)}.{number}", ANN)

    def look(self, *, days_later: float) -> int:
        """How many go."""
        self.clock.time += days_later * DAY_SECONDS
        return len(self.opened().expire())


@pytest.mark.fault(80)
def test_where_most_records_are_due_at_once_they_go_a_day_later(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """However often the server is started in between."""
    aging = Aging(store)
    assert aging.look(days_later=29) == 0
    assert aging.look(days_later=1.01) == 0
    assert aging.look(days_later=0.75) == 0
    assert [record.getMessage().split(" are ")[0] for record in caplog.records] == ["5 of the gallery's 5 records"] * 2
    assert ["in 24 hours" in caplog.text, "in 6 hours" in caplog.text] == [True, True]
    assert aging.look(days_later=0.26) == 5
    assert list(store.records()) == []


@pytest.mark.fault(80)
def test_a_clock_that_is_set_right_within_a_day_costs_nobody(store: Store) -> None:
    """Whoever else is enrolled by the wrong time; and when it is wrong again, a day begins anew."""
    aging = Aging(store)
    assert aging.look(days_later=3650) == 0
    aging.opened().enroll("eve", ANN)
    assert aging.look(days_later=0.5) == 0
    assert aging.look(days_later=-3649.5) == 0
    assert store.doubted_since() is None
    assert aging.look(days_later=3650) == 0
    assert len(aging.opened()) == 6


@pytest.mark.fault(80)
def test_the_day_is_not_cut_short_by_those_who_are_enrolled_meanwhile(store: Store) -> None:
    aging = Aging(store)
    assert aging.look(days_later=3650) == 0
    aging.enroll(6)
    assert aging.look(days_later=0.1) == 0
    assert aging.look(days_later=1) == 5
    assert aging.look(days_later=0.1) == 0
    assert len(aging.opened()) == 6


@pytest.mark.fault(80)
def test_the_next_wrong_clock_has_a_day_of_its_own(store: Store) -> None:
    """Also where nobody has looked since the last day ended in a deletion."""
    aging = Aging(store)
    assert aging.look(days_later=20) == 0
    aging.enroll(4)
    assert aging.look(days_later=11) == 0
    assert aging.look(days_later=1.1) == 5
    assert aging.look(days_later=3650) == 0
    assert len(aging.opened()) == 4


@pytest.mark.fault(80)
def test_a_doubt_of_a_time_that_is_yet_to_come_begins_anew(store: Store) -> None:
    aging = Aging(store)
    assert aging.look(days_later=3650) == 0
    assert aging.look(days_later=-1000) == 0
    assert aging.look(days_later=1) == 5


@pytest.mark.fault(80)
def test_who_was_enrolled_by_a_clock_that_was_ahead_is_told_of(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    aging = Aging(store)
    assert aging.look(days_later=-0.5) == 0
    assert caplog.text == ""
    assert aging.look(days_later=-1) == 0
    assert "5 records of the gallery were enrolled at a time that is yet to come" in caplog.text
    caplog.clear()
    assert Gallery(store, GallerySettings(), aging.clock).expire() == []
    assert caplog.text == "", "without retention nobody stays too long"


def test_old_records_go_when_a_server_starts(tmp_path: Path) -> None:
    root = publish_people(tmp_path)
    made_by = embedding_card("face-embed", "a", NETWORK).embedding
    store = Store(tmp_path / "people", KEY)
    for subject, picture, age_days in (("ann", people.ANN, 2), ("bob", people.BOB, 0), ("cat", people.CAT, 0)):
        face = Probe(embedded(picture).vectors[0], made_by)
        Gallery(store, now=lambda age_days=age_days: time.time() - age_days * DAY_SECONDS).enroll(subject, face)
    pseudonym = store.pseudonym("ann")
    store.close()
    with serving(root, "--gallery-retention-days", "1") as running, running.client() as client:
        assert {one.subject for one in client.gallery.export()} == {"bob", "cat"}
        running.stop()
    with sqlite3.connect(tmp_path / "people") as raw:
        assert raw.execute("SELECT count(*) FROM records").fetchone() == (2,)
    raw.close()
    audit = [json.loads(line) for line in (tmp_path / "people.audit.jsonl").read_text().splitlines()]
    assert [(line["what"], line.get("subject")) for line in audit[:2]] == [("open", None), ("expire", pseudonym)]


def test_one_look_that_fails_is_not_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it fails by."""
    monkeypatch.setattr(desks, "EXPIRY_SECONDS", 0.01)
    looks = 0

    def expire(gallery: Gallery) -> list[str]:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise MemoryError
        return []

    async def fail_once() -> None:
        desk = Desk(tmp_path / "people", KEY, GallerySettings())
        await desk.open()
        monkeypatch.setattr(Gallery, "expire", expire)
        tending = asyncio.create_task(desk.tend())
        while looks < 3:
            await desk.ask(len)
        tending.cancel()
        await desk.close()

    asyncio.run(asyncio.wait_for(fail_once(), 20))
    assert "the next look comes" in caplog.text
