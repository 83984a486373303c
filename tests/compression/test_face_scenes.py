"""Training scenes of faces: the same for the same number, and no farther from their place than they are told."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lathe_compression.face_scenes import face_scene, margin_of
from lathe_compression.frames import FramePool, Group, write
from lathe_compression.pictures import NamedPicture
from lathe_compression.scenes import Augment

SIZE_WH = (60, 60)
MARGIN = margin_of(SIZE_WH)
STILL = Augment(colour=0, grey=0, blur=0, jpeg=0, flip=False, scale=0, turn=0, shift=0)


def face(seed: int) -> NDArray[np.uint8]:
    side = SIZE_WH[0] + 2 * MARGIN
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> FramePool:
    folder = tmp_path_factory.mktemp("faces")
    write([Group([NamedPicture(str(seed), f"{seed:064x}", face(seed)) for seed in range(3)], 1.0)], folder)
    return FramePool(folder)


def made(pool: FramePool, number: int = 0, augment: Augment | None = None, seed: int = 1) -> NDArray[np.uint8]:
    return face_scene(pool, augment or Augment(), SIZE_WH, seed, number).pixels


def test_same_number_and_seed_give_the_same_bytes_and_others_another_scene(pool: FramePool) -> None:
    scenes = [made(pool, number, seed=seed).tobytes() for number in range(6) for seed in (1, 2)]
    assert scenes == [made(pool, number, seed=seed).tobytes() for number in range(6) for seed in (1, 2)]
    assert len(set(scenes)) == 12
    assert made(pool).shape == (60, 60, 3)


def test_without_change_a_scene_is_a_face_in_its_place(pool: FramePool) -> None:
    inner = [face(seed)[MARGIN:-MARGIN, MARGIN:-MARGIN] for seed in range(3)]
    for number in range(6):
        scene = made(pool, number, STILL)
        assert min(np.abs(scene.astype(int) - one).max() for one in inner) <= 1


def test_faces_are_mirrored_half_of_the_time(pool: FramePool) -> None:
    augment = Augment(colour=0, grey=0, blur=0, jpeg=0, scale=0, turn=0, shift=0)
    inner = [face(seed)[MARGIN:-MARGIN, MARGIN:-MARGIN] for seed in range(3)]
    mirrored = [
        min(np.abs(made(pool, number, augment).astype(int) - one[:, ::-1]).max() for one in inner) <= 1
        for number in range(40)
    ]
    assert 10 <= sum(mirrored) <= 30


@pytest.mark.parametrize("change", [{"scale": 0.1}, {"turn": 10.0}, {"shift": 0.05}])
def test_faces_leave_their_place_as_far_as_they_are_told(change: dict[str, float], pool: FramePool) -> None:
    """What is found by registration of the scene on the face that it was made of."""
    augment = Augment(colour=0, grey=0, blur=0, jpeg=0, flip=False, **({"scale": 0, "turn": 0, "shift": 0} | change))
    found = []
    for number in range(12):
        scene = cv2.cvtColor(made(pool, number, augment), cv2.COLOR_RGB2GRAY)
        best = None
        for seed in range(3):
            inner = cv2.cvtColor(face(seed)[MARGIN:-MARGIN, MARGIN:-MARGIN], cv2.COLOR_RGB2GRAY)
            matrix = np.eye(2, 3, dtype=np.float32)
            try:
                score, matrix = cv2.findTransformECC(inner, scene, matrix, cv2.MOTION_AFFINE)
            except cv2.error:  # another face
                continue
            best = max(best or (0.0, None), (score, matrix), key=lambda one: one[0])
        assert best
        (a, b, _), (c, d, _) = best[1]
        centre = best[1] @ (29.5, 29.5, 1) - 29.5
        found.append((abs(np.sqrt(a * d - b * c) - 1), abs(np.degrees(np.arctan2(c - b, a + d))), np.abs(centre).max()))
    scale, turn, shift = np.array(found).max(0)
    limits = {"scale": scale, "turn": turn, "shift": shift / 60}
    for name, value in limits.items():
        if name in change:
            assert 0.4 * change[name] < value < 1.2 * change[name]
        else:
            assert value < {"scale": 0.02, "turn": 1.0, "shift": 0.01}[name]


def test_mixed_faces_are_two_in_one(pool: FramePool) -> None:
    """Each pixel lies between those of two faces, of which one may be mirrored; in some scenes one face is seen through
    the other everywhere alike, in others parts of the one are in the other."""
    augment = Augment(colour=0, grey=0, blur=0, jpeg=0, flip=False, scale=0, turn=0, shift=0, mix=1.0)
    inner = [face(seed)[MARGIN:-MARGIN, MARGIN:-MARGIN].astype(int) for seed in range(3)]
    spreads = []
    for number in range(40):
        scene = made(pool, number, augment).astype(int)
        pairs = [(one, other) for one in inner for seen in inner for other in (seen, seen[:, ::-1]) if one is not other]
        outside = [
            np.maximum(np.minimum(one, other) - scene, scene - np.maximum(one, other)).max() for one, other in pairs
        ]
        assert min(outside) <= 1
        one, other = pairs[int(np.argmin(outside))]
        differs = np.abs(one - other) > 60
        spreads.append(float(np.std(((scene - other) / np.where(differs, one - other, 1))[differs])))
    assert 8 <= sum(spread < 0.02 for spread in spreads) <= 32


def test_bent_faces_keep_their_place_and_change_their_shape(pool: FramePool) -> None:
    """Each is still nearest to the face that it was, and no two of the same face are bent alike."""
    augment = Augment(colour=0, grey=0, blur=0, jpeg=0, flip=False, scale=0, turn=0, shift=0, bend=0.05)
    inner = [face(seed)[MARGIN:-MARGIN, MARGIN:-MARGIN].astype(int) for seed in range(3)]
    scenes = [made(pool, number, augment).astype(int) for number in range(20)]
    differences = [min(np.abs(scene - one).mean() for one in inner) for scene in scenes]
    assert float(np.median(differences)) > 2
    assert max(differences) < np.abs(inner[0] - inner[1]).mean() / 2
    assert len({scene.tobytes() for scene in scenes}) > 15


@pytest.mark.parametrize("wrong", [{"mix": 1.1}, {"mix": -0.1}, {"bend": 0.5}, {"bend": -0.1}])
def test_mixes_and_bends_have_bounds(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="mix must be from 0 to 1, and bend from 0 to below"):
        Augment(**wrong)  # type: ignore[arg-type]
