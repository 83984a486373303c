"""Agreement with the teacher while a student learns."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lathe_compression.watch import CosineWatch, DetectionWatch
from lathe_server.vision.detections import Thresholds
from tests.compression.networks import OUTPUTS, block_detector, planes, shaken, tiny_embedder

THRESHOLDS = Thresholds(0.5, 0.3, 100)


def watch(teacher: nn.Module, thresholds: Thresholds = THRESHOLDS) -> DetectionWatch:
    return DetectionWatch(teacher, OUTPUTS, "heatmap", thresholds, [planes(3), planes(2, seed=1)])


def test_the_teacher_agrees_with_itself_and_another_less() -> None:
    teacher = block_detector()
    whole = watch(teacher)
    assert whole.agreement(block_detector()) == 1
    assert whole.agreement(shaken(teacher)) < 0.9


def test_where_neither_finds_anything_there_is_no_figure() -> None:
    assert math.isnan(watch(block_detector(), Thresholds(1.0, 0.3, 100)).agreement(block_detector()))


@pytest.mark.parametrize("freeze_norms", [True, False])
def test_the_student_learns_on_as_it_was(freeze_norms: bool) -> None:
    student = block_detector().train()
    if freeze_norms:
        for module in student.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    modes = [module.training for module in student.modules()]
    watch(block_detector()).agreement(student)
    assert [module.training for module in student.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_embeddings_are_compared_by_their_cosine() -> None:
    teacher = tiny_embedder()
    found = CosineWatch(teacher, [planes(3, 32, 32), planes(2, 32, 32, seed=1)])
    assert found.agreement(tiny_embedder()) == pytest.approx(1)
    assert found.agreement(shaken(teacher)) < 0.99
