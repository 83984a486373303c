"""A gallery's file: what is in it, who can read it, and what its damages are called."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lathe.errors import AlreadyExists, DiskFull, LatheError, Refused
from lathe_server.gallery import store as store_module
from lathe_server.gallery.record import Record
from lathe_server.gallery.sealing import Sealer, WrongSeal, read_key, write_key
from lathe_server.gallery.store import Store
from lathe_server.settings import GALLERY_KEY_VARIABLE as KEY_VARIABLE

KEY, OTHER_KEY = bytes(range(32)), bytes(32)
SPACE = "face-embed/0123456789abcdef"


def record(number: int, subject: str = "ann", dimensions: int = 128) -> Record:
    vector = np.random.default_rng(number).standard_normal(dimensions).astype(np.float32)
    return Record(f"{number:032x}", subject, SPACE, 1_700_000_000 + number, vector / np.linalg.norm(vector))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "people.gallery"


@pytest.fixture
def filled(path: Path) -> Path:
    """A gallery's file with three records, closed."""
    store = Store(path, KEY)
    for number in (1, 2, 3):
        store.add(record(number, f"person-{number}"), b"a face of %d" % number)
    store.close()
    return path


def boxes(path: Path) -> list[bytes]:
    """All that is sealed in a gallery's file, which is closed."""
    with sqlite3.connect(path) as raw:
        found = raw.execute(
            "SELECT template FROM records UNION ALL SELECT face FROM records UNION ALL SELECT root FROM gallery"
        )
        sealed = [box for (box,) in found]
    raw.close()
    return sealed


def everything(path: Path) -> bytes:
    """The bytes of all files of a gallery."""
    return b"".join(file.read_bytes() for file in sorted(path.parent.glob(f"{path.name}*")))


def test_what_was_added_is_there_after_it_was_opened_anew(filled: Path) -> None:
    store = Store(filled, KEY)
    found = {one.id: one for one in store.records()}
    assert sorted(found) == [record(number).id for number in (1, 2, 3)]
    for number in (1, 2, 3):
        expected = record(number, f"person-{number}")
        one = found[expected.id]
        assert (one.subject, one.space, one.enrolled_at) == (expected.subject, SPACE, expected.enrolled_at)
        np.testing.assert_array_equal(one.vector, expected.vector)
        assert store.face(one.id) == b"a face of %d" % number
    assert store.record("no such id") is None
    store.close()


def test_nothing_of_a_person_is_readable_in_the_files(path: Path) -> None:
    store = Store(path, KEY)
    known = record(7, "Ann Öztürk")
    store.add(known, b"planted-face")
    found = everything(path)
    store.close()
    for secret in ("Ann Öztürk".encode(), known.vector.tobytes(), known.vector.tobytes()[:8], b"planted-face", KEY):
        assert secret not in found
        assert secret not in everything(path)


def test_a_record_as_text_shows_neither_person_nor_face() -> None:
    assert str(record(7, "Ann")) == f"Record(id='{7:032x}', space='{SPACE}', enrolled_at=1700000007)"


def test_only_its_owner_may_read_the_files(path: Path) -> None:
    os.umask(0o000)
    try:
        store = Store(path, KEY)
        store.add(record(1))
    finally:
        os.umask(0o022)
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in path.parent.iterdir()} == {
        "people.gallery": "0o600",
        "people.gallery-wal": "0o600",
    }
    store.close()


def test_the_wrong_key_opens_nothing(filled: Path) -> None:
    before = filled.read_bytes()
    with pytest.raises(Refused, match="the key does not open this gallery"):
        Store(filled, OTHER_KEY)
    assert filled.read_bytes() == before
    Store(filled, KEY).close()


def test_one_process_at_a_time_has_it_open(filled: Path) -> None:
    script = f"""
from pathlib import Path
from lathe.errors import Refused
from lathe_server.gallery.store import Store
try:
    Store(Path({str(filled)!r}), bytes(range(32)))
except Refused as error:
    print(error.message)
"""
    store = Store(filled, KEY)
    for _ in range(2):  # the one that was refused has not broken the lock of the one that has it
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout == "another process has the gallery open; one at a time may\n"
        with pytest.raises(Refused, match="another process has the gallery open"):
            Store(filled, KEY)
    store.add(record(4))
    store.close()


def test_what_is_deleted_is_in_none_of_the_files(path: Path) -> None:
    store = Store(path, KEY)
    for number in range(200):
        store.add(record(number), b"a face")
    copy = path.with_name("copy")  # because the file itself is locked
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    raw = sqlite3.connect(copy)
    sealed = {name: (template, face) for name, template, face in raw.execute("SELECT id, template, face FROM records")}
    raw.close()
    gone = [record(number).id for number in range(0, 200, 3)]
    assert all(box in everything(path) for name in gone for box in sealed[name])
    store.remove(gone)
    store.cut_log()
    left = everything(path)
    for name in gone:
        assert not any(box in left or box[12:44] in left for box in sealed[name])
    assert all(box in left for name in sealed.keys() - set(gone) for box in sealed[name])
    assert {one.id for one in store.records()} == sealed.keys() - set(gone)
    store.close()


def change(statement: str, *values: object) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        with sqlite3.connect(path) as raw:
            raw.execute(statement, values)
        raw.close()

    return spoil


def overwrite(place: int, content: bytes) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        whole = bytearray(path.read_bytes())
        whole[place : place + len(content)] = content
        path.write_bytes(whole)

    return spoil


def exchange(column: str) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        one, two = record(1).id, record(2).id
        with sqlite3.connect(path) as raw:
            (first,), (second,) = (
                raw.execute(f"SELECT {column} FROM records WHERE id = ?", (name,)).fetchone() for name in (one, two)
            )
            for name, value in ((one, second), (two, first)):
                raw.execute(f"UPDATE records SET {column} = ? WHERE id = ?", (value, name))
        raw.close()

    return spoil


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "text": (lambda path: path.write_text("no gallery at all " * 300), "damaged, or no gallery"),
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:-5000]), "damaged"),
    "a page of noise": (overwrite(4096, bytes(range(256)) * 16), "damaged"),
    "another database": (lambda path: (path.unlink(), change("CREATE TABLE t (x)")(path)), "of something else"),
    "a newer format": (change("PRAGMA user_version = 99"), "has format 99"),
    "templates exchanged": (exchange("template"), "2 records of the gallery are damaged"),
    "another space": (change("UPDATE records SET space = 'x/1'"), "3 records of the gallery are damaged"),
    "a later time": (change("UPDATE records SET enrolled_at = 4e9"), "3 records"),
    "a template of text": (change("UPDATE records SET template = 'x' WHERE id = ?", record(1).id), "1 records"),
    "an empty template": (change("UPDATE records SET template = x''"), "3 records"),
    "no id": (change("DELETE FROM gallery"), "the key does not open"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_called_so(filled: Path, damage: str) -> None:
    spoil, message = DAMAGES[damage]
    spoil(filled)
    with pytest.raises(Refused, match=message) as caught:
        list(Store(filled, KEY).records())
    assert str(filled.parent) not in caught.value.message


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_somebody_elses_database_stays_as_it_is(path: Path, mode: str) -> None:
    raw = sqlite3.connect(path)
    raw.execute(f"PRAGMA journal_mode = {mode}")
    raw.execute("CREATE TABLE t (x)")
    raw.commit()
    raw.close()
    before = path.read_bytes()
    with pytest.raises(Refused, match="of something else"):
        Store(path, KEY)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_exchanged_faces_are_noticed(filled: Path) -> None:
    exchange("face")(filled)
    store = Store(filled, KEY)
    with pytest.raises(Refused, match="a kept face of the gallery is damaged"):
        store.face(record(1).id)
    store.close()


def test_a_record_of_another_gallery_with_the_same_key_is_none_of_ours(filled: Path, tmp_path: Path) -> None:
    other = Store(tmp_path / "other.gallery", KEY)
    other.add(record(1, "intruder"))
    other.close()
    with sqlite3.connect(tmp_path / "other.gallery") as raw:
        (template,) = raw.execute("SELECT template FROM records").fetchone()
    raw.close()
    change("UPDATE records SET template = ? WHERE id = ?", template, record(1).id)(filled)
    with pytest.raises(Refused, match="1 records of the gallery are damaged or not its own"):
        list(Store(filled, KEY).records())


@pytest.mark.fault(47)
@pytest.mark.parametrize("method", ["add", "replace"])
def test_a_full_disk_changes_nothing(filled: Path, method: str) -> None:
    """SQLite meets a limit of pages as it meets the disk's: SQLITE_FULL."""
    store = Store(filled, KEY)
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    big = record(9, dimensions=50_000)
    replaced = Record(record(1).id, "person-1", SPACE, record(1).enrolled_at, big.vector)
    change = {
        "add": lambda: store.add(big),
        "replace": lambda: store.replace([replaced]),
    }[method]
    with pytest.raises(DiskFull, match="nothing was changed"):
        change()
    assert [one.id for one in store.records()] == [record(number).id for number in (1, 2, 3)]
    store._db.execute("PRAGMA max_page_count = 100000")
    store.add(big)
    store.close()
    assert len(list(Store(filled, KEY).records())) == 4


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_FULL, DiskFull),
        (sqlite3.SQLITE_READONLY_ROLLBACK, Refused),
        (sqlite3.SQLITE_CANTOPEN_ISDIR, Refused),
        (sqlite3.SQLITE_CORRUPT_VTAB, Refused),
        (sqlite3.SQLITE_IOERR_FSYNC, LatheError),
    ],
)
def test_every_trouble_has_words(code: int, kind: type[LatheError]) -> None:
    error = sqlite3.OperationalError("/a/path: it broke")
    error.sqlite_errorcode = code
    with pytest.raises(kind) as caught, store_module.told():
        raise error
    assert "/a/path" not in caught.value.message
    assert "/a/path" in caught.value.detail


def test_an_error_that_is_ours_is_not_hidden() -> None:
    with pytest.raises(sqlite3.ProgrammingError), store_module.told():
        raise sqlite3.ProgrammingError("a binding is missing")


def test_a_file_that_may_not_be_written_is_refused(filled: Path) -> None:
    """A folder in its place, because root may write everything."""
    filled.unlink()
    filled.mkdir()
    with pytest.raises(Refused, match="cannot be opened"):
        Store(filled, KEY)
    with pytest.raises(Refused, match="cannot be made"):
        Store(filled.parent / "no folder" / "people.gallery", KEY)


def test_a_new_key_takes_the_place_of_the_old_one(filled: Path) -> None:
    store = Store(filled, KEY)
    pseudonym = store.pseudonym("ann")
    store.close()
    old = boxes(filled)
    assert len(old) == 7
    assert all(box in everything(filled) for box in old)
    store = Store(filled, KEY)
    store.rekey(OTHER_KEY)
    store.add(record(4))
    assert not any(box in everything(filled) for box in old)
    store.close()
    with pytest.raises(Refused, match="the key does not open"):
        Store(filled, KEY)
    store = Store(filled, OTHER_KEY)
    assert [one.subject for one in store.records()] == ["person-1", "person-2", "person-3", "ann"]
    assert store.face(record(1).id) == b"a face of 1"
    assert store.pseudonym("ann") == pseudonym
    store.close()
    assert not any(box in everything(filled) for box in old)


def test_a_pseudonym_is_a_galleys_own_and_tells_no_name(filled: Path, tmp_path: Path) -> None:
    one, other = Store(filled, KEY), Store(tmp_path / "other", KEY)
    assert one.pseudonym("ann") == one.pseudonym("ann") != one.pseudonym("bob")
    assert one.pseudonym("ann") != other.pseudonym("ann")
    one.close()
    other.close()


def test_a_box_opens_at_its_own_place_only() -> None:
    sealer = Sealer(KEY, b"gallery")
    box = sealer.seal(b"content", "template", "1", 2)
    assert sealer.open(box, "template", "1", 2) == b"content"
    assert box != sealer.seal(b"content", "template", "1", 2)
    for place in (("template", "1", 3), ("template", 1, 2), ("template", "12"), ("template1", 2), ()):
        with pytest.raises(WrongSeal):
            sealer.open(box, *place)
    for broken in (b"", box[:-1], box[1:], box[:11], box + b"\0"):
        with pytest.raises(WrongSeal):
            sealer.open(broken, "template", "1", 2)


@pytest.mark.parametrize("content", [KEY, KEY.hex().encode(), b" " + KEY.hex().upper().encode() + b"\n"])
def test_a_key_is_32_bytes_or_64_digits(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    assert read_key(str(tmp_path / "key")) == KEY


@pytest.mark.parametrize(
    "content", [b"", b"short", KEY[:-1], KEY.hex()[:-2].encode(), KEY.hex()[:32].encode(), b"x" * 64, b"\xff" * 64]
)
def test_what_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(Refused, match="holds no key: it must be 32 bytes, or 64 hex digits"):
        read_key(str(tmp_path / "key"))


def test_a_key_may_come_by_the_environment() -> None:
    assert read_key("", {KEY_VARIABLE: KEY.hex()}) == KEY
    with pytest.raises(Refused, match="a gallery needs its key"):
        read_key("", {})
    with pytest.raises(Refused, match=f"{KEY_VARIABLE} is no key") as caught:
        read_key("", {KEY_VARIABLE: "secret-but-wrong"})
    assert "secret" not in caught.value.message
    with pytest.raises(Refused, match="the file of the gallery's key cannot be read"):
        read_key("/no/such/file", {KEY_VARIABLE: KEY.hex()})


def test_a_fresh_key_is_private_and_overwrites_none(tmp_path: Path) -> None:
    write_key(tmp_path / "key")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    key = read_key(str(tmp_path / "key"))
    with pytest.raises(AlreadyExists, match="opens nothing more"):
        write_key(tmp_path / "key")
    assert read_key(str(tmp_path / "key")) == key
