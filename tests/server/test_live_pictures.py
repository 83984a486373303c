"""What the live page shows of a frame: boxes sit where they belong, and blurred is gone for good."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lathe_server.live.pictures import CELLS, COARSE_SIDE, ENLARGED, MAX_SIDE, blurred_jpeg, plain_jpeg
from lathe_server.vision import Detector, EncodedPicture, Picture, RawPicture
from tests.pictures import jpeg, png, scene, with_orientation

BOX = np.array([[200, 120, 360, 300]], np.float32)
NO_BOX = np.empty((0, 4), np.float32)


def pixels_of(file: bytes) -> NDArray[np.uint8]:
    """RGB as stored, without regard to what EXIF says: the page's style asks for that."""
    decoded = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    assert decoded is not None
    return decoded.astype(np.uint8)


def within(pixels: NDArray[np.uint8], box: NDArray[np.float32], frame_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """What lies in a box that is given in pixels of the frame."""
    height, width = pixels.shape[:2]
    left, top, right, bottom = (box * np.array((width, height, width, height)) / np.array(frame_wh * 2)).round()
    return pixels[int(top) : int(bottom), int(left) : int(right)]


def detail(pixels: NDArray[np.uint8]) -> float:
    """Mean absolute second derivative, which is what makes a face a face, on the scale of a 640-pixel picture."""
    grey = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
    return float(np.abs(cv2.Laplacian(grey, cv2.CV_64F)).mean())


def grainy(seed: int) -> NDArray[np.uint8]:
    """640×480 of fine structure everywhere."""
    dice = np.random.default_rng(seed)
    return cv2.resize(dice.integers(0, 256, (240, 320, 3), np.uint8), (640, 480), interpolation=cv2.INTER_NEAREST)


def test_blurring_leaves_a_handful_of_colours_in_a_box() -> None:
    file = jpeg(grainy(1), cv2.IMWRITE_JPEG_QUALITY, 95)
    shown = pixels_of(blurred_jpeg(EncodedPicture(file), BOX[0:1]))
    inside = within(shown, BOX[0], (640, 480))
    back = cv2.resize(inside, (160, 180), interpolation=cv2.INTER_AREA)
    assert detail(within(pixels_of(file), BOX[0], (640, 480))) > 30 * detail(back)
    # Cells are flat but for what JPEG adds: as many steps across as there are cells, and no more.
    steps = (np.abs(np.diff(inside.astype(int).sum(axis=2), axis=1)) > 12).any(axis=0).sum()
    assert steps <= CELLS * 2  # JPEG smears an edge over its neighbour


def test_two_pictures_that_differ_in_a_box_by_their_detail_alone_come_out_alike() -> None:
    """So the detail cannot be had back, by whatever means: it is in neither file."""
    before, after = grainy(1), grainy(1)
    dice = np.random.default_rng(2)
    for top in range(120, 300, 60):  # shuffles pixels within areas that are smaller than a cell
        for left in range(200, 360, 40):
            area = after[top : top + 20, left : left + 20].reshape(-1, 3)
            dice.shuffle(area)
            after[top : top + 20, left : left + 20] = area.reshape(20, 20, 3)
    raw = [RawPicture(640, 480, 0, "rgb8", one.tobytes()) for one in (before, after)]
    changed = np.abs(before.astype(int) - after).max(axis=2) > 32
    assert changed.mean() > 0.01
    shown = [pixels_of(blurred_jpeg(one, BOX)).astype(int) for one in raw]
    assert np.abs(shown[0] - shown[1]).max() <= 32
    assert np.abs(shown[0] - shown[1]).mean() < 1


def test_beside_the_boxes_a_blurred_picture_is_coarse_because_networks_miss_faces() -> None:
    for wide, high in ((640, 480), (1920, 1080), (200, 150)):
        file = EncodedPicture(jpeg(scene(wide, high)))
        shown = pixels_of(blurred_jpeg(file, NO_BOX))
        height, width = shown.shape[:2]
        assert (width // ENLARGED, width % ENLARGED) == (min(COARSE_SIDE, wide // 4), 0)
        assert height / width == pytest.approx(high / wide, rel=0.03)
    fine = EncodedPicture(jpeg(grainy(3)))
    again = cv2.resize(pixels_of(blurred_jpeg(fine, NO_BOX)), (640, 480), interpolation=cv2.INTER_AREA)
    assert detail(pixels_of(fine.data)) > 30 * detail(again)


def test_nothing_sharp_stands_at_the_rim_of_a_box_or_beyond_the_picture() -> None:
    file = EncodedPicture(jpeg(grainy(4)))
    boxes = np.array([[-50, -50, 20, 20], [630, 470, 900, 900], [0, 0, 640, 480], [5, 5, 5, 5]], np.float32)
    for box in boxes:
        shown = pixels_of(blurred_jpeg(file, box[None]))
        assert detail(cv2.resize(shown, (640, 480), interpolation=cv2.INTER_AREA)) < detail(pixels_of(file.data)) / 10
    assert pixels_of(blurred_jpeg(file, boxes)).shape == (72 * ENLARGED, 96 * ENLARGED, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["plain", "blurred"])
def test_boxes_sit_right_on_rotated_pictures(detector: Detector, orientation: int, mode: str) -> None:
    pixels = np.zeros((480, 640, 3), np.uint8)
    pixels[96:160, 128:192] = 255  # off both middles, so that no turn hides behind another
    picture = EncodedPicture(with_orientation(jpeg(pixels), orientation))
    found = detector.detect(picture).detections.xyxy
    assert len(found)
    frame_wh = (640, 480) if orientation < 5 else (480, 640)
    shown = pixels_of(plain_jpeg(picture) if mode == "plain" else blurred_jpeg(picture, found))
    assert (shown.shape[1] > shown.shape[0]) == (orientation < 5)
    for box in found:
        assert within(shown, box, frame_wh).mean() > 10 * shown.mean()


def pictures() -> dict[str, Picture]:
    photo = scene()
    height, width = photo.shape[:2]
    return {
        "jpeg": EncodedPicture(jpeg(photo)),
        "grey jpeg": EncodedPicture(jpeg(photo[..., 0])),
        "png": EncodedPicture(png(photo)),
        "16-bit png": EncodedPicture(png(photo.astype(np.uint16) * 257)),
        "rgb8": RawPicture(width, height, 0, "rgb8", photo.tobytes()),
        "bgr8": RawPicture(width, height, 0, "bgr8", photo[..., ::-1].tobytes()),
        "gray8": RawPicture(width, height, width, "gray8", photo[..., 0].tobytes()),
        "with a stride": RawPicture(width - 8, height, width * 3, "rgb8", photo.tobytes()),
        "a pixel": RawPicture(1, 1, 0, "rgb8", b"abc"),
        "a line": RawPicture(300, 1, 0, "gray8", bytes(300)),
    }


@pytest.mark.parametrize("kind", pictures())
def test_every_kind_of_picture_is_shown_in_both_ways(kind: str) -> None:
    picture = pictures()[kind]
    sharp = pixels_of(plain_jpeg(picture))
    blurred = pixels_of(blurred_jpeg(picture, BOX / 4))
    assert np.abs(sharp.mean(axis=(0, 1)) - blurred.mean(axis=(0, 1))).max() < 12, "the same colours"


def test_a_jpeg_goes_out_as_it_came_and_what_is_encoded_anew_is_no_larger_than_a_screen() -> None:
    file = jpeg(scene())
    assert plain_jpeg(EncodedPicture(file)) == file
    large = RawPicture(4000, 1000, 0, "gray8", bytes(4_000_000))
    assert pixels_of(plain_jpeg(large)).shape == (MAX_SIDE // 4, MAX_SIDE, 3)
