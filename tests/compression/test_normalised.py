"""Mean and std in the weights: the same answers, and bytes that feed the INT8 graph as they are."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from lathe_compression.export import Normalisation, export
from lathe_compression.hygiene import clean
from lathe_compression.int8_layout import regroup_stem
from lathe_compression.normalised import fold_normalisation
from lathe_compression.quantize import Quantize, assert_int8_kernels, quantize
from tests.compression.graphs import count, pixels, run
from tests.compression.networks import exported

EQUAL_WHOLE = Normalisation((104.0,) * 3, (57.0, 58.0, 59.0))
EQUAL = Normalisation((127.5,) * 3, (128.0,) * 3)
UNLIKE = Normalisation((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


def folded(normalisation: Normalisation) -> tuple[onnx.ModelProto, onnx.ModelProto, str]:
    before = clean(exported(normalisation))[0]
    after = onnx.ModelProto()
    after.CopyFrom(before)
    done = fold_normalisation(after)
    onnx.checker.check_model(after)
    return before, after, done


@pytest.mark.parametrize("regrouped", [False, True])
@pytest.mark.parametrize("normalisation", [EQUAL_WHOLE, UNLIKE], ids=["equal whole means", "unlike means"])
def test_the_network_computes_the_same_to_the_border(normalisation: Normalisation, regrouped: bool) -> None:
    before, after, _ = folded(normalisation)
    if regrouped:
        assert regroup_stem(after)
        onnx.checker.check_model(after)
    for size in ((64, 96), (96, 32)):
        picture = pixels(*size, batch=2)
        for one, other in zip(run(before, picture), run(after, picture), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("regrouped", [False, True])
def test_a_mean_between_two_whole_numbers_touches_the_border_alone(regrouped: bool) -> None:
    """By no more than half a pixel value would."""
    before, after, done = folded(EQUAL)
    assert "its border a pixel of 128" in done
    if regrouped:
        assert regroup_stem(after)
    picture = pixels(96, 128)
    for one, other in zip(run(before, picture), run(after, picture), strict=True):
        difference = np.abs(one - other)
        assert difference[:, :, 3:, 3:].max() < 1e-5
        assert difference.max() < 1e-3


@pytest.mark.parametrize("normalisation", [EQUAL_WHOLE, EQUAL, UNLIKE], ids=["equal whole", "equal", "unlike"])
def test_pixels_feed_the_int8_convolution_as_they_are(normalisation: Normalisation) -> None:
    before = clean(exported(normalisation))[0]
    model, done = quantize(before, Quantize(), [pixels(64, 96, seed=n) for n in range(3)], 32)
    assert "layout: pixels feed the first convolution as they are" in done
    assert "layout: the stem takes 4 pixels at a time" in done
    assert not any(count(model, kind) for kind in ("Cast", "Sub", "Div"))
    assert assert_int8_kernels(model) == count(model, "Conv")
    picture = pixels(64, 96, seed=9)
    for ours, reference in zip(run(model, picture), run(before, picture), strict=True):
        error = np.sqrt(np.mean((ours - reference) ** 2))
        assert error < 0.03 * max(1.0, float(np.ptp(reference)))


def test_a_picture_of_the_border_stays_exact_in_int8() -> None:
    """A black picture, whose border is brightest against it: the marked border is not mistaken for black."""
    before = clean(exported(UNLIKE))[0]
    calibration = [np.zeros((1, 64, 96, 3), np.uint8), pixels(64, 96)]
    model, _ = quantize(before, Quantize(), calibration, 32)
    for ours, reference in zip(run(model, calibration[0]), run(before, calibration[0]), strict=True):
        assert np.abs(ours - reference).max() < 0.05 * max(1.0, float(np.ptp(reference)))


def test_without_padding_nothing_is_left_to_do() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    before = export(network.eval(), UNLIKE, ("y",), 8)
    after = onnx.ModelProto()
    after.CopyFrom(before)
    assert fold_normalisation(after) == "layout: normalisation in the weights of the first convolution"
    assert not any(count(after, kind) for kind in ("Sub", "Div", "Pad"))
    picture = pixels(16, 24)
    np.testing.assert_allclose(run(before, picture)[0], run(after, picture)[0], atol=1e-5)


def test_other_fronts_are_left_alone() -> None:
    plain = clean(exported())[0]
    assert fold_normalisation(plain) == ""
    normalised = clean(exported(UNLIKE))[0]
    first = next(node.name for node in normalised.graph.node if node.op_type == "Conv")
    assert fold_normalisation(normalised, kept=[first]) == ""
    picture_too = onnx.ModelProto()
    picture_too.CopyFrom(normalised)
    divided = next(node.output[0] for node in normalised.graph.node if node.op_type == "Div")
    picture_too.graph.node.append(onnx.helper.make_node("Relu", [divided], ["relu_of_picture"]))
    assert fold_normalisation(picture_too) == ""
