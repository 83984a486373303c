"""Frames from video files, cameras and network streams.

A decoder that hangs or crashes on bad input takes only a child process with it: `VideoSource` runs
PyAV there and ends it when no frame has come for a while.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lathe.errors import NotFound, Unavailable
from lathe.source_name import describe

VIDEO_SUFFIXES = {".mp4", ".mkv", ".avi", ".mov", ".webm", ".mpg", ".mpeg", ".ts", ".m4v"}
STALLED_SECONDS = 10.0


def is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def read_frames(path: Path) -> Iterator[NDArray[np.uint8]]:
    """All frames of a local file, height × width × RGB, decoded in this process.

    Raises:
        NotFound: no such file.
        Unavailable: not a video.
    """
    import av  # 150 ms that a server never spends

    if not path.is_file():
        raise NotFound(f"there is no video {path}")
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                pixels: NDArray[Any] = frame.to_ndarray(format="rgb24")
                yield pixels
    except (av.FFmpegError, IndexError) as error:
        raise Unavailable(f"{path.name} cannot be decoded as a video") from error


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """One frame of a source.

    Attributes:
        index: counts from 0.
        seconds: time since the first frame by the source's own clock.
        captured_at: Unix time at which it came out of the decoder.
        jpeg: the frame as a JPEG file, ready to be sent.
    """

    index: int
    seconds: float
    captured_at: float
    jpeg: bytes


_HEADER = struct.Struct("<ddI")
_FRAME, _END, _ERROR = b"F", b"E", b"X"


class VideoSource:
    """A file, a camera (`0`, `/dev/video0`) or a URL (`rtsp://…`), as an iterator of `VideoFrame`.

    Close it, or use it as a context, to end the child process.

    Args:
        quality: of the JPEGs, 1 to 100.
        stalled_seconds: longest wait for a frame before the child is ended.

    Raises (from iteration):
        NotFound: no such file or camera.
        Unavailable: it cannot be decoded, or stalled.
    """

    def __init__(self, source: str, *, quality: int = 90, stalled_seconds: float = STALLED_SECONDS) -> None:
        if "://" not in source and not Path(_location(source)).exists():
            raise NotFound(f"there is no video {describe(source)}")
        self._source = source
        self._stalled_seconds = stalled_seconds
        context = multiprocessing.get_context("spawn")
        self._receiver, sender = context.Pipe(duplex=False)
        self._child = context.Process(target=_pump, args=(source, quality, sender), daemon=True)
        self._child.start()
        sender.close()
        self._index = 0

    def __iter__(self) -> Iterator[VideoFrame]:
        return self

    def __next__(self) -> VideoFrame:
        if self._receiver.closed:
            raise StopIteration
        try:
            message = self._receiver.recv_bytes() if self._receiver.poll(self._stalled_seconds) else None
        except (EOFError, OSError):  # between two messages, or within one
            self.close()
            raise Unavailable(f"the decoder of {describe(self._source)} crashed") from None
        if message is None:
            self.close()
            raise Unavailable(f"no frame from {describe(self._source)} for {self._stalled_seconds:g} s")
        kind, body = message[:1], message[1:]
        if kind == _FRAME:
            seconds, captured_at, index = _HEADER.unpack_from(body)
            return VideoFrame(index, seconds, captured_at, body[_HEADER.size :])
        self.close()
        if kind == _ERROR:
            raise Unavailable(f"{describe(self._source)} cannot be played: {body.decode()}")
        raise StopIteration

    def close(self) -> None:
        self._child.kill()
        self._child.join()
        self._receiver.close()

    def __enter__(self) -> VideoSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _pump(source: str, quality: int, sender: Connection) -> None:
    """The child: decodes, compresses and sends until the end; a closed pipe ends it."""
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        try:
            _send_frames(source, quality, sender)
            sender.send_bytes(_END)
        except BrokenPipeError:
            raise
        except Exception as error:  # noqa: BLE001  whatever PyAV raises; only its kind is told
            sender.send_bytes(_ERROR + type(error).__name__.encode())


def _send_frames(source: str, quality: int, sender: Connection) -> None:
    import av
    import simplejpeg

    with av.open(_location(source), **_options(source)) as container:
        first: float | None = None
        for index, frame in enumerate(container.decode(video=0)):
            captured_at = time.time()
            stamp = frame.time if frame.time is not None else captured_at
            first = stamp if first is None else first
            jpeg = simplejpeg.encode_jpeg(frame.to_ndarray(format="rgb24"), quality, "RGB", "420")
            sender.send_bytes(_FRAME + _HEADER.pack(stamp - first, captured_at, index) + jpeg)


def _location(source: str) -> str:
    return f"/dev/video{source}" if source.isdecimal() else source


def _options(source: str) -> dict[str, Any]:
    if source.isdecimal() or source.startswith("/dev/video"):
        return {"format": "v4l2"}
    if source.startswith(("rtsp://", "rtsps://")):
        return {"options": {"rtsp_transport": "tcp", "fflags": "nobuffer"}}
    return {}
