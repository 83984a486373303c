"""Video files played one after the other, as one source: what a simulated camera sees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path

from lathe.errors import NotFound, Unavailable
from lathe.video import VideoFrame, VideoSource, is_video

GAP_SECONDS = 0.04
"""Between two files; nobody knows how long the last frame of one would have been seen."""


def videos_of(source: Path) -> list[Path]:
    """The file itself, or the videos of a folder by name.

    Raises:
        NotFound: there is no video.
    """
    found = sorted(path for path in source.iterdir() if is_video(path)) if source.is_dir() else [source]
    if not found:
        raise NotFound(f"there is no video in {source}")
    return found


def rotated(videos: Sequence[Path], by: int) -> list[Path]:
    """The same videos, begun elsewhere, so that cameras see different things at the same time.

    >>> [path.name for path in rotated([Path("a"), Path("b"), Path("c")], 4)]
    ['b', 'c', 'a']
    """
    first = by % len(videos)
    return [*videos[first:], *videos[:first]]


class Playlist:
    """Videos as an iterator of `VideoFrame` whose index and time count on from file to file.

    Close it, or use it as a context, to end the decoder.

    Args:
        loop: begin again after the last one.

    Raises (from iteration):
        NotFound, Unavailable: as `VideoSource`; also where a file holds no frame, which would be begun again for ever.
    """

    def __init__(self, videos: Sequence[Path], *, loop: bool = False) -> None:
        self._videos = cycle(videos) if loop else iter(videos)
        self._source: VideoSource | None = None
        self._is_closed = False
        self._frames = self._play()

    def __iter__(self) -> Iterator[VideoFrame]:
        return self

    def __next__(self) -> VideoFrame:
        return next(self._frames)

    def _play(self) -> Iterator[VideoFrame]:
        index, begin = 0, 0.0
        for path in self._videos:
            if self._is_closed:
                return
            end = begin
            with VideoSource(str(path)) as self._source:
                for frame in self._source:
                    end = begin + frame.seconds + GAP_SECONDS
                    yield replace(frame, index=index, seconds=begin + frame.seconds)
                    index += 1
            if end == begin and not self._is_closed:
                raise Unavailable(f"{path.name} holds no frame")
            begin = end

    def close(self) -> None:
        """May be called while another thread waits for a frame."""
        self._is_closed = True
        if self._source:
            self._source.close()

    def __enter__(self) -> Playlist:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
