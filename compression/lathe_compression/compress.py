"""Runs a recipe: teacher → variants → measured, carded and published. The offline main job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from lathe.agreement import AgreementSamples
from lathe.errors import BadPicture, InvalidInput, NotFound
from lathe.machine import cpu_name
from lathe.progress import Progress
from lathe.repository import Repository, VariantRef
from lathe.used_pictures import UsedPictures
from lathe.v1 import card_pb2
from lathe_compression.arithmetic import Arithmetic, arithmetic, layer_arithmetic
from lathe_compression.judge import build_detector, judge
from lathe_compression.latency import RUNS, noise, take_turns
from lathe_compression.pictures import NamedPicture, file_digest, load_pictures
from lathe_compression.plan import Task, chosen_variants, plan
from lathe_compression.recipe import RecipeFile, Variant
from lathe_compression.runs import RunRecord
from lathe_compression.store import disk_full_said
from lathe_compression.workshop import Workshop
from lathe_server.engines import RUNTIME, OnnxRuntimeEngine
from lathe_server.engines.golden import golden_answers, golden_picture

PRECISIONS = {
    "": "PRECISION_FP32",
    "ptq": "PRECISION_INT8",
    "qat": "PRECISION_INT8",
    "dynamic": "PRECISION_INT8",
    "fp16": "PRECISION_FP16",
}
"""Of the card, by the method of quantization."""
AS_EXPORTED = "as exported"
"""The reference's graph before hygiene; no task's key."""


@dataclass(frozen=True)
class _Made:
    """A finished variant before its publication.

    Attributes:
        key: of its last task; empty where it is the teacher itself.
        steps: what was done to the teacher's network, in order.
        on_the_way: the graph after each of its tasks, by the task's key.
        arithmetic: of the float network, which quantization leaves as it is.
        pictures: that it has seen.
        making: how it came about and what its layers cost, for reports.
    """

    variant: Variant
    key: str
    content: bytes
    on_the_way: Mapping[str, bytes]
    steps: tuple[str, ...]
    arithmetic: Arithmetic
    precision: card_pb2.Precision.ValueType
    pictures: UsedPictures
    making: Mapping[str, Any]


def compress(
    file: RecipeFile,
    repository_root: Path,
    progress: Progress,
    *,
    cache: Path | None = None,
    only: Sequence[str] = (),
) -> list[VariantRef]:
    """Makes the variants of a recipe and publishes them as new versions.

    Nothing is published before everything has been made and measured. What was finished before, by this
    recipe or another, is taken from the cache; what was interrupted is gone on with. A variant whose newest
    version is just what this recipe makes is left as it is.

    Args:
        cache: folder of steps' results; `cache` beside the repository where it is not given.
        only: names of variants to make beside the reference; all where none is named.

    Returns:
        The newest version of each, in the recipe's order.

    Raises:
        NotFound, InvalidInput, BadPicture: the recipe names what is not there or not usable.
        BadVariant: a variant fails a check: export, INT8 kernels.
        DiskFull: no space left; what was finished is kept.
    """
    recipe = file.recipe
    variants = chosen_variants(recipe, only)
    cache = cache or repository_root.parent / "cache"
    with disk_full_said():
        record = RunRecord(cache / "runs", recipe.model.name, {"recipe_sha256": file.sha256, "cpu": cpu_name()})
    workshop = Workshop(file, cache, progress, record)
    ends = plan(recipe, workshop.inputs)
    evaluation = _evaluation(workshop, file.folder)
    made = [_make(variant, ends[variant.name], workshop) for variant in variants]
    _refuse_seen(evaluation, made)
    cards = _cards(file, made)
    repository_root.mkdir(parents=True, exist_ok=True)
    repository = Repository(repository_root)
    published = [_already_published(repository, card, one) for card, one in zip(cards, made, strict=True)]
    figures = {} if all(published) else _measure(cards, made, evaluation, workshop)
    refs = []
    with disk_full_said():
        for card, one, there in zip(cards, made, published, strict=True):
            making = _with_figures(one.making, figures)
            if not there:
                golden = OnnxRuntimeEngine(one.content).run(golden_picture(workshop.serving_size))
                card.golden.extend(golden_answers(golden))
            refs.append(there or repository.publish(card, one.content, making, one.pictures))
            record.event("variant", variant=one.variant.name, version=refs[-1].version, sha256=card.sha256)
    record.close()
    return refs


def _evaluation(workshop: Workshop, folder: Path) -> list[NamedPicture]:
    """Pictures for the card's figures; those that cannot be decoded are left out, counted and named.

    Raises:
        BadPicture: none of what the recipe names is a picture.
    """
    skipped: list[str] = []
    with workshop.progress.step("evaluation pictures: read"):
        found = [one for chosen in workshop.recipe.evaluation for one in load_pictures(chosen, folder, skipped)]
    workshop.say_skipped("evaluation", skipped)
    if skipped and not found:
        raise BadPicture("none of the evaluation pictures can be decoded")
    return found


def _refuse_seen(pictures: Sequence[NamedPicture], made: Sequence[_Made]) -> None:
    """Raises:
    InvalidInput: an evaluation picture has also calibrated or trained a variant.
    """
    shared = [picture.name for picture in pictures if any(picture.sha256 in one.pictures for one in made)]
    if shared:
        raise InvalidInput(f"{shared[0]} both makes a variant and judges it; quality needs pictures of its own")


def _make(variant: Variant, task: Task | None, workshop: Workshop) -> _Made:
    """Takes a variant through its steps."""
    quantized = task if task and task.step.quantize else None
    network_task = quantized.parent if quantized else task
    graph, hygiene = workshop.float_graph(network_task)
    cost = arithmetic(graph, workshop.serving_size)
    chain = task.chain if task else []
    sentences = [sentence for one in chain for sentence in workshop.facts(one)["sentences"]]
    method = quantized.step.quantize.method if quantized and quantized.step.quantize else ""
    final = workshop.quantized_graph(quantized) if quantized else graph
    content = final.SerializeToString(deterministic=True)
    on_the_way = {one.key: workshop.float_graph(one)[0].SerializeToString(deterministic=True) for one in chain[:-1]}
    key = task.key if task else ""
    return _Made(
        variant,
        key,
        content,
        on_the_way | {key: content},
        (hygiene, *sentences),
        cost,
        card_pb2.Precision.Value(PRECISIONS[method]),
        workshop.used_pictures(task),
        {
            "steps": [
                {"key": one.key, "name": one.name, "kind": one.step.kind, **workshop.facts(one)} for one in chain
            ],
            "layers": [asdict(layer) for layer in layer_arithmetic(final, workshop.serving_size)],
        },
    )


def _already_published(repository: Repository, card: card_pb2.Card, made: _Made) -> VariantRef | None:
    """The newest version, where it is this very file by this very recipe with these tools."""
    try:
        newest = repository.newest(card.model, card.variant)
    except NotFound:
        return None
    same = repository.model_bytes(newest) == made.content and repository.card(newest).lineage == card.lineage
    return newest if same else None


def _cards(file: RecipeFile, made: Sequence[_Made]) -> list[card_pb2.Card]:
    recipe = file.recipe.model
    onnx_file = file.folder / recipe.teacher
    cards = [
        card_pb2.Card(
            model=recipe.name,
            variant=one.variant.name,
            task=card_pb2.Task.Value(f"TASK_{recipe.task.upper()}"),
            decoder=card_pb2.Decoder.Value(f"DECODER_{recipe.decoder.upper()}"),
            precision=one.precision,
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
            ),
            recommended=one.variant.recommended,
            notices=recipe.notices,
        )
        for one in made
    ]
    for card, one in zip(cards, made, strict=True):
        one.pictures.fill_in(card.lineage)
    return cards


def _measure(
    cards: Sequence[card_pb2.Card], made: Sequence[_Made], pictures: Sequence[NamedPicture], workshop: Workshop
) -> dict[str, dict[str, float]]:
    """Fills in quality and latency, every variant against the first on the same pictures.

    Returns:
        What the graph after each task takes and keeps, by the task's key.
    """
    contents = {key: content for one in made for key, content in one.on_the_way.items()}
    figures: dict[str, dict[str, float]] = {key: {"size_bytes": len(content)} for key, content in contents.items()}
    if not pictures:
        return figures
    detectors = {key: build_detector(cards[0], content) for key, content in contents.items()}
    progress = workshop.progress
    with progress.bar("variants: measure", len(pictures)) as advance:
        judged = judge(detectors, ((str(n), picture.as_raw()) for n, picture in enumerate(pictures)), advance)
    reference = judged[made[0].key]
    agreements = {
        key: AgreementSamples(
            [(detections, own.detections[picture]) for picture, detections in reference.detections.items()]
        )
        for key, own in judged.items()
    }
    with progress.step("variants: take turns at the serving size"):
        graphs = {key: onnx.load_from_string(content) for key, content in contents.items()}
        seconds = take_turns(graphs | {AS_EXPORTED: workshop.export(workshop.teacher)}, noise(workshop.serving_size))
    speedups = {key: float(np.median(seconds[made[0].key] / own)) for key, own in seconds.items()}
    for key, samples in agreements.items():
        figures[key] |= {"agreement": samples.agreement(), "speedup": speedups[key]}
    figures[made[0].key]["hygiene_speedup"] = 1 / speedups[AS_EXPORTED]
    for card, one in zip(cards, made, strict=True):
        samples = agreements[one.key]
        if card is not cards[0] and samples.pictures:
            card.quality.add(
                metric="agreement",
                data=f"the recipe's evaluation pictures, against {cards[0].variant}",
                value=samples.agreement(),
                pictures=samples.pictures,
                size=card.serving_size,
            )
        medians = judged[one.key].stage_medians()
        card.latency.add(
            size=card.serving_size,
            cpu=cpu_name(),
            runtime=RUNTIME,
            stages=card_pb2.StageSeconds(
                decode=medians["decode"],
                preprocess=medians["preprocess"],
                infer=float(np.median(seconds[one.key])),
                postprocess=medians["postprocess"],
            ),
            speedup=speedups[one.key],
            reference_variant=cards[0].variant,
            runs=RUNS,
        )
    return figures


def _with_figures(making: Mapping[str, Any], figures: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Beside each step, what the graph after it takes and keeps; of the reference, what hygiene gained."""
    gained = {} if making["steps"] else {"hygiene_speedup": figures.get("", {}).get("hygiene_speedup")}
    return {**making, **gained, "steps": [{**step, **figures.get(step["key"], {})} for step in making["steps"]]}
