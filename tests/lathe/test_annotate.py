"""Annotated videos play back, with every frame and its boxes."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import simplejpeg

from lathe.annotate import BOX_RGB, AnnotatedVideo, draw
from lathe.detections import Detections
from lathe.errors import InvalidInput, NotFound
from lathe.exchange import Result
from lathe.video import VideoFrame


def found(*boxes: tuple[float, float, float, float]) -> Detections:
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.full(len(boxes), 0.9, np.float32),
        np.zeros(len(boxes), np.int64),
        np.full((len(boxes), 1, 2), 30, np.float32),
    )


def result(index: int, detections: Detections) -> Result:
    return Result(index, "answered", detections, "spots", "a", 1, {}, 0.0, "")


def frame(index: int, seconds: float, size_wh: tuple[int, int] = (96, 64)) -> VideoFrame:
    pixels = np.full((size_wh[1], size_wh[0], 3), 20 * index, np.uint8)
    return VideoFrame(index, seconds, 0.0, simplejpeg.encode_jpeg(pixels))


def test_drawing_leaves_the_picture_as_it_was() -> None:
    pixels = np.zeros((64, 96, 3), np.uint8)
    drawn = draw(pixels, found((10, 20, 50, 60)))
    assert not pixels.any()
    assert tuple(drawn[40, 10]) == tuple(drawn[60, 30]) == BOX_RGB  # left and lower side
    assert tuple(drawn[30, 30]) == BOX_RGB  # the landmark
    assert not drawn[:, 60:].any()


def test_boxes_past_the_edge_are_drawn_as_far_as_they_go() -> None:
    assert draw(np.zeros((64, 96, 3), np.uint8), found((-50, -50, 300, 30))).any()


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
def test_video_plays_back_with_the_same_frames(suffix: str, tmp_path: Path) -> None:
    """At an uneven pace; two frames of the same time are both kept."""
    seconds = [0.0, 0.1, 0.1, 0.5, 0.54]
    path = tmp_path / f"out.{suffix}"
    with AnnotatedVideo(path) as video:
        for index, at in enumerate(seconds):
            video.add(frame(index, at), result(index, found((10, 20, 50, 60))))
    with av.open(str(path)) as container:
        played = [(picture.time, picture.to_ndarray(format="rgb24")) for picture in container.decode(video=0)]
    assert [at for at, _ in played] == pytest.approx(seconds, abs=0.002)
    for index, (_, pixels) in enumerate(played):
        assert pixels[:8, 70:].mean() == pytest.approx(20 * index, abs=4)
        assert int(pixels[40, 10, 1]) > 100 > 20 * index  # green, where the box's left side is


def test_odd_sizes_lose_a_row_and_a_column(tmp_path: Path) -> None:
    with AnnotatedVideo(tmp_path / "out.mp4") as video:
        video.add(frame(0, 0.0, (97, 65)), result(0, found()))
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (96, 64)


def test_size_may_change_in_mid_stream(tmp_path: Path) -> None:
    with AnnotatedVideo(tmp_path / "out.mp4") as video:
        video.add(frame(0, 0.0), result(0, found()))
        video.add(frame(1, 0.1, (192, 128)), result(1, found()))
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 2


def test_without_frames_or_without_a_path_nothing_is_written(tmp_path: Path) -> None:
    with AnnotatedVideo(tmp_path / "out.mp4"), AnnotatedVideo(None):
        pass
    assert list(tmp_path.iterdir()) == []


def test_path_that_cannot_hold_it_is_told_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"out\.gif must end in one of \.mp4"):
        AnnotatedVideo(tmp_path / "out.gif")
    with pytest.raises(NotFound, match="there is no folder"):
        AnnotatedVideo(tmp_path / "none/out.mp4")
