"""Videos played one after the other: index and time count on, and closing ends it from any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest

from lathe.errors import Unavailable
from lathe.playlist import Playlist, videos_of
from tests.calls import SECONDS


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three frames at 10 a second, and two."""
    folder = tmp_path_factory.mktemp("films")
    for name, frames in (("long.mp4", 3), ("short.mp4", 2)):
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream("libx264", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for _ in range(frames):
                frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return videos_of(folder)


def test_index_and_time_count_on_from_file_to_file(films: list[Path]) -> None:
    with Playlist(films) as playlist:
        frames = list(playlist)
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.seconds for frame in frames] == pytest.approx([0.0, 0.1, 0.2, 0.24, 0.34])


def test_a_loop_begins_again(films: list[Path]) -> None:
    with Playlist(films, loop=True) as playlist:
        frames = [next(playlist) for _ in range(7)]
    assert [frame.index for frame in frames] == list(range(7))
    assert frames[5].jpeg == frames[0].jpeg
    assert frames[5].seconds == pytest.approx(0.38)


@pytest.mark.parametrize("loop", [False, True])
def test_closing_it_ends_it_in_the_thread_that_plays_it(films: list[Path], loop: bool) -> None:
    playlist = Playlist(films, loop=loop)
    next(playlist)
    playlist.close()

    def play() -> None:
        with suppress(Unavailable):
            for _ in playlist:
                pass
        ended.set()

    ended = threading.Event()
    threading.Thread(target=play, daemon=True).start()
    assert ended.wait(SECONDS)


def test_a_file_without_frames_is_no_endless_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lathe.playlist.VideoSource", _empty_source())
    with (
        Playlist([tmp_path / "empty.mp4"], loop=True) as playlist,
        pytest.raises(Unavailable, match=r"empty\.mp4 holds no frame"),
    ):
        next(playlist)


def _empty_source() -> Callable[[str], object]:
    class Empty:
        def __init__(self, source: str) -> None: ...
        def __enter__(self) -> Empty:
            return self

        def __exit__(self, *_: object) -> None: ...
        def __iter__(self) -> object:
            return iter(())

        def close(self) -> None: ...

    return Empty
