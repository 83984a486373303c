"""Cards on disk: what is written is read back, and what is no card is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lathe.card import check_name, enum_word, read_card, write_card
from lathe.errors import BadVariant, InvalidInput, NotFound
from lathe.v1 import card_pb2
from tests.models import card_for


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A valid card."""
    card = card_for("spots", "a")
    card.sha256 = "0" * 64
    write_card(card, tmp_path / "card.json")
    return tmp_path / "card.json"


def test_what_is_written_is_read_back(path: Path) -> None:
    card = read_card(path)
    write_card(card, path)
    assert read_card(path) == card
    assert json.loads(path.read_text())["size_multiple"] == 32  # names as in the contract


@pytest.mark.fault(41)
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"sha256": ""}, "no sha256"),
        ({"sha256": "0" * 63}, "no sha256"),
        ({"sha256": "G" * 64}, "no sha256"),
        ({"serving_size": {"width": 160}}, "no serving size"),
        ({"size_multiple": 0}, "no serving size"),
        ({"license": "MIT"}, "not valid"),
        ({"version": -1}, "not valid"),
        ({"version": "one"}, "not valid"),
        ({"task": "TASK_MAGIC"}, "not valid"),
        ({"classes": {"0": "spot"}}, "not valid"),
        ({"notices": ["x" * (1 << 20)]}, "larger than 1 MiB"),
    ],
)
def test_hostile_or_missing_fields_are_refused(change: dict[str, object], told: str, path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BadVariant, match=told):
        read_card(path)


@pytest.mark.fault(41)
@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_card_is_refused(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    with pytest.raises(BadVariant):
        read_card(path)


@pytest.mark.fault(41)
def test_endless_card_is_read_no_further_than_its_limit(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(1 << 30)  # a gigabyte of zeros that takes no space
    with pytest.raises(BadVariant, match="larger than 1 MiB"):
        read_card(path)


def test_missing_card(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no card"):
        read_card(tmp_path / "card.json")


@pytest.mark.fault(46)
def test_link_is_no_card(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to(path)
    with pytest.raises(BadVariant, match="not a plain file"):
        read_card(tmp_path / "link.json")


def test_pipe_and_folder_are_no_cards(tmp_path: Path) -> None:
    """A pipe without a writer would be waited for without end."""
    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path / "pipe.json", tmp_path):
        with pytest.raises(BadVariant, match="not a plain file"):
            read_card(path)


def test_messages_hold_no_path(path: Path) -> None:
    path.write_text("{")
    with pytest.raises(BadVariant) as raised:
        read_card(path)
    assert str(path.parent) not in raised.value.message
    assert str(path) in raised.value.detail


@pytest.mark.fault(46)
@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "a/b", "a\\b", "/etc", "Face", "FACE", "é", "a" * 64, "a\n", "a b", "a\0", "-a", "~"],
)
def test_names_that_could_collide_or_lead_elsewhere(name: str) -> None:
    with pytest.raises(InvalidInput, match="a model is named by 1 to 63 of a-z"):
        check_name(name, "model")


@pytest.mark.parametrize("name", ["face", "0", "pruned50-int8", "v1.2_b", "a" * 63])
def test_good_names(name: str) -> None:
    assert check_name(name, "model") == name


def test_plain_words_of_enums() -> None:
    assert enum_word("Precision", card_pb2.PRECISION_INT8) == "int8"
    assert enum_word("Decoder", card_pb2.DECODER_HEATMAP) == "heatmap"
