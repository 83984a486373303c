"""Losses against labels: outputs that minimise them decode to the very boxes, and only what is known counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from lathe.detections import Detections
from lathe_compression.label_losses import LABEL_LOSSES
from lathe_compression.labels import Objects
from lathe_server.vision import decoders

WANTED = np.array([(8, 12, 40, 36), (60, 20, 90, 60)], np.float32)
CLASSES = np.array([0, 1])
ALL = np.array([(0, 0, 96, 64)], np.float32)
NOWHERE = np.empty((0, 4), np.float32)


def heads() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    shapes = {"heatmap": (1, 1, 16, 24), "scale": (1, 2, 16, 24), "offset": (1, 2, 16, 24)}
    return {name: 0.1 * torch.randn(*shape, generator=random) for name, shape in shapes.items()}


def heatmap_outputs(raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {**raw, "heatmap": torch.sigmoid(raw["heatmap"] - 2)}


def candidates() -> dict[str, Tensor]:
    """A box of 24 pixels at each place of a grid of 8."""
    y, x = torch.meshgrid(torch.arange(4, 64, 8), torch.arange(4, 96, 8), indexing="ij")
    middles = torch.stack([x.flatten(), y.flatten()], dim=1).float()
    return {"boxes": torch.cat([middles - 12, middles + 12], dim=1)[None], "scores": torch.zeros(1, len(middles), 2)}


def boxes_outputs(raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {"boxes": raw["boxes"], "scores": torch.sigmoid(raw["scores"] - 2)}


CASES = {"heatmap": (heads, heatmap_outputs, 0.1), "boxes": (candidates, boxes_outputs, 0.2)}


def fitted(decoder: str, objects: Objects) -> Detections:
    """What outputs decode to that were moved until the loss was small."""
    start, outputs, rate = CASES[decoder]
    raw = {name: value.requires_grad_() for name, value in start().items()}
    optimiser = torch.optim.Adam(raw.values(), lr=rate)
    for _ in range(400):
        optimiser.zero_grad()
        LABEL_LOSSES[decoder](outputs(raw), [objects]).backward()
        optimiser.step()
    arrays = {name: value.detach().numpy() for name, value in outputs(raw).items()}
    landmarks = np.zeros((1, 10, 16, 24), np.float32)
    decode: Callable[..., Detections] = getattr(decoders, decoder)
    return decode(arrays | ({"landmarks": landmarks} if decoder == "heatmap" else {}), 0.5)


@pytest.mark.parametrize("decoder", CASES)
def test_smallest_loss_decodes_to_the_labels(decoder: str) -> None:
    classes = CLASSES if decoder == "boxes" else np.zeros(2, np.int64)
    found = fitted(decoder, Objects(WANTED, classes, ALL, NOWHERE))
    for box, kind in zip(WANTED, classes, strict=True):
        near = [n for n, one in enumerate(found.xyxy) if np.abs(one - box).max() < 1.5]
        assert near, (decoder, found.xyxy)
        assert {int(found.class_id[n]) for n in near} == {kind}
    assert all(min(np.abs(one - box).max() for box in WANTED) < 6 for one in found.xyxy)  # and nothing else


@pytest.mark.parametrize("decoder", CASES)
def test_only_what_is_known_counts(decoder: str) -> None:
    """Everything is found everywhere: a mistake where it is known that nothing is there, and only there."""
    start, outputs, _ = CASES[decoder]

    def lost(known: np.ndarray, unsure: np.ndarray = NOWHERE) -> tuple[float, Tensor]:
        raw = start()
        name = "heatmap" if decoder == "heatmap" else "scores"
        score = (raw[name] + 4).requires_grad_()
        loss = LABEL_LOSSES[decoder](outputs(raw | {name: score}), [Objects(NOWHERE, CLASSES[:0], known, unsure)])
        loss.backward()
        assert score.grad is not None
        return float(loss.detach()), score.grad

    whole, everywhere = lost(ALL)
    half, left = lost(np.array([(0, 0, 48, 64)], np.float32))
    assert half == pytest.approx(whole / 2, rel=0.05)
    assert int((left != 0).sum()) == int((everywhere != 0).sum()) / 2
    assert lost(NOWHERE)[0] == 0
    assert lost(ALL, unsure=ALL)[0] == 0
    assert lost(ALL, unsure=np.array([(48, 0, 96, 64)], np.float32))[0] == pytest.approx(half)


@pytest.mark.parametrize("decoder", CASES)
def test_scenes_of_a_batch_count_each_with_its_own_labels(decoder: str) -> None:
    start, outputs, _ = CASES[decoder]
    one = outputs(start())
    two = {name: torch.cat([value, value]) for name, value in one.items()}
    labels = Objects(WANTED, np.zeros(2, np.int64), ALL, NOWHERE)
    alone = LABEL_LOSSES[decoder](one, [labels])
    assert float(LABEL_LOSSES[decoder](two, [labels, labels])) == pytest.approx(float(alone), rel=1e-4)
    assert float(LABEL_LOSSES[decoder](two, [labels, Objects.none()])) == pytest.approx(float(alone), rel=1e-4)
