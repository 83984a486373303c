"""Runs a recipe: teacher → variants → measured, carded and published. The offline main job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from lathe.errors import InvalidInput
from lathe.machine import cpu_name
from lathe.progress import Progress
from lathe.repository import Repository, VariantRef
from lathe.v1 import card_pb2
from lathe_compression.agreement import AgreementSamples
from lathe_compression.arithmetic import Arithmetic, arithmetic
from lathe_compression.export import Normalisation, export
from lathe_compression.hygiene import clean
from lathe_compression.judge import build_detector, judge, speedup
from lathe_compression.pictures import NamedPicture, canvases, file_digest, load_pictures
from lathe_compression.quantize import quantize
from lathe_compression.recipe import Recipe, RecipeFile, Variant
from lathe_compression.teacher import load_teacher
from lathe_server.engines import RUNTIME
from lathe_server.vision import RawPicture


@dataclass(frozen=True)
class _Made:
    """A finished variant before its publication.

    Attributes:
        steps: what was done to the teacher's network, in order.
        arithmetic: of the float network, which quantization leaves as it is.
    """

    variant: Variant
    model: onnx.ModelProto
    content: bytes
    steps: tuple[str, ...]
    arithmetic: Arithmetic
    quantized: bool


def compress(file: RecipeFile, repository_root: Path, progress: Progress) -> list[VariantRef]:
    """Makes every variant of a recipe and publishes them as new versions.

    Nothing is published before everything has been made and measured.

    Raises:
        NotFound, InvalidInput, BadPicture: the recipe names what is not there or not usable.
        BadVariant: a variant fails a check: export, INT8 kernels.
    """
    recipe = file.recipe
    calibration, used = _calibration(recipe, file.folder, progress)
    evaluation = _evaluation(recipe, file.folder, used, progress)
    made: list[_Made] = []
    with progress.step("teacher: load and export"):
        network = load_teacher(recipe.model.teacher, file.folder)
        exported = export(
            network,
            Normalisation(recipe.model.input.mean, recipe.model.input.std),
            recipe.model.outputs,
            recipe.model.size_multiple,
        )
        cleaned, hygiene = clean(exported)
    teacher = _Made(
        Variant(""), cleaned, b"", (hygiene,), arithmetic(cleaned, recipe.model.serving_size), quantized=False
    )
    for variant in recipe.variant:
        parent = next((one for one in made if one.variant.name == variant.parent), teacher)
        with progress.bar(f"variant {variant.name}: make", len(calibration) * len(variant.steps)) as advance:
            made.append(_make(variant, parent, calibration, recipe.model.size_multiple, advance))
    cards = _cards(file, made, sorted(used))
    _measure(cards, made, evaluation, progress)
    repository_root.mkdir(parents=True, exist_ok=True)
    repository = Repository(repository_root)
    return [repository.publish(card, one.content) for card, one in zip(cards, made, strict=True)]


def _calibration(recipe: Recipe, folder: Path, progress: Progress) -> tuple[list[NDArray[np.uint8]], set[str]]:
    """Network inputs for calibration, and the digests of the pictures in them."""
    inputs: list[NDArray[np.uint8]] = []
    used: set[str] = set()
    with progress.step("calibration pictures: read"):
        for chosen in recipe.calibration:
            pictures = list(load_pictures(chosen, folder))
            used |= {picture.sha256 for picture in pictures}
            inputs += canvases(pictures, chosen.grid, recipe.model.serving_size)
    return inputs, used


def _evaluation(recipe: Recipe, folder: Path, used: set[str], progress: Progress) -> list[NamedPicture]:
    """Pictures for the card's figures.

    Raises:
        InvalidInput: one of them also calibrates.
    """
    with progress.step("evaluation pictures: read"):
        pictures = [picture for chosen in recipe.evaluation for picture in load_pictures(chosen, folder)]
    shared = [picture.name for picture in pictures if picture.sha256 in used]
    if shared:
        raise InvalidInput(f"{shared[0]} both calibrates and evaluates; quality needs pictures of its own")
    return pictures


def _make(
    variant: Variant,
    parent: _Made,
    calibration: Sequence[NDArray[np.uint8]],
    size_multiple: int,
    advance: Callable[[], None],
) -> _Made:
    model, steps = parent.model, parent.steps
    for step in variant.steps:
        model, done = quantize(model, step.quantize, calibration, size_multiple, advance)
        steps = (*steps, *done)
    quantized = parent.quantized or bool(variant.steps)
    return _Made(variant, model, model.SerializeToString(), steps, parent.arithmetic, quantized)


def _cards(file: RecipeFile, made: Sequence[_Made], used: Sequence[str]) -> list[card_pb2.Card]:
    recipe = file.recipe.model
    onnx_file = file.folder / recipe.teacher
    return [
        card_pb2.Card(
            model=recipe.name,
            variant=one.variant.name,
            task=card_pb2.Task.Value(f"TASK_{recipe.task.upper()}"),
            decoder=card_pb2.Decoder.Value(f"DECODER_{recipe.decoder.upper()}"),
            precision=card_pb2.PRECISION_INT8 if one.quantized else card_pb2.PRECISION_FP32,
            classes=recipe.classes,
            serving_size=card_pb2.PictureSize(width=recipe.serving_size[0], height=recipe.serving_size[1]),
            size_multiple=recipe.size_multiple,
            thresholds=card_pb2.Thresholds(
                min_score=recipe.thresholds.min_score,
                nms=recipe.thresholds.nms,
                max_detections=recipe.thresholds.max_detections,
            ),
            parameters=one.arithmetic.parameters,
            macs=one.arithmetic.macs,
            sparsity=one.arithmetic.sparsity,
            lineage=card_pb2.Lineage(
                teacher=recipe.teacher,
                teacher_sha256=file_digest(onnx_file) if onnx_file.is_file() else "",
                parent=one.variant.parent,
                steps=one.steps,
                recipe_sha256=file.sha256,
                made_with=[
                    f"torch {torch.__version__}",
                    f"onnx {onnx.__version__}",
                    RUNTIME,
                ],
                picture_sha256=used if one.quantized else [],
            ),
            recommended=one.variant.recommended,
            notices=recipe.notices,
        )
        for one in made
    ]


def _measure(
    cards: Sequence[card_pb2.Card],
    made: Sequence[_Made],
    pictures: Sequence[NamedPicture],
    progress: Progress,
) -> None:
    """Fills in quality and latency, every variant against the first on the same pictures."""
    if not pictures:
        return
    detectors = {card.variant: build_detector(card, one.content) for card, one in zip(cards, made, strict=True)}
    with progress.bar("variants: measure", len(pictures)) as advance:
        judged = judge(detectors, ((str(n), _raw(picture)) for n, picture in enumerate(pictures)), advance)
    reference = judged[cards[0].variant]
    for card in cards:
        own = judged[card.variant]
        samples = AgreementSamples(
            [(detections, own.detections[key]) for key, detections in reference.detections.items()]
        )
        if card is not cards[0] and samples.pictures:
            card.quality.add(
                metric="agreement",
                data=f"the recipe's evaluation pictures, against {cards[0].variant}",
                value=samples.agreement(),
                pictures=samples.pictures,
                size=card.serving_size,
            )
        medians = own.stage_medians()
        card.latency.add(
            size=card.serving_size,
            cpu=cpu_name(),
            runtime=RUNTIME,
            stages=card_pb2.StageSeconds(
                decode=medians["decode"],
                preprocess=medians["preprocess"],
                infer=medians["infer"],
                postprocess=medians["postprocess"],
            ),
            speedup=speedup(own, reference),
            reference_variant=cards[0].variant,
            runs=len(pictures),
        )


def _raw(picture: NamedPicture) -> RawPicture:
    height, width = picture.pixels.shape[:2]
    return RawPicture(width, height, 0, "rgb8", picture.pixels.tobytes())
