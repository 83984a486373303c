"""The store of finished steps: made once, never half, and what a full disk leaves."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lathe.errors import DiskFull
from lathe_compression.store import StepStore, digest, disk_full_said, write_whole

KEY = "a" * 64


def writes(content: str, name: str = "result") -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).write_text(content)

    return make


def fails(folder: Path) -> None:
    (folder / "checkpoint").write_text("half")
    raise InterruptedError


def test_entry_is_made_once(tmp_path: Path) -> None:
    store = StepStore(tmp_path / "steps")
    assert store.find(KEY) is None
    first = store.obtain(KEY, writes("one"))
    assert store.obtain(KEY, writes("two")) == store.find(KEY) == first
    assert (first / "result").read_text() == "one"


def test_unfinished_entry_is_no_entry_and_is_gone_on_with(tmp_path: Path) -> None:
    store = StepStore(tmp_path)
    with pytest.raises(InterruptedError):
        store.obtain(KEY, fails)
    assert (store.find(KEY), store.begun(KEY)) == (None, True)

    def go_on(folder: Path) -> None:
        (folder / "checkpoint").rename(folder / "result")

    assert (store.obtain(KEY, go_on) / "result").read_text() == "half"
    assert not store.begun(KEY)


def test_entries_do_not_touch_each_other(tmp_path: Path) -> None:
    store = StepStore(tmp_path)
    with pytest.raises(InterruptedError):
        store.obtain(KEY, fails)
    store.obtain("b" * 64, writes("other"))
    assert [store.begun(key) for key in (KEY, "b" * 64)] == [True, False]


def test_second_on_the_same_entry_waits_and_takes_the_firsts(tmp_path: Path) -> None:
    """Each opens the store for itself, as two processes do; the second asks while the first is at work."""
    begun, asked = threading.Event(), threading.Event()

    def slow(folder: Path) -> None:
        begun.set()
        assert asked.wait(10)
        (folder / "result").write_text("first")

    def second() -> Path:
        assert begun.wait(10)
        asked.set()
        return StepStore(tmp_path).obtain(KEY, writes("second"))

    with ThreadPoolExecutor(2) as pool:
        results = [pool.submit(StepStore(tmp_path).obtain, KEY, slow), pool.submit(second)]
        assert {(result.result() / "result").read_text() for result in results} == {"first"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_says_what_to_do_and_leaves_the_rest(number: int, tmp_path: Path) -> None:
    store = StepStore(tmp_path)
    finished = store.obtain(KEY, writes("one"))

    def full(folder: Path) -> None:
        raise OSError(number, os.strerror(number), str(folder))

    with pytest.raises(DiskFull, match=r"no space left .* another --cache, .* finished steps are kept") as raised:
        store.obtain("b" * 64, full)
    assert str(tmp_path) not in raised.value.message
    assert str(tmp_path) in raised.value.detail
    assert (finished / "result").read_text() == "one"
    assert (store.obtain("b" * 64, writes("two")) / "result").read_text() == "two"


def test_real_full_device_is_told(tmp_path: Path) -> None:
    if not Path("/dev/full").is_char_device():
        pytest.skip("there is no /dev/full")

    def full(folder: Path) -> None:
        (folder / "result.new").symlink_to("/dev/full")
        write_whole(folder / "result", b"x" * 100_000)

    with pytest.raises(DiskFull):
        StepStore(tmp_path).obtain(KEY, full)


def test_other_troubles_are_no_full_disk() -> None:
    with pytest.raises(PermissionError), disk_full_said():
        raise PermissionError(errno.EACCES, "no")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (({"a": 1, "b": 2},), ({"b": 2, "a": 1},), True),
        (((1, 2),), ([1, 2],), True),
        (("a", "b"), ("ab",), False),
        (("a", "b"), ("b", "a"), False),
        (([1], 2), ([1, 2],), False),
        (("1",), (1,), False),
        ((0.1,), (0.1 + 1e-12,), False),
        ((None,), ("",), False),
    ],
)
def test_digest_tells_values_apart(one: tuple[object, ...], other: tuple[object, ...], same: bool) -> None:
    assert (digest(*one) == digest(*other)) is same
    assert len(digest(*one)) == 64


def test_whole_file_replaces_the_old_one_or_leaves_it(tmp_path: Path) -> None:
    path = tmp_path / "facts"
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    (tmp_path / "facts.new").symlink_to("/dev/full")
    with pytest.raises(OSError, match="space"):
        write_whole(path, b"x" * 100_000)
    assert path.read_bytes() == b"two"
