"""Quality and latency of variants for their cards, every variant against the first on the same pictures."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from lathe.agreement import AgreementSamples
from lathe.errors import InvalidInput
from lathe.machine import cpu_name
from lathe.v1 import card_pb2
from lathe_compression.faces import face_landmarks
from lathe_compression.judge import build_detector, judge
from lathe_compression.latency import RUNS, noise, take_turns
from lathe_compression.made import Made
from lathe_compression.pictures import NamedPicture
from lathe_compression.workshop import Workshop
from lathe_server.engines import RUNTIME, OnnxRuntimeEngine
from lathe_server.vision.embedder import EMBEDDING

AS_EXPORTED = "as exported"
"""The reference's graph before hygiene; no task's key."""


@dataclass(frozen=True)
class _Kept:
    """What a graph keeps of the reference's answers.

    Attributes:
        value: 1 where they are the same.
        pictures: that it rests on.
        stages: median seconds of those around the network.
    """

    value: float
    pictures: int
    stages: Mapping[str, float] = field(default_factory=dict)


def measure(
    cards: Sequence[card_pb2.Card], made: Sequence[Made], pictures: Sequence[NamedPicture], workshop: Workshop
) -> dict[str, dict[str, float]]:
    """Fills in quality and latency.

    Returns:
        What the graph after each task takes and keeps, by the task's key.

    Raises:
        InvalidInput: no evaluation picture shows a face, and the task is embedding.
    """
    contents = {key: content for one in made for key, content in one.on_the_way.items()}
    figures: dict[str, dict[str, float]] = {key: {"size_bytes": len(content)} for key, content in contents.items()}
    if not pictures:
        return figures
    reference = made[0].key
    if workshop.recipe.model.embeds:
        metric, kept = "cosine", _cosines(contents, reference, pictures, workshop)
    else:
        metric, kept = "agreement", _agreements(cards[0], contents, reference, pictures, workshop)
    with workshop.progress.step("variants: take turns at the serving size"):
        graphs = {key: onnx.load_from_string(content) for key, content in contents.items()}
        seconds = take_turns(graphs | {AS_EXPORTED: workshop.export(workshop.teacher)}, noise(workshop.serving_size))
    speedups = {key: float(np.median(seconds[reference] / own)) for key, own in seconds.items()}
    for key, own in kept.items():
        figures[key] |= {metric: own.value, "speedup": speedups[key]}
    figures[reference]["hygiene_speedup"] = 1 / speedups[AS_EXPORTED]
    for card, one in zip(cards, made, strict=True):
        own = kept[one.key]
        if card is not cards[0] and own.pictures:
            card.quality.add(
                metric=metric,
                data=f"the recipe's evaluation pictures, against {cards[0].variant}",
                value=own.value,
                pictures=own.pictures,
                size=card.serving_size,
            )
        card.latency.add(
            size=card.serving_size,
            cpu=cpu_name(),
            runtime=RUNTIME,
            stages=card_pb2.StageSeconds(infer=float(np.median(seconds[one.key])), **own.stages),
            speedup=speedups[one.key],
            reference_variant=cards[0].variant,
            runs=RUNS,
        )
    return figures


def _agreements(
    card: card_pb2.Card,
    contents: Mapping[str, bytes],
    reference: str,
    pictures: Sequence[NamedPicture],
    workshop: Workshop,
) -> dict[str, _Kept]:
    """Of detectors, which find the same objects or others."""
    detectors = {key: build_detector(card, content) for key, content in contents.items()}
    with workshop.progress.bar("variants: measure", len(pictures)) as advance:
        judged = judge(detectors, ((str(n), picture.as_raw()) for n, picture in enumerate(pictures)), advance)
    wanted = judged[reference].detections
    kept = {}
    for key, own in judged.items():
        found = own.detections
        samples = AgreementSamples([(detections, found[picture]) for picture, detections in wanted.items()])
        medians = own.stage_medians()
        around = {stage: medians[stage] for stage in ("decode", "preprocess", "postprocess")}
        kept[key] = _Kept(samples.agreement(), samples.pictures, around)
    return kept


def _cosines(
    contents: Mapping[str, bytes], reference: str, pictures: Sequence[NamedPicture], workshop: Workshop
) -> dict[str, _Kept]:
    """Of embedding networks: the mean cosine to the reference's embeddings. What comes before the network is a face's
    alignment."""
    reader = workshop.faces.reader
    faces, missed, seconds = [], [], []
    for picture in pictures:
        landmarks = face_landmarks(reader.detector, picture.pixels)
        if landmarks is None:
            missed.append(picture.name)
            continue
        began = time.perf_counter()
        faces.append(reader.align(picture.pixels, landmarks)[None])
        seconds.append(time.perf_counter() - began)
    workshop.faces.say_missed(missed)
    if not faces:
        raise InvalidInput("no evaluation picture shows a face")
    around = {"preprocess": float(np.median(seconds))}
    embeddings = {}
    with workshop.progress.bar("variants: measure", len(contents)) as advance:
        for key, content in contents.items():
            engine = OnnxRuntimeEngine(content)
            embeddings[key] = np.concatenate([engine.run(face)[EMBEDDING] for face in faces])
            advance()
    wanted = embeddings[reference]
    return {key: _Kept(float((own * wanted).sum(1).mean()), len(faces), around) for key, own in embeddings.items()}
