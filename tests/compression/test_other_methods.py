"""16-bit floats, dynamic quantization, and settings that cannot be."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from lathe.errors import BadVariant, InvalidInput
from lathe_compression.export import Normalisation, export
from lathe_compression.half import HALF_TOLERANCE
from lathe_compression.hygiene import clean
from lathe_compression.quantize import Quantize, optimised_operators, quantize
from tests.compression.graphs import pixels, run
from tests.compression.networks import exported

CALIBRATION = [pixels(32, 64, seed=n) for n in range(3)]


@pytest.fixture(scope="module")
def fp32() -> onnx.ModelProto:
    return clean(exported())[0]


def test_fp16_halves_the_weights_and_agrees(fp32: onnx.ModelProto) -> None:
    model, done = quantize(fp32, Quantize(method="fp16"), CALIBRATION, 32)
    assert done == ["quantize: fp16, 16-bit floats, pixels uint8, outputs float32"]
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert {output.type.tensor_type.elem_type for output in model.graph.output} == {TensorProto.FLOAT}
    weights = [tensor for tensor in model.graph.initializer if len(tensor.dims) == 4]
    assert weights
    assert {tensor.data_type for tensor in weights} == {TensorProto.FLOAT16}
    picture = pixels(96, 32, seed=9)
    for ours, reference in zip(run(model, picture), run(fp32, picture), strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, reference, atol=HALF_TOLERANCE * max(1.0, float(np.abs(reference).max())))


def test_activations_beyond_16_bit_floats_are_told(fp32: onnx.ModelProto) -> None:
    loud = onnx.ModelProto()
    loud.CopyFrom(fp32)
    kernel = next(tensor for tensor in loud.graph.initializer if list(tensor.dims)[1:] == [3, 3, 3])
    kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel) * 1e4, kernel.name))
    with pytest.raises(BadVariant, match=r"16-bit floats end at 65504, and .* goes to"):
        quantize(loud, Quantize(method="fp16"), CALIBRATION, 32)


class Embedder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.last = nn.Linear(8, 16)

    def forward(self, planes: Tensor) -> Tensor:
        last: Tensor = self.last(torch.relu(self.stem(planes / 255)).mean((2, 3)))
        return last


@pytest.fixture(scope="module")
def embedder() -> onnx.ModelProto:
    torch.manual_seed(0)
    return clean(export(Embedder().eval(), Normalisation(), ("y",), 32))[0]


def test_dynamic_quantizes_matrix_products(embedder: onnx.ModelProto) -> None:
    model, done = quantize(embedder, Quantize(method="dynamic"), CALIBRATION, 32)
    assert done == ["quantize: dynamic, matrix products, 8-bit weights"]
    assert any(tensor.data_type == TensorProto.INT8 and 16 in tensor.dims for tensor in model.graph.initializer)
    operators = optimised_operators(model)
    assert operators["Gemm"] == operators["QLinearConv"] == 0
    picture = pixels(32, 64, seed=9)
    np.testing.assert_allclose(run(model, picture)[0], run(embedder, picture)[0], atol=0.02)


def test_static_quantizes_matrix_products_too(embedder: onnx.ModelProto) -> None:
    """With a float result, which is the network's answer."""
    model, _ = quantize(embedder, Quantize(), CALIBRATION, 32)
    operators = optimised_operators(model)
    assert operators["QGemm"] == operators["QLinearConv"] == 1
    picture = pixels(32, 64, seed=9)
    np.testing.assert_allclose(run(model, picture)[0], run(embedder, picture)[0], atol=0.02)


def test_dynamic_of_convolutions_alone_is_refused(fp32: onnx.ModelProto) -> None:
    with pytest.raises(InvalidInput, match=r'only matrix products .* for convolutions say method = "ptq"'):
        quantize(fp32, Quantize(method="dynamic"), CALIBRATION, 32)


def test_no_calibration_is_told(fp32: onnx.ModelProto) -> None:
    with pytest.raises(InvalidInput, match="needs calibration pictures"):
        quantize(fp32, Quantize(), [], 32)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"percentile": 100.1}, "percentile must be"),
        ({"percentile": 50.0}, "percentile must be"),
        ({"max_loss": 0.0}, "max_loss must be above 0"),
        ({"method": "dynamic", "per_channel": False}, 'per_channel is of "ptq" and "qat"'),
        ({"slower": -0.1}, "slower not negative"),
        ({"method": "fp16", "float_layers": ("a",)}, "are of INT8"),
        ({"method": "dynamic", "mixed": True}, 'mixed is of "ptq" and "qat"'),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Quantize(**settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "ptq, U8S8 per channel, 8-bit weights, minmax ranges"),
        ({"range": "percentile", "percentile": 99.9}, "99.9 % ranges"),
        (
            {"method": "qat", "range": "entropy"},
            "qat, U8S8 per channel, 8-bit weights, learnt ranges, else entropy ranges",
        ),
        ({"method": "dynamic", "reduce_range": True}, "dynamic, matrix products, 7-bit weights"),
    ],
)
def test_a_step_describes_itself(settings: dict[str, Any], words: str) -> None:
    assert words in Quantize(**settings).describe()
