"""Videos in a child process: real files play, and whatever goes wrong is told in time and without secrets."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from lathe.errors import NotFound, Unavailable
from lathe.source_name import describe
from lathe.video import VideoSource, is_video, read_frames


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve grey frames of 64×48 at 12.5 frames a second, each 20 brighter than the one before."""
    path = tmp_path_factory.mktemp("video") / "film.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(12):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = 2 * number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_every_frame_comes_once_and_in_order(film: Path) -> None:
    before = time.time()
    with VideoSource(str(film)) as source:
        frames = list(source)
        assert list(source) == []  # the end stays the end
    assert [frame.index for frame in frames] == list(range(12))
    assert [frame.seconds for frame in frames] == pytest.approx([n * 0.08 for n in range(12)])
    assert all(before < frame.captured_at < time.time() for frame in frames)
    pixels = [cv2.imdecode(np.frombuffer(frame.jpeg, np.uint8), cv2.IMREAD_COLOR) for frame in frames]
    assert {picture.shape for picture in pixels if picture is not None} == {(48, 64, 3)}
    assert [round(float(np.mean(picture)) / 20) for picture in pixels if picture is not None] == list(range(12))


def test_frames_in_this_process(film: Path) -> None:
    frames = list(read_frames(film))
    assert [round(float(frame.mean()) / 20) for frame in frames] == list(range(12))
    assert frames[0].shape == (48, 64, 3)


def test_closing_ends_the_child(film: Path) -> None:
    with VideoSource(str(film)) as source:
        next(source)
        child = source._child
        assert child.is_alive()
    assert not child.is_alive()
    with pytest.raises(StopIteration):
        next(source)


def test_child_that_dies_is_told_as_a_crash(film: Path) -> None:
    """What a decoder does that crashes on bad input, at any point of a message."""
    with VideoSource(str(film)) as source:
        source._child.kill()
        with pytest.raises(Unavailable, match=r"the decoder of .*film\.mp4 crashed"):
            list(source)
        assert not source._child.is_alive()


@pytest.mark.parametrize("source", ["none.mp4", "rstp:/typo", "97"])
def test_missing_file_or_camera(source: str) -> None:
    with pytest.raises(NotFound, match=f"there is no video {source}"):
        VideoSource(source)


@pytest.mark.parametrize("content", [b"", b"not a video\n" * 100, bytes(5000)], ids=["empty", "text", "zeros"])
def test_what_is_no_video(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    with VideoSource(str(tmp_path / "a.mp4")) as source, pytest.raises(Unavailable, match="cannot be played"):
        next(source)
    with pytest.raises(Unavailable, match=r"a\.mp4 cannot be decoded as a video"):
        list(read_frames(tmp_path / "a.mp4"))


def test_truncated_file_gives_frames_or_an_error(film: Path, tmp_path: Path) -> None:
    """Never a hang, never another exception."""
    content = film.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    with VideoSource(str(tmp_path / "cut.mp4")) as source, suppress(Unavailable):
        assert len(list(source)) < 12


@contextmanager
def silent_camera() -> Iterator[int]:
    """A TCP server that takes connections and says nothing; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepted: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    accepted.append(listener.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in accepted:
            connection.close()


@pytest.mark.parametrize("scheme", ["rtsp", "http", "tcp"])
def test_silent_server_is_left_in_time(scheme: str, capfd: pytest.CaptureFixture[str]) -> None:
    with silent_camera() as port:
        began = time.monotonic()
        url = f"{scheme}://user:geheim@127.0.0.1:{port}/live?token=geheim"
        with VideoSource(url, stalled_seconds=1.5) as source:
            with pytest.raises(Unavailable) as raised:
                next(source)
            assert not source._child.is_alive()
        assert time.monotonic() - began < 5
    assert raised.value.message == f"no frame from {scheme}://127.0.0.1:{port}/live for 1.5 s"
    assert "geheim" not in "".join(capfd.readouterr())


def test_refused_connection_does_not_tell_the_password(capfd: pytest.CaptureFixture[str]) -> None:
    source = VideoSource("rtsp://user:geheim@127.0.0.1:1/live")
    with source, pytest.raises(Unavailable, match=r"rtsp://127\.0\.0\.1:1/live cannot be played") as raised:
        next(source)
    assert "geheim" not in raised.value.message + "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("film.mp4", "film.mp4"),
        ("/a/b@c.mp4", "/a/b@c.mp4"),
        ("0", "0"),
        ("rtsp://camera:554/live", "rtsp://camera:554/live"),
        ("rtsp://user:geheim@camera:554/live", "rtsp://camera:554/live"),
        ("rtsp://geheim@camera/live", "rtsp://camera/live"),
        ("rtsp://user:geh@eim@camera/live", "rtsp://camera/live"),
        ("rtsp://camera/live?user=u&password=geheim", "rtsp://camera/live"),
        ("rtsp://camera/live?mail=a@b&password=geheim", "rtsp://…"),
        ("rtsp://camera/live#geheim", "rtsp://camera/live"),
        ("rtsp://user:geh?eim@camera/live", "rtsp://…"),
        ("rtsp://user:geh#eim@camera/live", "rtsp://…"),
        ("rtsp://user:geh/eim@camera/live", "rtsp://camera/live"),
        ("rtsp://user:geheim@camera:port/live", "rtsp://camera:port/live"),
        ("rtsp://user:geheim@[::1]:554/live", "rtsp://[::1]:554/live"),
        ("http://proxy/x?url=http://user:geheim@camera/", "http://…"),
        ("user:geheim@camera/live", "camera/live"),
        ("rtsp:user:geheim@camera/live", "camera/live"),
    ],
)
def test_description_holds_no_secret(source: str, shown: str) -> None:
    assert describe(source) == shown
    assert "geheim" not in shown
    assert "eim" not in shown


def test_videos_by_their_suffix() -> None:
    assert is_video(Path("a.MP4"))
    assert not is_video(Path("a.jpg"))
