"""lathe gallery: what its verbs say, and their exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lathe.cli import main
from lathe_server.gallery.store import Store
from tests.conftest import RunningServer
from tests.server.gallery_people import (
    ANN,
    ANN_LATER,
    CAT,
    publish_people,
    serving,
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with serving(publish_people(tmp_path)) as running:
        yield running


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
    Path(people).touch()
    assert main(["gallery", "rekey", people, "--key", old, "--new-key", new]) == 1
    assert "the file is empty: there is no gallery in it" in capsys.readouterr().err
    assert Path(people).stat().st_size == 0
    Store(Path(people), bytes.fromhex(Path(old).read_text())).close()
    assert main(["gallery", "rekey", people, "--key", new, "--new-key", old]) == 1
    assert "the key does not open this gallery" in capsys.readouterr().err
    assert main(["gallery", "rekey", people, "--key", old, "--new-key", new]) == 0
    Store(Path(people), bytes.fromhex(Path(new).read_text())).close()
