"""Projections are written differently and compute the same, bit by bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from lathe_compression.projections import MIN_INPUTS, MIN_NARROWING, use_matrix_kernel
from lathe_compression.quantize import Quantize, assert_int8_kernels, quantize
from tests.compression.test_equalize import canvas, run


@pytest.fixture(scope="module")
def plain(face_repository: Path) -> bytes:
    model = onnx.load(face_repository / "face/fp32/1/model.onnx")
    quantized, _ = quantize(model, Quantize(matrix_kernel=False), [canvas(0)], 32)
    return quantized.SerializeToString()


def test_outputs_stay_the_same_bit_by_bit(plain: bytes) -> None:
    model = onnx.load_from_string(plain)
    assert use_matrix_kernel(model) == 16
    assert assert_int8_kernels(model) > 50
    for one, other in zip(run(onnx.load_from_string(plain), canvas(1)), run(model, canvas(1)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_only_projections_with_room_are_rewritten(plain: bytes) -> None:
    model = onnx.load_from_string(plain)
    before = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    use_matrix_kernel(model)
    for tensor in model.graph.initializer:
        after = numpy_helper.to_array(tensor)
        if tensor.name not in before or np.array_equal(before[tensor.name], after):
            continue
        outputs, inputs, *sides = after.shape
        assert sides == [1, 1]
        assert inputs >= max(MIN_INPUTS, MIN_NARROWING * outputs)
        changed = np.flatnonzero((before[tensor.name] != after).any(axis=(1, 2, 3)))
        assert len(changed) == 1
        np.testing.assert_array_equal(after[changed[0]], before[tensor.name][changed[0]] + 1)


def test_a_second_pass_finds_nothing(plain: bytes) -> None:
    model = onnx.load_from_string(plain)
    use_matrix_kernel(model)
    assert use_matrix_kernel(model) == 0
