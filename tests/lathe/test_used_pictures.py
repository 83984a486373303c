"""The list of the pictures that made a version: with it, whole, and never trusted where it is not the card's."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from lathe.errors import BadVariant
from lathe.repository import Repository, VariantRef
from lathe.used_pictures import PICTURES_FILE, UsedPictures
from tests.models import bright_spots, card_for

DIGESTS = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(5)]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


@pytest.fixture
def ref(repository: Repository) -> VariantRef:
    return repository.publish(card_for("spots", "a"), bright_spots(), pictures=UsedPictures(DIGESTS[:3]))


def test_published_and_read_again(repository: Repository, ref: VariantRef) -> None:
    used = repository.used_pictures(ref)
    assert [digest in used for digest in DIGESTS] == [True, True, True, False, False]
    assert repository.card(ref).lineage.pictures == len(used) == 3


def test_none(repository: Repository) -> None:
    ref = repository.publish(card_for("spots", "b"), bright_spots())
    assert not repository.used_pictures(ref)
    assert not (repository.folder(ref) / PICTURES_FILE).exists()


def test_a_version_made_from_very_many_has_a_small_card(repository: Repository) -> None:
    many = UsedPictures(hashlib.sha256(str(number).encode()).hexdigest() for number in range(100_000))
    ref = repository.publish(card_for("spots", "a"), bright_spots(), pictures=many)
    assert len(repository.used_pictures(ref)) == 100_000
    assert repository.card(ref).ByteSize() < 2000


@pytest.mark.parametrize("change", ["missing", "link", "shorter", "other"])
def test_a_list_that_is_not_the_cards_is_refused(repository: Repository, ref: VariantRef, change: str) -> None:
    path = repository.folder(ref) / PICTURES_FILE
    content = path.read_bytes()
    path.unlink()
    if change == "link":
        path.symlink_to(repository.folder(ref) / "card.json")
    elif change == "shorter":
        path.write_bytes(content[:17])
    elif change == "other":
        path.write_bytes(content.replace(content[:1], b"0" if content[:1] != b"0" else b"1", 1))
    with pytest.raises(BadVariant, match="the list of the pictures that made it"):
        repository.used_pictures(ref)
