"""Scenes depend on their number and seed alone, fill the canvas, and differ as they are asked to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lathe_compression.frames import FramePool, Group, write
from lathe_compression.labels import Objects
from lathe_compression.scenes import Augment, scene, split
from tests.compression.test_frames import picture

NO_ZOOM = 1.0001
PLAIN = Augment(colour=0, grey=0, blur=0, jpeg=0, flip=False)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> FramePool:
    folder = tmp_path_factory.mktemp("frames")
    write([Group([picture("a", 200, 300), picture("b", 90, 60), picture("c", 25, 25)], 1.0)], folder)
    return FramePool(folder)


def made(pool: FramePool, number: int = 0, seed: int = 1, augment: Augment | None = None) -> NDArray[np.uint8]:
    return scene(pool, augment or Augment(), (96, 64), seed, number).pixels


def test_same_number_and_seed_give_the_same_bytes(pool: FramePool) -> None:
    for number in range(10):
        assert made(pool, number).tobytes() == made(pool, number).tobytes()


def test_other_number_or_seed_gives_another_scene(pool: FramePool) -> None:
    scenes = {made(pool, number, seed).tobytes() for number in range(8) for seed in (1, 2)}
    assert len(scenes) == 16


def test_scenes_are_pictures_of_the_asked_size(pool: FramePool) -> None:
    for number in range(10):
        pixels = made(pool, number)
        assert (pixels.shape, pixels.dtype) == ((64, 96, 3), np.uint8)


@pytest.mark.parametrize("cell", [8, 24, 30.5, 64, 400])
@pytest.mark.parametrize("size", [(320, 256), (97, 33), (8, 500)])
def test_cells_tile_the_canvas_exactly(cell: float, size: tuple[int, int]) -> None:
    covered = np.zeros(size[::-1], int)
    for left, top, right, bottom in split((0, 0, *size), cell, np.random.default_rng(0)):
        assert 0 < max(right - left, bottom - top) <= 1.5 * cell
        covered[top:bottom, left:right] += 1
    assert covered.min() == covered.max() == 1


def test_large_cell_is_the_whole_canvas() -> None:
    assert list(split((0, 0, 96, 64), 64, np.random.default_rng(0))) == [(0, 0, 96, 64)]


def test_small_cells_show_more_frames(pool: FramePool) -> None:
    """The ramps are smooth: every edge is a border between cells."""

    def edges(cells: tuple[float, float]) -> float:
        steps = [
            np.abs(np.diff(made(pool, n, 1, Augment(cells, NO_ZOOM, 0, 0, 0, 0)).astype(int), axis=1)) for n in range(8)
        ]
        return float((np.stack(steps).max(axis=-1) > 25).mean())

    assert edges((8, 8)) > 3 * edges((48, 48)) > 0


def test_zoom_enlarges_crops_so_that_less_of_a_frame_is_seen(pool: FramePool) -> None:
    def seen(zoom: float) -> float:
        spans = [
            np.ptp(made(pool, n, 1, Augment((90, 96), zoom, 0, 0, 0, 0)), axis=(0, 1))[:2].max() for n in range(12)
        ]
        return float(np.mean(spans))

    assert seen(NO_ZOOM) > 200 > 150 > seen(8.0)


def test_crops_may_be_as_large_as_their_frames(pool: FramePool) -> None:
    for number in range(40):
        made(pool, number, augment=Augment((8, 96), 1.0))


@pytest.mark.parametrize("number", range(4))
def test_grey_scenes_have_no_colour(number: int, pool: FramePool) -> None:
    grey = made(pool, number, augment=Augment(colour=0, grey=1, blur=0, jpeg=0)).astype(int)
    colour = made(pool, number, augment=PLAIN).astype(int)
    assert np.ptp(grey, axis=-1).max() <= 1
    assert np.ptp(colour, axis=-1).max() > 30


def test_without_any_spread_colours_stay(tmp_path: Path) -> None:
    write([Group([picture("a", level=90)], 1.0)], tmp_path)
    pixels = made(FramePool(tmp_path), augment=PLAIN)
    assert (pixels == 90).all()


def test_colours_spread_as_far_as_asked(tmp_path: Path) -> None:
    write([Group([picture("a", level=128)], 1.0)], tmp_path)
    frames = FramePool(tmp_path)
    levels = [made(frames, number, augment=Augment(colour=0.25, blur=0, jpeg=0)).mean() for number in range(60)]
    assert 15 < np.std(levels) < 40
    assert np.mean(levels) == pytest.approx(128, abs=12)


def test_flips_mirror_half_of_the_crops(pool: FramePool) -> None:
    """Green rises to the right in every frame, and falls where it is mirrored."""
    one = Augment((96, 96), NO_ZOOM, 0, 0, 0, 0)
    rising = [
        int(pixels[:, -5:, 1].mean() > pixels[:, :5, 1].mean()) for pixels in (made(pool, n, 1, one) for n in range(60))
    ]
    assert 15 < sum(rising) < 45


def test_blur_softens_and_jpeg_alters(pool: FramePool) -> None:
    def roughness(pixels: NDArray[np.uint8]) -> float:
        return float(np.abs(np.diff(pixels.astype(int), axis=0)).mean())

    cells = (8.0, 16.0)
    plain = [made(pool, n, augment=Augment(cells, NO_ZOOM, 0, 0, 0, 0, False)) for n in range(6)]
    blurred = [made(pool, n, augment=Augment(cells, NO_ZOOM, 0, 0, 1, 0, False)) for n in range(6)]
    encoded = [made(pool, n, augment=Augment(cells, NO_ZOOM, 0, 0, 0, 1, False)) for n in range(6)]
    assert np.mean([*map(roughness, blurred)]) < 0.9 * np.mean([*map(roughness, plain)])
    for before, after in zip(plain, encoded, strict=True):
        assert 0.5 < np.abs(before.astype(int) - after).mean() < 25


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"cells": (4, 32)}, "cells must be at least 8, the smaller side first"),
        ({"cells": (64, 32)}, "cells must be at least 8, the smaller side first"),
        ({"zoom": 0.5}, "zoom must be at least 1"),
        ({"colour": 1}, "must be from 0 to 1"),
        ({"grey": 1.5}, "must be from 0 to 1"),
        ({"jpeg": -0.1}, "must be from 0 to 1"),
    ],
)
def test_wrong_settings_are_told(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Augment(**wrong)  # type: ignore[arg-type]


def test_labels_stay_on_what_they_are_of(tmp_path: Path) -> None:
    """A red block on blue, wherever and however large it comes out in a mosaic."""
    block = picture("block", 120, 160, level=0)
    block.pixels[..., 2] = 200
    block.pixels[30:70, 50:110] = (250, 0, 0)
    drawn = Objects(
        np.array([[50, 30, 110, 70]], np.float32),
        np.array([2]),
        np.array([[0, 0, 1e6, 1e6]], np.float32),
        np.empty((0, 4), np.float32),
    )
    both = [block, picture("bare", 80, 80, level=60)]
    write([Group(both, 1.0, lambda one: drawn if one is block else None)], tmp_path)
    frames = FramePool(tmp_path)
    augment = Augment((40, 120), 2.0, 0, 0, 0, 0)
    scenes = [scene(frames, augment, (160, 128), 1, number) for number in range(40)]
    boxes = 0
    for one in scenes:
        red = (one.pixels[..., 0] > 150).astype(np.uint8)
        blue = (one.pixels[..., 2] > 150) | (red > 0)
        for left, top, right, bottom in one.objects.xyxy.round().astype(int):
            inner = red[top + 2 : bottom - 2, left + 2 : right - 2]
            assert inner.size == 0 or inner.mean() > 0.95
            boxes += 1
        claimed = np.zeros_like(red, bool)
        for areas in (one.objects.xyxy, one.objects.unsure):
            for left, top, right, bottom in areas:
                claimed[int(max(0, top - 2)) : int(bottom + 3), int(max(0, left - 2)) : int(right + 3)] = True
        assert not (red.astype(bool) & ~claimed).any()  # nothing red that no label speaks of
        known = np.zeros_like(claimed)
        for left, top, right, bottom in one.objects.known.round().astype(int):
            known[top:bottom, left:right] = True
        assert (known == blue).mean() > 0.97  # where red fades into blue is neither
        assert (one.objects.class_id == 2).all()
    assert boxes > 30
    assert sum(len(one.objects.unsure) for one in scenes) > 10
