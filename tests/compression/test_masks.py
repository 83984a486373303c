"""Masks of single weights: as many zeros as asked, where they matter least, and zeros to the end."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from rich.console import Console
from torch import nn

from lathe.progress import Progress
from lathe.repository import Repository
from lathe_compression.compress import compress
from lathe_compression.masks import compressed_bytes, density, hold_zeros, mask
from lathe_compression.prune import Prune
from lathe_compression.recipe import load_recipe
from tests.compression.networks import block_detector
from tests.compression.small_recipe import recipe, write_recipe


def two_layers(scale: float = 1.0) -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3))
    with torch.no_grad():
        network[2].weight *= scale
    return network


@pytest.mark.parametrize("keep", [0.9, 0.5, 0.1])
def test_share_of_weights_is_left(keep: float) -> None:
    network = block_detector()
    assert density(network) == 1
    mask(network, keep)
    assert density(network) == pytest.approx(keep, abs=0.001)


def test_smallest_weights_of_a_layer_go_first() -> None:
    network = two_layers()
    before = network[0].weight.detach().abs().flatten()
    mask(network, 0.4)
    gone = (network[0].weight == 0).flatten()
    assert 0 < int(gone.sum()) < len(gone)
    assert float(before[gone].max()) < float(before[~gone].min())


def test_scale_of_a_layer_does_not_matter() -> None:
    masks = []
    for scale in (1.0, 1000.0):
        network = two_layers(scale)
        mask(network, 0.3)
        masks.append([network[place].weight == 0 for place in (0, 2)])
    assert all(torch.equal(one, other) for one, other in zip(*masks, strict=True))


def test_every_layer_keeps_its_largest_weight() -> None:
    network = two_layers()
    mask(network, 1e-6)
    assert [int(network[place].weight.count_nonzero()) for place in (0, 2)] == [1, 1]


def test_zeros_stay_zero_while_the_others_learn() -> None:
    network = two_layers()
    mask(network, 0.5)
    zeros, start = network[0].weight == 0, network[0].weight.detach().clone()
    hold_zeros(network)
    optimiser = torch.optim.AdamW(network.parameters(), 0.01)
    for _ in range(5):
        optimiser.zero_grad()
        network(torch.randn(2, 3, 12, 12)).square().mean().backward()
        optimiser.step()
    assert torch.equal(network[0].weight == 0, zeros)
    assert not torch.equal(network[0].weight, start)


def test_zeros_compress() -> None:
    network = block_detector()
    whole = compressed_bytes(network)
    mask(network, 0.3)
    assert compressed_bytes(network) < 0.6 * whole


@pytest.mark.parametrize("wrong", [{"target": "macs"}, {"criterion": "taylor", "target": "parameters"}])
def test_only_what_a_mask_can_do_is_taken(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match='scope = "weights" takes target = "parameters" and criterion = "magnitude"'):
        Prune(0.5, scope="weights", **{"criterion": "magnitude", **wrong})  # type: ignore[arg-type]


def test_through_a_recipe_to_int8(tmp_path: Path) -> None:
    """In rounds, then distilled, then with the roundings learnt: half of the weights are zero in the INT8 file."""
    settings = 'scope = "weights", target = "parameters", criterion = "magnitude", keep = 0.5, rounds = 2, pictures = 8'
    text = recipe(
        f"{{ prune = {{ {settings} }} }}, {{ distill = {{ pictures = 8 }} }}, "
        '{ quantize = { method = "qat", pictures = 8 } }',
        teacher="block_detector",
    )
    write_recipe(tmp_path, text)
    reference, masked = compress(
        load_recipe(tmp_path / "spots.toml"), tmp_path / "models", Progress(Console(file=StringIO()))
    )
    repository = Repository(tmp_path / "models")
    card = repository.card(masked)
    assert card.sparsity == pytest.approx(0.5, abs=0.02)
    assert repository.card(reference).sparsity < 0.02
    (sentence,) = (step for step in card.lineage.steps if step.startswith("prune"))
    assert "all but 50% of the weights become zero, in 2 rounds; no faster; compressed, the weights take" in sentence
    making = json.loads((repository.folder(masked) / "making.json").read_text())
    assert [round(one["left"], 2) for one in making["steps"][0]["rounds"]] == [0.71, 0.5]
    assert all({"size_bytes", "agreement", "speedup"} <= step.keys() for step in making["steps"])
    stored = [
        numpy_helper.to_array(tensor)
        for tensor in onnx.load(repository.folder(masked) / "model.onnx").graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 4
    ]
    assert stored
    assert np.mean(np.concatenate([one.flatten() for one in stored]) == 0) > 0.45
