"""Frames in one file: what is drawn, how often, and from which level of the pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lathe.errors import InvalidInput
from lathe_compression.frames import INDEX_FILE, LONGEST_SIDE, SMALLEST_SIDE, FramePool, Group, write
from lathe_compression.pictures import NamedPicture


def picture(name: str, height: int = 64, width: int = 96, level: int | None = None) -> NamedPicture:
    """Of one grey level, or a ramp whose red tells the row and whose green the column."""
    pixels = np.zeros((height, width, 3), np.uint8)
    if level is None:
        pixels[..., 0] = np.linspace(0, 255, height).astype(np.uint8)[:, None]
        pixels[..., 1] = np.linspace(0, 255, width).astype(np.uint8)[None, :]
    else:
        pixels[:] = level
    return NamedPicture(name, f"digest of {name}", pixels)


def pool(folder: Path, *groups: tuple[Sequence[NamedPicture], float]) -> FramePool:
    write([Group(*group) for group in groups], folder)
    return FramePool(folder)


def whole(frames: FramePool, number: int) -> NDArray[np.uint8]:
    height, width = frames.size(number)
    return frames.crop(number, (0, 0), (height, width), height)


def test_frames_come_back_as_they_were_in_order(tmp_path: Path) -> None:
    first, second = picture("a"), picture("b", 50, 40, level=7)
    frames = pool(tmp_path, ([first, second], 1.0))
    assert (len(frames), frames.digests) == (2, ["digest of a", "digest of b"])
    np.testing.assert_array_equal(whole(frames, 0), first.pixels)
    np.testing.assert_array_equal(whole(frames, 1), second.pixels)


@pytest.mark.parametrize(
    ("height", "width", "kept"),
    [
        (64, 96, (64, 96)),
        (LONGEST_SIDE, 512, (LONGEST_SIDE, 512)),
        (2 * LONGEST_SIDE, 600, (LONGEST_SIDE, 300)),
        (300, 4 * LONGEST_SIDE, (75, LONGEST_SIDE)),
        (1, 1, (1, 1)),
        (1, 3 * LONGEST_SIDE, (1, LONGEST_SIDE)),
    ],
)
def test_longest_side_is_bounded(height: int, width: int, kept: tuple[int, int], tmp_path: Path) -> None:
    frames = pool(tmp_path, ([picture("a", height, width, level=9)], 1.0))
    assert frames.size(0) == kept
    assert whole(frames, 0).shape == (*kept, 3)


@pytest.mark.parametrize(
    ("wanted", "rows"),
    [
        (400, 200),  # more than there is: the frame itself
        (200, 200),
        (101, 200),  # half of it would be one row short
        (100, 100),
        (51, 100),
        (50, 50),
        (26, 50),
        (25, 25),
        (3, 25),  # the next half would be under 24 pixels, and is not kept
    ],
)
def test_crop_is_from_the_smallest_level_that_has_the_rows(wanted: int, rows: int, tmp_path: Path) -> None:
    assert SMALLEST_SIDE == 24
    frames = pool(tmp_path, ([picture("a", 200, 300)], 1.0))
    crop = frames.crop(0, (0, 0), (200, 300), wanted)
    assert crop.shape == (rows, rows * 3 // 2, 3)


@pytest.mark.parametrize("wanted", [80, 40, 20])
def test_every_level_shows_the_same_part(wanted: int, tmp_path: Path) -> None:
    """Rows 100 to 180 of 200 and columns 30 to 150 of 300, at three scales."""
    crop = pool(tmp_path, ([picture("a", 200, 300)], 1.0)).crop(0, (100, 30), (80, 120), wanted)
    red, green = crop[..., 0].astype(int), crop[..., 1].astype(int)
    pixel = 255 / crop.shape[0]  # of the ramp, generously
    assert crop.shape[0] == wanted
    np.testing.assert_allclose([red.min(), red.max()], [100 / 200 * 255, 180 / 200 * 255], atol=pixel)
    np.testing.assert_allclose([green.min(), green.max()], [30 / 300 * 255, 150 / 300 * 255], atol=pixel)


def test_crop_at_the_edge_is_never_empty(tmp_path: Path) -> None:
    frames = pool(tmp_path, ([picture("a", 200, 300)], 1.0))
    assert frames.crop(0, (199.9, 299.9), (0.1, 0.1), 1).shape == (1, 1, 3)


def test_groups_are_drawn_by_weight_whatever_their_size(tmp_path: Path) -> None:
    """One picture of weight 3 comes three times as often as ten of weight 1 together."""
    many = [picture(str(number), level=number) for number in range(10)]
    frames = pool(tmp_path, (many, 1.0), ([picture("one", level=200)], 3.0))
    random = np.random.default_rng(0)
    drawn = np.bincount([frames.draw(random) for _ in range(4000)], minlength=11)
    assert drawn[10] / 4000 == pytest.approx(0.75, abs=0.03)
    np.testing.assert_allclose(drawn[:10] / 4000, 0.025, atol=0.012)


def test_draws_repeat_with_the_random_state(tmp_path: Path) -> None:
    frames = pool(tmp_path, ([picture(str(number), level=number) for number in range(10)], 1.0))
    draws = [[frames.draw(random) for _ in range(20)] for random in map(np.random.default_rng, (5, 5, 6))]
    assert draws[0] == draws[1] != draws[2]


def test_no_frames_at_all_are_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="group 2 of the training frames holds no picture that can be read"):
        write([Group([picture("a")], 1.0), Group([], 1.0)], tmp_path)
    assert not (tmp_path / INDEX_FILE).exists()


def test_skipped_names_are_kept_even_when_found_while_reading(tmp_path: Path) -> None:
    skipped: list[str] = []

    def reading() -> list[NamedPicture]:
        skipped.append("broken.png")
        return [picture("a")]

    write([Group((one for _ in "once" if not skipped for one in reading()), 1.0)], tmp_path, skipped)
    assert FramePool(tmp_path).skipped == ["broken.png"]
