"""Revisions of a route on disk: exclusive, immutable, the highest holds."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from lathe.errors import BadVariant, Conflict
from lathe.repository import Repository
from lathe.v1 import control_pb2


def route(revision: int, variant: str = "a", author: str = "") -> control_pb2.Route:
    made = control_pb2.Route(model="spots", revision=revision, author=author)
    made.weights.add(variant=variant, version=1, weight=1)
    return made


def test_no_route(repository: Repository) -> None:
    assert repository.route("spots") is None


def test_highest_revision_holds(repository: Repository) -> None:
    for revision in (1, 2, 10, 9):
        repository.add_route(route(revision))
    held = repository.route("spots")
    assert held == route(10)
    assert repository.variants("spots") == ["a", "b"]  # the folder of routes is none


@pytest.mark.fault(50)
def test_of_two_writers_one_wins_whole(repository: Repository) -> None:
    repository.add_route(route(1, author="first"))
    with pytest.raises(Conflict, match="revision 1 of the route of spots exists already"):
        repository.add_route(route(1, variant="b", author="second"))
    held = repository.route("spots")
    assert held == route(1, author="first")


@pytest.mark.fault(50)
def test_of_many_writers_at_once_one_wins(repository: Repository) -> None:
    def write(number: int) -> bool:
        try:
            repository.add_route(route(1, author=str(number)))
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, range(16)))
    assert won.count(True) == 1
    held = repository.route("spots")
    assert held
    assert held.author == str(won.index(True))
    assert [path.name for path in (repository.root / "spots/routes").iterdir()] == ["1.json"]


@pytest.mark.fault(44)
def test_staged_revision_is_not_seen(repository: Repository) -> None:
    repository.add_route(route(1))
    for name in (".2.json", "2.json.part", "2", "02.json", "x.json"):
        (repository.root / "spots/routes" / name).write_text("{")
    held = repository.route("spots")
    assert held == route(1)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"weights": 3}'])
def test_damaged_revision_is_told_without_its_path(content: bytes, repository: Repository) -> None:
    repository.add_route(route(1))
    (repository.root / "spots/routes/1.json").write_bytes(content)
    with pytest.raises(BadVariant, match=r"^revision 1 of the route of spots cannot be read$"):
        repository.route("spots")


@pytest.mark.parametrize("wrong", [{"revision": 2}, {"model": "faces"}], ids=str)
def test_revision_that_names_another_is_refused(wrong: dict[str, object], repository: Repository) -> None:
    """Its number would be taken again, and the swap lost with the next restart."""
    content = {"model": "spots", "revision": 3, "weights": [{"variant": "a", "version": 1, "weight": 1}]} | wrong
    repository.add_route(route(1))
    (repository.root / "spots/routes/3.json").write_text(json.dumps(content))
    with pytest.raises(BadVariant, match="names another model or revision"):
        repository.route("spots")
