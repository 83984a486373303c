"""Variants side by side on the same pictures: what each finds and how long each stage takes.

The variants take turns on every picture, in one thread, so that a noisy machine is noisy for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lathe.card import enum_word
from lathe.detections import Detections
from lathe.errors import BadPicture
from lathe.v1 import card_pb2
from lathe_server.engines import OnnxRuntimeEngine
from lathe_server.vision import Answer, Detector, Picture
from lathe_server.vision.detections import Thresholds
from lathe_server.vision.detector import Stages

WARM_UP_RUNS = 3
STAGES = ("decode", "preprocess", "infer", "postprocess")


@dataclass(frozen=True)
class Judged:
    """Answers of one variant by picture, and its stage times in the order of the pictures."""

    answers: Mapping[str, Answer]

    @property
    def detections(self) -> dict[str, Detections]:
        return {key: answer.detections for key, answer in self.answers.items()}

    def median_seconds(self, of: Callable[[Stages], float]) -> float:
        return float(np.median([of(answer.stages) for answer in self.answers.values()]))

    def stage_medians(self) -> dict[str, float]:
        """Median seconds of each stage, and of the whole frame as `total`."""
        medians = {stage: self.median_seconds(lambda s, name=stage: getattr(s, name)) for stage in STAGES}  # type: ignore[misc]
        return medians | {"total": self.median_seconds(lambda stages: stages.total)}


def judge(
    detectors: Mapping[str, Detector],
    pictures: Iterable[tuple[str, Picture]],
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Judged]:
    """Runs every detector on every picture.

    Args:
        pictures: distinct keys with pictures.
        advance: called after each picture.

    Raises:
        BadPicture: a picture cannot be decoded; its key says which.
    """
    answers: dict[str, dict[str, Answer]] = {name: {} for name in detectors}
    for number, (key, picture) in enumerate(pictures):
        turn = list(detectors.items())
        try:
            if number == 0:
                for _, detector in turn * WARM_UP_RUNS:
                    detector.detect(picture)
            for name, detector in turn if number % 2 == 0 else reversed(turn):
                answers[name][key] = detector.detect(picture)
        except BadPicture as error:
            raise BadPicture(f"{Path(key).name}: {error.message}") from error
        advance()
    return {name: Judged(found) for name, found in answers.items()}


def speedup(variant: Judged, reference: Judged) -> float:
    """How many times faster the variant's network runs: the median over pictures of the ratio."""
    return float(
        np.median(
            [reference.answers[key].stages.infer / answer.stages.infer for key, answer in variant.answers.items()]
        )
    )


def build_detector(
    card: card_pb2.Card,
    model: bytes,
    *,
    size_wh: tuple[int, int] | None = None,
    thresholds: Thresholds | None = None,
) -> Detector:
    """A variant with the server's own pre- and post-processing, at its card's settings or others."""
    operating = card.thresholds
    return Detector(
        OnnxRuntimeEngine(model),
        enum_word("Decoder", card.decoder),
        thresholds or Thresholds(operating.min_score, operating.nms, operating.max_detections),
        size_wh or (card.serving_size.width, card.serving_size.height),
        card.size_multiple,
    )
