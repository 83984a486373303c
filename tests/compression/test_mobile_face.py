"""The small face network: its shape, its size, and that it can be all that a network must be here."""

from __future__ import annotations

import pytest
import torch

from lathe_compression.channels import find_groups, macs_by_layer
from lathe_compression.export import Normalisation, export
from lathe_compression.hygiene import clean
from lathe_compression.mobile_face import half_mobile_face, mobile_face
from lathe_compression.quantize import Quantize, assert_int8_kernels, quantize
from lathe_compression.taps import traced
from lathe_compression.unit_vectors import ending_in_unit_vectors
from tests.compression.graphs import pixels
from tests.compression.networks import planes


@pytest.mark.parametrize(
    ("factory", "parameters", "macs"), [(mobile_face, 0.78e6, 77e6), (half_mobile_face, 0.21e6, 20.6e6)]
)
def test_it_is_as_small_as_it_says(factory: type, parameters: float, macs: float) -> None:
    network = factory().eval()
    assert sum(value.numel() for value in network.parameters()) == pytest.approx(parameters, rel=0.02)
    assert sum(macs_by_layer(network, planes(1, 150, 150)).values()) == pytest.approx(macs, rel=0.02)


def test_it_gives_unit_vectors_and_runs_in_int8_throughout() -> None:
    torch.manual_seed(0)
    network = ending_in_unit_vectors(traced(half_mobile_face().eval()))
    torch.testing.assert_close(network(planes(2, 150, 150) / 256).norm(dim=1), torch.ones(2))
    graph = clean(export(network, Normalisation(std=(256, 256, 256)), ("embedding",), 150, fixed_wh=(150, 150)))[0]
    assert "BatchNormalization" not in {node.op_type for node in graph.graph.node}
    quantized, _ = quantize(graph, Quantize(), [pixels(150, 150)], 150)
    assert assert_int8_kernels(quantized) == sum(node.op_type == "Conv" for node in graph.graph.node)


def test_the_wide_middle_of_every_block_can_be_pruned() -> None:
    network = traced(half_mobile_face().eval())
    hidden = [group.name for group in find_groups(network, planes(1, 150, 150) / 256, "hidden")]
    assert [f"blocks.{number}.layers.0" for number in range(10)] == [name for name in hidden if "blocks" in name]
