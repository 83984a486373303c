"""The repository: publications appear whole, order by number, and never lead out of the root."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lathe.errors import BadVariant, InvalidInput, LatheError, NotFound
from lathe.repository import Repository, VariantRef
from tests.models import card_for

MODEL = b"weights"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Empty."""
    root = tmp_path / "models"
    root.mkdir()
    return Repository(root)


def publish(repository: Repository, variant: str = "a", content: bytes = MODEL) -> VariantRef:
    return repository.publish(card_for("spots", variant), content)


def test_publication_is_read_back(repository: Repository) -> None:
    ref = publish(repository)
    assert str(ref) == "spots/a/1"
    assert (repository.models(), repository.variants("spots"), repository.versions("spots", "a")) == (
        ["spots"],
        ["a"],
        [1],
    )
    card = repository.card(ref)
    assert (card.version, card.size_bytes) == (1, len(MODEL))
    assert repository.model_bytes(ref) == MODEL
    assert sorted(path.name for path in repository.root.iterdir()) == ["spots"]  # nothing is left of the staging


def test_missing_root(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no repository at"):
        Repository(tmp_path / "none")


def test_what_is_not_there_is_told(repository: Repository) -> None:
    publish(repository)
    publish(repository, "b")
    with pytest.raises(NotFound, match="there is no model dots"):
        repository.newest("dots", "a")
    with pytest.raises(NotFound, match="model spots has no variant c; it has a, b"):
        repository.newest("spots", "c")
    with pytest.raises(NotFound, match="spots/a/2 is not published"):
        repository.folder(VariantRef("spots", "a", 2))


@pytest.mark.fault(51)
def test_versions_order_by_number_and_not_by_time(repository: Repository) -> None:
    for _ in range(11):
        ref = publish(repository)
    for number in range(1, 12):  # the higher, the older
        folder = repository.folder(VariantRef("spots", "a", number))
        then = time.time() - number * 86_400
        os.utime(folder, (then, then))
    assert repository.newest("spots", "a") == ref == VariantRef("spots", "a", 11)
    assert repository.versions("spots", "a") == list(range(1, 12))


@pytest.mark.fault(44)
def test_staged_folder_is_not_seen(repository: Repository) -> None:
    """What a publisher that was killed left behind, and what is no version."""
    publish(repository)
    for name in (".staging-0123", ".hidden"):
        (repository.root / name).mkdir()
        (repository.root / "spots/a" / name).mkdir()
    for name in ("01", "0", "-1", "1.5", "٣", "two", "2~"):
        (repository.root / "spots/a" / name).mkdir()
    (repository.root / "Spots").mkdir()
    (repository.root / "file").touch()
    assert repository.models() == ["spots"]
    assert repository.versions("spots", "a") == [1]
    assert publish(repository).version == 2


@pytest.mark.fault(44)
def test_folder_that_is_still_copied_is_not_the_newest(repository: Repository) -> None:
    ref = publish(repository)
    half = repository.root / "spots/a/2"
    half.mkdir()
    (half / "model.onnx").write_bytes(MODEL)
    assert repository.newest("spots", "a") == ref


@pytest.mark.fault(44)
def test_publication_is_never_seen_half_done(repository: Repository) -> None:
    """A reader that looks all the time sees each version with its card and its whole file, or not at all."""
    done = threading.Event()
    seen: set[int] = set()

    def look() -> None:
        while not done.is_set() or len(seen) < 20:
            for version in repository.versions("spots", "a"):
                ref = VariantRef("spots", "a", version)
                assert repository.model_bytes(ref) == MODEL * 1000
                seen.add(version)

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        for _ in range(20):
            publish(repository, content=MODEL * 1000)
        done.set()
        looking.result(timeout=30)
    assert seen == set(range(1, 21))


@pytest.mark.fault(50)
def test_publishers_at_once_get_versions_of_their_own(repository: Repository) -> None:
    with ThreadPoolExecutor(8) as pool:
        refs = list(pool.map(lambda n: publish(repository, content=str(n).encode()), range(24)))
    assert sorted(ref.version for ref in refs) == list(range(1, 25))
    for number, ref in enumerate(refs):
        assert repository.model_bytes(ref) == str(number).encode()


@pytest.mark.fault(47)
def test_failed_publication_leaves_nothing(repository: Repository) -> None:
    publish(repository)
    (repository.root / "spots/b").write_text("a file where the variant's folder would be")
    with pytest.raises(OSError, match="exists"):
        publish(repository, "b")
    assert sorted(path.name for path in repository.root.iterdir()) == ["spots"]
    assert repository.variants("spots") == ["a"]


@pytest.mark.fault(40)
@pytest.mark.parametrize("content", [b"", MODEL[:-1], MODEL[:-1] + b"!", MODEL * 2])
def test_file_that_its_card_does_not_describe_is_refused(content: bytes, repository: Repository) -> None:
    ref = publish(repository)
    (repository.folder(ref) / "model.onnx").write_bytes(content)
    with pytest.raises(BadVariant, match="not the one that its card describes"):
        repository.model_bytes(ref)


def test_missing_model_file(repository: Repository) -> None:
    ref = publish(repository)
    (repository.folder(ref) / "model.onnx").unlink()
    with pytest.raises(BadVariant, match="spots/a/1 has no model file"):
        repository.model_bytes(ref)


@pytest.mark.fault(46)
def test_card_of_another_variant_is_refused(repository: Repository) -> None:
    first, second = publish(repository), publish(repository, "b")
    (repository.folder(first) / "card.json").write_bytes((repository.folder(second) / "card.json").read_bytes())
    with pytest.raises(BadVariant, match="the card of spots/a/1 names another variant"):
        repository.card(first)
    assert [card.variant for card in repository.newest_cards("spots")] == ["b"]


def _link_version(root: Path, outside: Path) -> None:
    (root / "spots/a/2").symlink_to(outside / "spots/a/1")


def _link_variant(root: Path, outside: Path) -> None:
    (root / "spots/a").rename(root / "spots/b")
    (root / "spots/a").symlink_to(outside / "spots/a")


def _link_model_file(root: Path, outside: Path) -> None:
    (root / "spots/a/1/model.onnx").unlink()
    (root / "spots/a/1/model.onnx").symlink_to(outside / "spots/a/1/model.onnx")


def _link_card(root: Path, outside: Path) -> None:
    (root / "spots/a/1/card.json").unlink()
    (root / "spots/a/1/card.json").symlink_to(outside / "spots/a/1/card.json")


@pytest.mark.fault(46)
@pytest.mark.parametrize("link", [_link_version, _link_variant, _link_model_file, _link_card])
def test_link_out_of_the_root_is_refused(
    link: Callable[[Path, Path], None], repository: Repository, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    publish(Repository(tmp_path / "outside"))
    publish(repository)
    link(repository.root, tmp_path / "outside")
    with pytest.raises(BadVariant):
        repository.model_bytes(repository.newest("spots", "a"))


@pytest.mark.fault(46)
@pytest.mark.parametrize("name", ["..", "../outside", "a/b", "A", "a" * 255, "\udcff", "routes"])
def test_names_that_lead_elsewhere_are_not_published(name: str, repository: Repository) -> None:
    card = card_for("spots", "a")
    try:
        card.variant = name
    except UnicodeEncodeError:
        return  # the card itself takes no such name
    with pytest.raises(InvalidInput):
        repository.publish(card, MODEL)
    assert list(repository.root.iterdir()) == []


@pytest.mark.fault(46)
@pytest.mark.parametrize("name", ["..", "Spots", "a" * 255, "\udcff", "x\0y"])
def test_names_that_lead_elsewhere_are_not_read(name: str, repository: Repository) -> None:
    for ask in (repository.variants, repository.route, lambda model: repository.newest(model, "a")):
        with pytest.raises(LatheError):
            ask(name)


@pytest.mark.fault(49)
def test_ten_thousand_versions_are_quickly_listed(repository: Repository) -> None:
    folder = repository.folder(publish(repository)).parent
    for number in range(2, 10_000):
        (folder / str(number)).mkdir()
    publish(repository)
    began = time.perf_counter()
    assert repository.newest("spots", "a").version == 10_000
    assert time.perf_counter() - began < 1
