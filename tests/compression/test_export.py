"""The exported graph takes pixels as they are, and computes what numpy and torch compute apart."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from lathe.errors import BadVariant
from lathe_compression.export import INPUT_NAME, Normalisation, export
from tests.compression.graphs import pixels, run
from tests.compression.networks import OUTPUTS, exported, tiny_detector

IMAGENET = Normalisation((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


@pytest.mark.parametrize("normalisation", [Normalisation(), IMAGENET], ids=["identity", "imagenet"])
def test_normalisation_is_in_the_graph(normalisation: Normalisation) -> None:
    picture = pixels(64, 96)
    planes = ((picture - np.array(normalisation.mean)) / np.array(normalisation.std)).transpose(0, 3, 1, 2)
    with torch.no_grad():
        expected = tiny_detector()(torch.from_numpy(planes.astype(np.float32)))
    for ours, theirs in zip(run(exported(normalisation), picture), expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-4)


def test_channels_keep_their_order() -> None:
    """With one output a channel, each shows its own mean and deviation: red is red."""
    normalisation = Normalisation((10.0, 20.0, 30.0), (1.0, 2.0, 4.0))
    model = export(nn.Identity(), normalisation, ["planes"], 2)
    picture = np.broadcast_to(np.array([12, 24, 38], np.uint8), (1, 2, 2, 3)).copy()
    np.testing.assert_array_equal(run(model, picture)[0][0, :, 0, 0], [2.0, 2.0, 2.0])


def test_identity_normalisation_adds_nothing() -> None:
    assert {node.op_type for node in export(nn.ReLU(), Normalisation(), ["y"], 2).graph.node} == {
        "Transpose",
        "Cast",
        "Relu",
    }


def test_input_is_uint8_and_channels_last() -> None:
    (value,) = exported().graph.input
    sides = [side.dim_value or side.dim_param for side in value.type.tensor_type.shape.dim]
    assert value.name == INPUT_NAME
    assert value.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert sides == ["batch", "height", "width", 3]


def test_outputs_carry_their_names() -> None:
    assert [value.name for value in exported().graph.output] == list(OUTPUTS)


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 32, 32), (1, 96, 64), (2, 64, 160), (5, 32, 64)])
def test_sizes_are_free(batch: int, height: int, width: int) -> None:
    heatmap, *_, landmarks = run(exported(), pixels(height, width, batch))
    assert heatmap.shape == (batch, 1, height // 4, width // 4)
    assert landmarks.shape == (batch, 10, height // 4, width // 4)


class _Boxes(nn.Module):
    def forward(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        rows = planes.flatten(2).transpose(1, 2)
        return torch.cat((rows, rows[..., :1]), 2), rows[..., 2:]


def test_lists_of_boxes_may_have_any_length() -> None:
    model = export(_Boxes(), Normalisation(), ["boxes", "scores"], 2)
    boxes, scores = run(model, pixels(6, 4))
    assert (boxes.shape, scores.shape) == ((1, 24, 4), (1, 24, 1))


def test_wrong_number_of_output_names() -> None:
    with pytest.raises(BadVariant, match="the network has 4 outputs, and 3 names are given"):
        export(tiny_detector(), Normalisation(), OUTPUTS[:3], 32)


class _FrozenSize(nn.Module):
    """A size that becomes a constant of the graph when it is traced."""

    def forward(self, planes: Tensor) -> Tensor:
        return planes * float(planes.shape[2])


def test_graph_that_differs_from_the_network_is_refused() -> None:
    with pytest.raises(BadVariant, match=r"differs from the network by .* in output y"):
        export(_FrozenSize(), Normalisation(), ["y"], 32)
