"""TOML tables as dataclasses: every mistake is told with its line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from lathe.config import load, nearest, parse
from lathe.errors import InvalidInput, NotFound


@dataclass(frozen=True)
class Camera:
    name: str
    fps: float = 10.0
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Site:
    title: str
    camera: tuple[Camera, ...] = ()
    codec: Literal["h264", "h265"] = "h264"
    live: bool = False

    def __post_init__(self) -> None:
        if len(self.camera) > 3:
            raise ValueError("a site has at most 3 cameras")


TEXT = """\
title = "gate"  # the name = of it
live = true

[[camera]]
name = "left"
fps = 25

[[camera]]
name = "right"
size = [640, 480]
"""


def write(folder: Path, text: str) -> Path:
    (folder / "site.toml").write_text(text)
    return folder / "site.toml"


def test_tables_become_dataclasses(tmp_path: Path) -> None:
    cameras = (Camera("left", 25.0), Camera("right", 10.0, (640, 480)))
    assert load(Site, write(tmp_path, TEXT)) == Site("gate", cameras, live=True)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("live", "alive", r'line 2: unknown key "alive"; did you mean "live"\?'),
        ("fps", "speed", 'line 6: unknown key "speed"$'),
        ('name = "right"', "fps = 5", r'line 8: the key "name" is missing'),  # the table, not another's name
        ('name = "right"\n', 'name = "right"\nfps = "x"\n', 'line 10: "fps" must be a number'),
        ("[640, 480]", "[640]", 'line 10: "size" must have 2 entries'),
        ("[640, 480]", '[640, "x"]', 'line 10: "size" must be a whole number'),
        ("[640, 480]", "640", 'line 10: "size" must be a list'),
        ('title = "gate"', "title = 3", 'line 1: "title" must be text'),
        ("live = true", 'codec = "h266"', 'line 2: "codec" must be one of "h264", "h265"; did you mean "h26'),
        ("live = true", "codec = [1]", 'line 2: "codec" must be one of'),
        ("live = true", "camera = 3", "is not valid TOML"),
        ("[[camera]]\nname", "[[camera]]\nname = 'x'\n[[camera]]\nname", "site.toml: a site has at most 3 cameras"),
    ],
)
def test_mistakes_are_told_with_their_line(old: str, new: str, told: str, tmp_path: Path) -> None:
    assert old in TEXT
    with pytest.raises(InvalidInput, match=told):
        load(Site, write(tmp_path, TEXT.replace(old, new)))


@pytest.mark.parametrize("text", ["camera = 3", "camera = [3]", "camera = {}"])
def test_wrong_kind_of_table(text: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r'line 2: "camera" must be a (list|table)'):
        load(Site, write(tmp_path, f'title = "x"\n{text}\n'))


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a = ", b"a = 1\na = 2"])
def test_what_is_no_toml(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"site\.toml is not valid TOML"):
        load(Site, tmp_path / "site.toml")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(NotFound, match="there is no file"):
            load(Site, path)


def test_without_text_there_is_no_line() -> None:
    with pytest.raises(InvalidInput, match=r'^flags: unknown key "x"$'):
        parse(Camera, {"x": 1}, "", "flags")


def test_nearest() -> None:
    assert nearest("hieght", ["width", "height"]) == '; did you mean "height"?'
    assert nearest("colour", ["width", "height"]) == ""
