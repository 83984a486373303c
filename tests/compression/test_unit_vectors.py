"""Every embedding network ends in unit vectors, once."""

from __future__ import annotations

import pytest
import torch

from lathe.errors import BadVariant
from lathe_compression.taps import traced
from lathe_compression.unit_vectors import LAYER, ending_in_unit_vectors
from tests.compression.networks import planes, tiny_detector, tiny_embedder


def test_the_answer_is_brought_to_unit_length_and_keeps_its_direction() -> None:
    network = traced(tiny_embedder())
    pictures = planes(3, 32, 32)
    plain, unit = network(pictures), ending_in_unit_vectors(network)(pictures)
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(unit * plain.norm(dim=1, keepdim=True), plain)
    assert not hasattr(network, LAYER)


def test_what_ends_so_already_stays() -> None:
    once = ending_in_unit_vectors(traced(tiny_embedder()))
    assert ending_in_unit_vectors(once).code == once.code


def test_several_outputs_are_no_embedding() -> None:
    with pytest.raises(BadVariant, match="one output"):
        ending_in_unit_vectors(traced(tiny_detector()))
