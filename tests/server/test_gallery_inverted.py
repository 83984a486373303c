"""Search by lists: what it finds is what exact search finds, and it misses little."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lathe.errors import LatheError, Refused
from lathe_server.gallery import desk as desks
from lathe_server.gallery.audit import Entry
from lathe_server.gallery.desk import Desk
from lathe_server.gallery.gallery import Gallery, GallerySettings
from lathe_server.gallery.inverted import EXACT_UP_TO, Inverted, index_of
from lathe_server.gallery.probe import Probe
from lathe_server.gallery.record import Record
from lathe_server.gallery.search import Index, Match
from lathe_server.gallery.store import Store
from tests.server.gallery_people import ANN, ANN_LATER, BOB, KEY, SPACE, embedded, publish_people, serving
from tests.server.test_gallery import embedding
from tests.server.test_gallery_search import crowd

faiss = pytest.importorskip("faiss")

Vectors = NDArray[np.float32]
LEAST, MOST = 0.7, 50


def small(dimensions: int, exact_up_to: int = 1000) -> Inverted:
    return Inverted(dimensions, exact_up_to=exact_up_to, lists=32, probed=10)


def pictures(people: Vectors, seed: int) -> Vectors:
    """One of each, at a cosine of about 0.8 to another one of the same."""
    away = np.random.default_rng(seed).standard_normal(people.shape) * 0.5 / np.sqrt(people.shape[1])
    made = people + away
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def filled(index: Inverted, vectors: Vectors, first: int = 0) -> tuple[Inverted, Index]:
    """With these, beside an exact one."""
    exact = Index(index.dimensions)
    for number, vector in enumerate(vectors, first):
        for each in (index, exact):
            each.add(f"t{number}", f"s{number // 2}", vector)
    return index, exact


def assert_part_of(found: list[Match], all_there_is: list[Match]) -> None:
    """By another number of rows NumPy's product may round otherwise."""
    names = [(match.subject, match.template) for match in found]
    same = [match for match in all_there_is if (match.subject, match.template) in names]
    assert names == [(match.subject, match.template) for match in same]
    assert [match.similarity for match in found] == pytest.approx([match.similarity for match in same], abs=1e-6)


def test_up_to_a_number_it_is_exact_search() -> None:
    people = crowd(1000, 32)
    index, exact = filled(small(32), people)
    index.arrange()
    assert index._lists is None
    for probe in pictures(people[:50], 1):
        assert index.search(probe, 0.2, MOST) == exact.search(probe, 0.2, MOST)
    index.add("one more", "zoe", people[0])
    index.arrange()
    assert index._lists is not None
    index.remove("one more")
    for probe in pictures(people[:50], 2):
        assert index.search(probe, 0.2, MOST) == exact.search(probe, 0.2, MOST), "also while there are lists"
    index.arrange()
    assert index._lists is None


def test_beyond_it_finds_what_is_there_and_misses_little() -> None:
    people = crowd(4000, 32)
    index, exact = filled(small(32), pictures(people, 1))
    index.arrange()
    matches = found = fewer = 0
    for probe in pictures(people[:500], 2):
        told, all_there_is = index.search(probe, LEAST, MOST), exact.search(probe, LEAST, MOST)
        assert_part_of(told, all_there_is)
        matches, found = matches + len(all_there_is), found + len(told)
        fewer += len(index.search(probe, 0.2, 4000)) < len(exact.search(probe, 0.2, 4000))
    assert matches > 400
    assert found / matches > 0.97
    assert fewer > 400, "it has looked at a part"
    assert index.nearest(people[0], ["t7", "t8"]) == exact.nearest(people[0], ["t7", "t8"])


def test_the_threshold_is_held_to_the_last_bit() -> None:
    people = crowd(1500, 32)
    index, _ = filled(Inverted(32, exact_up_to=500, lists=32, probed=32), people)
    index.arrange()
    for probe in pictures(people[:200], 1):
        (best,) = index.search(probe, 0.2, 1)
        similarity = np.float32(index.nearest(probe, [best.template]).similarity)
        assert [match.template for match in index.search(probe, float(similarity), 5)] == [best.template]
        assert index.search(probe, float(np.nextafter(similarity, np.float32(1))), 5) == []


@pytest.mark.parametrize("seed", range(3))
def test_what_comes_and_goes_is_in_the_lists_and_out_of_them(seed: int) -> None:
    """All lists are looked at, so that none may be missing."""
    dice, vectors = random.Random(seed), crowd(4000, 16, seed)
    index, exact = filled(Inverted(16, exact_up_to=500, lists=32, probed=32), vectors[:1500])
    index.arrange()
    known = [f"t{number}" for number in range(1500)]
    for number, vector in enumerate(vectors[1500:2500], 1500):
        for each in (index, exact):
            each.add(f"t{number}", f"s{number // 2}", vector)
        known.append(f"t{number}")
        for _ in range(dice.randrange(3)):
            gone = known.pop(dice.randrange(len(known)))
            for each in (index, exact):
                each.remove(gone)
    assert index._lists.ntotal == len(index) == len(known) > 1000
    for probe in crowd(50, 16, seed + 100):
        for least in (-1.0, 0.3, 0.6):
            told, all_there_is = index.search(probe, least, 5), exact.search(probe, least, 5)
            assert len(told) == len(all_there_is)
            assert_part_of(told, all_there_is)
    for name in known:
        index.remove(name)
    assert index.search(vectors[0], -1.0, 5) == []


def codes(index: Inverted, number: int, count: int) -> Vectors:
    """The memory of a list's first templates; the list itself may be shorter."""
    pointer = index._lists.invlists.get_codes(number)
    return np.asarray(faiss.rev_swig_ptr(pointer, count * index._lists.code_size)).view(np.float32)


def test_what_is_removed_is_overwritten_in_the_lists() -> None:
    index, _ = filled(Inverted(16, exact_up_to=4, lists=1, probed=1), crowd(1000, 16))
    index.arrange()
    memory = codes(index, 0, 1000).reshape(1000, 16)
    for place, number in enumerate((999, 0, 500, 997), 1):
        index.remove(f"t{number}")
        assert not memory[-place].any()
        assert memory[:-place].any(axis=1).all()
        assert not (memory == crowd(1000, 16)[number]).all(axis=1).any()
    index.clear()
    assert not index._vectors.any()


def test_lists_that_are_let_go_are_overwritten_first() -> None:
    index, _ = filled(small(16, 100), crowd(200, 16))
    index.arrange()
    lists = index._lists
    index.clear()
    sizes = [lists.invlists.list_size(number) for number in range(32)]
    assert sum(sizes) == 200
    index._lists = lists
    assert not any(codes(index, number, size).any() for number, size in enumerate(sizes) if size)


def test_lists_are_made_anew_when_there_are_twice_as_many() -> None:
    vectors = crowd(4000, 16)
    index, _ = filled(small(16), vectors[:1500])
    index.arrange()
    first = index._lists
    filled(index, vectors[1500:2999], 1500)
    index.arrange()
    assert index._lists is first
    filled(index, vectors[2999:3000], 2999)
    index.arrange()
    assert index._lists is not first
    assert index._lists.ntotal == 3000


def test_the_same_templates_make_the_same_lists() -> None:
    made = []
    for _ in range(2):
        index, _exact = filled(small(16), crowd(1500, 16))
        index.arrange()
        made.append([index._lists.invlists.list_size(number) for number in range(32)])
    assert made[0] == made[1]


def no_memory(*how: object) -> None:
    raise MemoryError


def no_luck(*how: object) -> None:
    raise RuntimeError("faiss says no")


BROKEN: dict[str, tuple[str, Callable[[Index, Vectors], object]]] = {
    "adding": ("add_with_ids", lambda index, vectors: index.add("new", "zoe", vectors[-1])),
    "removing": ("remove_ids", lambda index, vectors: index.remove("t5")),
    "searching": ("range_search", lambda index, vectors: index.search(vectors[0], LEAST, MOST)),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("trouble", [no_memory, no_luck])
def test_where_faiss_fails_the_search_is_exact_until_the_next_tending(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, trouble: Callable[..., None]
) -> None:
    vectors = crowd(1500, 16)
    index, exact = filled(small(16), vectors)
    index.arrange()
    method, call = BROKEN[name]
    with monkeypatch.context() as patch:
        patch.setattr(faiss.IndexIVFFlat, method, trouble)
        call(index, vectors)
    call(exact, vectors)
    assert index._lists is None
    assert "is searched without lists" in caplog.text
    assert index.search(vectors[-1], 0.3, MOST) == exact.search(vectors[-1], 0.3, MOST)
    with monkeypatch.context() as patch:
        patch.setattr(faiss.IndexIVFFlat, "train", trouble)
        index.arrange()
    assert index._lists is None
    index.arrange()
    assert index._lists.ntotal == len(index)


def test_faiss_uses_the_thread_that_calls_it_and_no_other() -> None:
    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    seen: list[int] = []

    def one_gallery() -> None:
        index, _ = filled(small(16), crowd(3000, 16))
        before = threads()
        index.arrange()
        index.search(crowd(1, 16)[0], 0.5, MOST)
        seen.append(threads() - before)

    thread = threading.Thread(target=one_gallery)
    thread.start()
    thread.join()
    assert seen == [0]


def has_lists(gallery: Gallery) -> bool:
    assert gallery._memory is not None
    assert isinstance(gallery._memory.index, Inverted)
    return gallery._memory.index._lists is not None


def test_a_gallery_has_the_index_of_its_settings_at_every_turn(tmp_path: Path) -> None:
    store = Store(tmp_path / "people", KEY)
    settings = GallerySettings(keep_faces=True, index=lambda dimensions: small(dimensions, 10))
    gallery = Gallery(store, settings)
    gallery.arrange()  # of nobody
    vectors = crowd(40, 8)
    for number, vector in enumerate(vectors):
        gallery.enroll(f"s{number}", Probe(vector, embedding()), b"face")

    assert not has_lists(gallery)
    gallery.arrange()
    assert has_lists(gallery)
    anew = embedding("face/b")
    moved = dict(zip(gallery.others(()), crowd(40, 8, 1), strict=True))
    gallery.re_enroll(anew, moved)
    assert not has_lists(gallery)
    again = Gallery(store, settings)
    again.arrange()
    assert has_lists(again)
    for vector in moved.values():
        told = again.identify(Probe(vector, anew), 0.001)
        assert told.matches[0].similarity == pytest.approx(1.0)
    again.close()


def test_a_gallery_that_grows_has_lists_after_the_next_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "EXPIRY_SECONDS", 0.01)

    async def grow() -> None:
        desk = Desk(tmp_path / "people", KEY, GallerySettings(index=lambda dimensions: small(dimensions, 40)))
        await desk.open()
        for number, vector in enumerate(crowd(41, 8)):
            probe = Probe(vector, embedding())
            await desk.do(Entry("enroll"), lambda gallery, n=number, p=probe: gallery.enroll(f"s{n}", p))
        assert not await desk.ask(has_lists)
        tending = asyncio.create_task(desk.tend())
        while not await desk.ask(has_lists):
            pass  # its thread is asked
        tending.cancel()
        await desk.close()

    asyncio.run(asyncio.wait_for(grow(), 20))


def test_without_faiss_a_gallery_that_asks_for_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert index_of("faiss") is Inverted
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert index_of("exact") is Index
    with pytest.raises(Refused, match=r"needs faiss-cpu: install lathe\[faiss\]"):
        index_of("faiss")


def test_a_server_searches_by_lists_from_its_start(tmp_path: Path) -> None:
    root, ann = publish_people(tmp_path), embedded(ANN).vectors[0]
    store = Store(tmp_path / "people", KEY)
    strangers = crowd(EXACT_UP_TO + 5000, len(ann), 3)
    strangers = strangers[strangers @ ann < 0.7][:EXACT_UP_TO]
    with store._change():  # `add` would wait for the disk each time
        for number, vector in enumerate([*strangers, ann]):
            record = Record(f"{number:032x}", f"s{number}", SPACE, 1_700_000_000, vector)
            row = (record.id, record.space, record.enrolled_at, store._template(record))
            store._db.execute("INSERT INTO records VALUES (?, ?, ?, ?, NULL)", row)
    store.close()
    flags = ("--gallery-search", "faiss", "--gallery-max-records", "200000")
    with serving(root, *flags) as running, running.client() as client:
        assert [one.subject for one in client.gallery.identify(ANN_LATER).candidates] == [f"s{len(strangers)}"]
        client.gallery.enroll("bob", BOB)
        assert client.gallery.identify(BOB, limit=5).candidates[0].subject == "bob"
        client.gallery.delete("bob")
        assert "bob" not in [one.subject for one in client.gallery.identify(BOB, limit=100).candidates]
        told = running.log.read_text()
        assert f"the {len(strangers) + 1} templates of the gallery are searched by lists" in told
        assert "faiss.loader" not in told


def test_a_server_says_which_searches_there_are(tmp_path: Path) -> None:
    with pytest.raises(LatheError), serving(publish_people(tmp_path), "--gallery-search", "fais"):
        pass
    assert "gallery_search must be one of exact, faiss" in (tmp_path / "log").read_text()
