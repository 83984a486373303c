"""A user's own detector, nothing like CenterFace, all the way: trained, exported, compressed, served, swapped."""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import fx, nn

from lathe.agreement import AgreementSamples
from lathe.detections import Detections
from lathe.errors import BadVariant
from lathe.progress import Progress
from lathe.repository import Repository
from lathe.v1 import card_pb2
from lathe_compression.average_precision import Labels, PrecisionSamples
from lathe_compression.channels import find_groups, take_out
from lathe_compression.compress import compress
from lathe_compression.export import Normalisation, export
from lathe_compression.hygiene import clean, fold_batch_norms, prelu_as_convolutions
from lathe_compression.losses import OUTPUT_LOSSES
from lathe_compression.onnx_import import import_onnx
from lathe_compression.onnx_operators import OPERATORS
from lathe_compression.quantize import assert_int8_kernels
from lathe_compression.recipe import load_recipe
from lathe_compression.taps import traced
from lathe_compression.teacher import load_teacher
from lathe_server.vision.decoders import boxes as decode_boxes
from lathe_server.vision.detections import Thresholds, suppress
from tests.compression.graphs import count, pixels, run
from tests.compression.shapes_detector import (
    HELD_OUT_SEED,
    MEAN,
    STD,
    ShapesDetector,
    ShapesMaps,
    normalised,
    shapes_detector,
)
from tests.compression.shapes_pictures import CLASSES, HEIGHT, WIDTH, Shapes, draw, write_labels, write_pictures
from tests.conftest import ROOT, start_server

CALIBRATION_SEED, EVALUATION_SEED, FRAMES_SEED = 3, 4, 5
DOCUMENT = (ROOT / "docs/your-own-model.md").read_text("utf-8")
(RECIPE,) = re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)
TRAINED = """
[[frames]]
pictures = ["frames/*.png"]

[[variant]]
name = "pruned-int8"
parent = "fp32"
steps = [
    { prune = { keep = 0.7, rounds = 2, pictures = 96, probe = 32 } },
    { distill = { pictures = 480, rate = 0.004 } },
    { quantize = { method = "qat", pictures = 64 } },
]
"""
"""Beside the document's variants: every kind of step, learning from the network's own answers."""
PLANES = torch.zeros(1, 3, HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def network(shapes_weights: Path) -> ShapesDetector:
    return shapes_detector()


@pytest.fixture(scope="module")
def exported(network: ShapesDetector) -> onnx.ModelProto:
    """The graph with uint8 input, before hygiene; the export compares it with the network at a third size."""
    return export(network, Normalisation(MEAN, STD), ("boxes", "scores"), 32)


@pytest.fixture(scope="module")
def made(shapes_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """All variants, by the ordinary recipe."""
    folder = tmp_path_factory.mktemp("shapes")
    write_pictures(folder / "calibration", [draw(number, CALIBRATION_SEED) for number in range(64)])
    write_pictures(folder / "evaluation", [draw(number, EVALUATION_SEED) for number in range(32)])
    write_pictures(folder / "frames", [draw(number, FRAMES_SEED) for number in range(96)])
    (folder / "shapes.toml").write_text(RECIPE + TRAINED)
    compress(load_recipe(folder / "shapes.toml"), folder / "models", Progress())
    return Repository(folder / "models")


@pytest.fixture(scope="module")
def held_out() -> list[Shapes]:
    return [draw(number, HELD_OUT_SEED) for number in range(200)]


def variant(repository: Repository, name: str) -> tuple[card_pb2.Card, onnx.ModelProto]:
    newest = repository.newest("shapes", name)
    return repository.card(newest), onnx.load_from_string(repository.model_bytes(newest))


def detections(boxes: NDArray[np.float32], scores: NDArray[np.float32]) -> Detections:
    return suppress(decode_boxes({"boxes": boxes, "scores": scores}, 0.05), Thresholds(0.05, 0.5, 100))


def ap50(found: Sequence[Detections], held_out: Sequence[Shapes], folder: Path) -> float:
    write_labels(folder / "labels.json", held_out)
    return PrecisionSamples(Labels(folder / "labels.json"), dict(enumerate(found)), 100).ap50()


def test_pictures_are_the_same_each_time_and_their_boxes_fit() -> None:
    one, again, other = draw(5), draw(5), draw(6)
    np.testing.assert_array_equal(one.pixels, again.pixels)
    assert not np.array_equal(one.pixels, other.pixels)
    assert not np.array_equal(one.pixels, draw(5, seed=1).pixels)
    for shapes in (draw(number) for number in range(50)):
        sides = shapes.xyxy[:, 2:] - shapes.xyxy[:, :2]
        assert ((sides.max(axis=1) >= 11.9) & (sides.max(axis=1) <= 90.1)).all()
        assert (shapes.xyxy >= 0).all()
        assert (shapes.xyxy <= (WIDTH, HEIGHT, WIDTH, HEIGHT)).all()


def test_trained_network_finds_what_it_never_saw(
    network: ShapesDetector, held_out: list[Shapes], tmp_path: Path
) -> None:
    with torch.no_grad():
        found = [detections(*(one.numpy() for one in network(normalised(shapes.pixels)))) for shapes in held_out]
    assert ap50(found, held_out, tmp_path) >= 0.8


def test_parameters() -> None:
    assert 100_000 < sum(weight.numel() for weight in ShapesDetector().parameters()) < 300_000


def test_weights_are_no_code(shapes_weights: Path) -> None:
    assert torch.load(shapes_weights, weights_only=True).keys() == ShapesDetector().state_dict().keys()


@pytest.mark.parametrize("size_hw", [(128, 160), (96, 64), (32, 32)])
def test_exported_graph_equals_the_network(
    network: ShapesDetector, exported: onnx.ModelProto, size_hw: tuple[int, int]
) -> None:
    picture = pixels(*size_hw, batch=2)
    with torch.no_grad():
        expected = network(normalised(picture))
    for ours, theirs in zip(run(exported, picture), expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-3)


def test_hygiene_leaves_neither_batch_norm_nor_prelu_nor_constant_node(exported: onnx.ModelProto) -> None:
    cleaned, told = clean(exported)
    assert [count(cleaned, kind) for kind in ("BatchNormalization", "PRelu", "Constant")] == [0, 0, 0]
    assert told.endswith(", 3 PReLUs written as arithmetic")
    for size_hw in ((128, 160), (64, 96)):
        picture = pixels(*size_hw)
        for now, then in zip(run(cleaned, picture), run(exported, picture), strict=True):
            np.testing.assert_allclose(now, then, rtol=1e-4, atol=1e-3)
    assert prelu_as_convolutions(cleaned) == 3
    for now, then in zip(run(cleaned, picture), run(exported, picture), strict=True):
        np.testing.assert_allclose(now, then, rtol=1e-4, atol=1e-3)


def write_maps(path: Path, network: ShapesDetector, *, training: bool = False) -> None:
    mode = torch.onnx.TrainingMode.PRESERVE if training else torch.onnx.TrainingMode.EVAL
    with pytest.warns(DeprecationWarning, match="legacy"):
        torch.onnx.export(
            ShapesMaps(network).eval(),
            (PLANES,),
            str(path),
            input_names=["planes"],
            dynamic_axes={"planes": {0: "batch", 2: "height", 3: "width"}},
            opset_version=17,
            dynamo=False,
            training=mode,
            do_constant_folding=not training,
        )


def test_hygiene_folds_its_batch_norms(network: ShapesDetector, tmp_path: Path) -> None:
    """An exporter that leaves them in the file, as many do."""
    write_maps(tmp_path / "maps.onnx", network, training=True)
    model = onnx.load(tmp_path / "maps.onnx")
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    applied = norms + 2 * 2  # the two of the tower are at work at each of three levels
    assert count(model, "BatchNormalization") == applied
    planes = normalised(pixels(64, 96)).contiguous().numpy()
    before = run(model, planes)
    # Kernels that several levels share cannot take the norm in; the others can.
    assert fold_batch_norms(model) == applied - 2 * 3
    for now, then in zip(run(model, planes), before, strict=True):
        np.testing.assert_allclose(now, then, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("scope", "names"), [("hidden", 9), ("all", 15)])
def test_channels_can_be_taken_out(network: ShapesDetector, scope: str, names: int) -> None:
    graph = copy.deepcopy(traced(network))
    groups = find_groups(graph, PLANES, scope)  # type: ignore[arg-type]
    assert len(groups) == names
    assert not {"classes", "reaches"} & {group.name for group in groups}, "outputs stay as they are"
    before = sum(weight.numel() for weight in graph.parameters())
    take_out(graph, PLANES, {group.name: range(group.width // 2) for group in groups})
    assert sum(weight.numel() for weight in graph.parameters()) < 0.7 * before
    boxes, scores = graph(PLANES)
    assert (boxes.shape, scores.shape) == ((1, 420, 4), (1, 420, 3))
    export(graph, Normalisation(MEAN, STD), ("boxes", "scores"), 32)


def test_student_learns_from_its_answers(network: ShapesDetector) -> None:
    """The label-free loss of the decoder: nothing where both say the same, and a gradient where they do not."""
    planes = normalised(draw(0, EVALUATION_SEED).pixels)
    loss = OUTPUT_LOSSES["boxes"]
    student = copy.deepcopy(network)
    names = ("boxes", "scores")
    with torch.no_grad():
        wanted = dict(zip(names, network(planes), strict=True))
    with torch.no_grad():
        assert float(loss(dict(zip(names, student(planes), strict=True)), wanted)) == pytest.approx(0, abs=1e-4)
        student.reaches.bias += 0.3
    value = loss(dict(zip(names, student(planes), strict=True)), wanted)
    value.backward()
    assert value.item() > 0.05
    assert student.reaches.bias.grad is not None
    assert float(student.reaches.bias.grad.sum()) > 0


def test_onnx_file_of_its_convolutions_is_imported(network: ShapesDetector, tmp_path: Path) -> None:
    write_maps(tmp_path / "maps.onnx", network)
    imported = load_teacher("maps.onnx", tmp_path)
    assert isinstance(imported, fx.GraphModule)
    for size_hw in ((128, 160), (64, 96)):
        planes = normalised(pixels(*size_hw, batch=2))
        with torch.no_grad():
            for ours, theirs in zip(imported(planes), ShapesMaps(network)(planes), strict=True):
                np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-4)
    hidden = find_groups(imported, PLANES, "hidden")
    assert len(hidden) >= 7, "stem and the wide middles of six blocks"
    export(imported, Normalisation(MEAN, STD), [f"map_{n}" for n in range(6)], 32)


def test_onnx_file_with_its_decoding_is_refused_by_name(network: ShapesDetector, tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning, match="legacy"):
        torch.onnx.export(
            network,
            (PLANES,),
            str(tmp_path / "whole.onnx"),
            input_names=["planes"],
            dynamic_axes={"planes": {2: "height", 3: "width"}},
            dynamo=False,
        )
    with pytest.raises(BadVariant, match=r"CumSum.*it computes with sizes: .* give the model as `package.module:fact"):
        import_onnx(tmp_path / "whole.onnx")


def test_document_lists_the_operators_and_the_recipe_fits() -> None:
    table = DOCUMENT.split("<!-- operators -->")[1].split("<!-- /operators -->")[0]
    listed = re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", table))
    assert sorted(listed) == sorted(OPERATORS)
    said = tomllib.loads(RECIPE)["model"]
    assert (said["classes"], said["serving_size"]) == (list(CLASSES), [WIDTH, HEIGHT])
    assert (tuple(said["input"]["mean"]), tuple(said["input"]["std"])) == (MEAN, STD)


def test_cards_name_classes_and_decoder(made: Repository) -> None:
    for name in ("fp32", "int8"):
        card, _ = variant(made, name)
        assert (list(card.classes), card.decoder) == (list(CLASSES), card_pb2.DECODER_BOXES)
        assert card.parameters == pytest.approx(150_000, rel=0.1)
    assert card.precision == card_pb2.PRECISION_INT8
    assert card.quality[0].value > 0.9, "agreement with fp32"


def test_every_convolution_runs_in_int8(made: Repository) -> None:
    _, model = variant(made, "int8")
    convolutions = count(model, "Conv")
    assert assert_int8_kernels(model) == convolutions == 52  # 6 of them are PReLUs


def test_pruned_and_taught_with_its_roundings_it_keeps_its_int8_kernels(made: Repository) -> None:
    card, model = variant(made, "pruned-int8")
    whole, _ = variant(made, "fp32")
    assert card.macs == pytest.approx(0.7 * whole.macs, rel=0.05)
    assert [
        step.partition(":")[0] for step in card.lineage.steps if step.startswith(("prune", "distill", "quantize"))
    ] == [
        "prune",
        "distill",
        "quantize",
    ]
    assert assert_int8_kernels(model) == count(model, "Conv")


@pytest.mark.parametrize(("name", "least"), [("fp32", 0.8), ("int8", 0.8), ("pruned-int8", 0.7)])
def test_variants_are_as_good_as_the_network(
    made: Repository, name: str, least: float, held_out: list[Shapes], tmp_path: Path
) -> None:
    _, model = variant(made, name)
    engine = _session(model)
    found = [detections(*engine.run(["boxes", "scores"], {"pixels": shapes.pixels[None]})) for shapes in held_out]
    assert ap50(found, held_out, tmp_path) >= least


def test_served_over_grpc_and_swapped(made: Repository, held_out: list[Shapes], tmp_path: Path) -> None:
    """Classes and boxes of pictures that are known to the pixel, before and after each swap."""
    with start_server(made.root, tmp_path / "server.log") as server, server.client() as client:
        for name in ("fp32", "int8", "pruned-int8"):
            client.set_route("shapes", {name: 1})
            pairs = []
            for shapes in held_out[:40]:
                # Sent at twice the size: the answer is in pixels of the frame that was sent.
                result = client.detect("shapes", shapes.pixels.repeat(2, axis=0).repeat(2, axis=1))
                assert (result.outcome, result.variant) == ("answered", name)
                pairs.append((result.detections, _as_drawn(shapes, 2)))
            assert AgreementSamples(pairs).agreement() >= 0.65, name


def _as_drawn(shapes: Shapes, scale: int) -> Detections:
    number = len(shapes.class_id)
    xyxy, score, class_id = scale * shapes.xyxy, np.ones(number, np.float32), shapes.class_id.astype(np.int64)
    return Detections(xyxy.astype(np.float32), score, class_id, np.empty((number, 0, 2), np.float32))


def _session(model: onnx.ModelProto) -> Any:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
