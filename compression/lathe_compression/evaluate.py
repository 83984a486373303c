"""What a published variant keeps of the quality and what it costs, on pictures of the user's own.

Beside the variant runs its reference (the first of its lineage), on the same pictures at the same size,
taking turns: figures of one line always belong together.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

from lathe.agreement import AgreementSamples
from lathe.detections import Detections
from lathe.errors import InvalidInput, NotFound
from lathe.evidence import Interval, bootstrap
from lathe.machine import cpu_name
from lathe.progress import Progress
from lathe.repository import Repository, VariantRef
from lathe.v1 import card_pb2
from lathe_compression.average_precision import Labels, PrecisionSamples
from lathe_compression.evaluation_data import EvaluationData, load_data
from lathe_compression.judge import Judged, build_detector, judge, speedup
from lathe_compression.resampled_precision import ResampledPrecision
from lathe_server.engines import RUNTIME
from lathe_server.vision import EncodedPicture
from lathe_server.vision.detections import Thresholds

WIDE_OPEN = Thresholds(min_score=0.02, nms=0.3, max_detections=1000)


@dataclass(frozen=True)
class Protocol:
    """How a variant is judged.

    Attributes:
        long_side: pictures are scaled to this length of their longer side; None takes the card's
            serving size.
        thresholds: wide open for average precision, which looks at all scores.
    """

    long_side: int | None = None
    thresholds: Thresholds = WIDE_OPEN

    def __post_init__(self) -> None:
        """Raises InvalidInput where a threshold makes no sense."""
        chosen = self.thresholds
        if not (0 <= chosen.min_score <= 1 and 0 <= chosen.nms <= 1 and chosen.max_detections >= 1):
            raise InvalidInput("the least score and the overlap must be from 0 to 1, and detections at least 1")

    def size_wh(self, card: card_pb2.Card) -> tuple[int, int]:
        """The size that pictures are scaled to fit into.

        Raises:
            InvalidInput: not a multiple of what the network takes.
        """
        if self.long_side is None:
            return card.serving_size.width, card.serving_size.height
        if self.long_side < 1 or self.long_side % card.size_multiple:
            raise InvalidInput(f"the size must be a multiple of {card.size_multiple}, not {self.long_side}")
        return self.long_side, self.long_side


@dataclass(frozen=True)
class LabelSet:
    """One COCO file: its average precision for the variant, and the difference to the reference."""

    name: str
    ap50: float
    reference_ap50: float
    difference: Interval


@dataclass(frozen=True)
class Evaluation:
    """All that was measured of one variant on one set of pictures."""

    ref: VariantRef
    reference: VariantRef
    size_wh: tuple[int, int]
    protocol: Protocol
    pictures: int
    left_out: int
    label_sets: Sequence[LabelSet]
    agreement: Interval
    agreement_pictures: int
    stages: Mapping[str, float]
    reference_stages: Mapping[str, float]
    speedup: float
    size_bytes: int
    macs: int

    def as_json(self) -> dict[str, Any]:
        """The figures with their protocol; `ap50` is a number for one label file, a table for several."""
        several = {labels.name: _number(labels.ap50) for labels in self.label_sets}
        thresholds = self.protocol.thresholds
        return {
            "variant": str(self.ref),
            "reference": str(self.reference),
            "ap50": next(iter(several.values())) if len(several) == 1 else several or None,
            "ap50_reference": {labels.name: _number(labels.reference_ap50) for labels in self.label_sets},
            "ap50_difference": {labels.name: _interval(labels.difference) for labels in self.label_sets},
            "agreement": _interval(self.agreement) | {"pictures": self.agreement_pictures},
            "size": max(self.size_wh),
            "size_wh": list(self.size_wh),
            "size_bytes": self.size_bytes,
            "macs": self.macs,
            "latency_ms": {stage: seconds * 1e3 for stage, seconds in self.stages.items()},
            "reference_latency_ms": {stage: seconds * 1e3 for stage, seconds in self.reference_stages.items()},
            "speedup": self.speedup,
            "pictures": self.pictures,
            "left_out": self.left_out,
            "protocol": {
                "metric": "COCO AP at IoU 0.5, 101 recall points, iscrowd ignored" if several else "agreement",
                "scaled_to_fit": list(self.size_wh),
                "min_score": thresholds.min_score,
                "nms": thresholds.nms,
                "max_detections": thresholds.max_detections,
                "interval": "paired bootstrap over pictures, 95 %, 1000 resamples",
                "latency": "medians over pictures, one thread, taking turns with the reference",
                "cpu": cpu_name(),
                "runtime": RUNTIME,
            },
        }


def _interval(interval: Interval) -> dict[str, float | None]:
    return {"value": _number(interval.value), "low": _number(interval.low), "high": _number(interval.high)}


def _number(value: float) -> float | None:
    """JSON has no NaN: a figure that does not exist is null."""
    return None if math.isnan(value) else value


def parse_variant_path(path: Path) -> tuple[Repository, VariantRef]:
    """`REPO/model/variant` or `REPO/model/variant/version`; without a version, the newest.

    Raises:
        NotFound: nothing is published there.
    """
    parts = path.parts
    if len(parts) >= 3 and parts[-1].isdecimal():
        repository = Repository(Path(*parts[:-3]))
        ref = VariantRef(parts[-3], parts[-2], int(parts[-1]))
        repository.folder(ref)
        return repository, ref
    if len(parts) < 2:
        raise NotFound(f"{path} is not REPOSITORY/MODEL/VARIANT")
    repository = Repository(Path(*parts[:-2]) if len(parts) > 2 else Path())
    return repository, repository.newest(parts[-2], parts[-1])


def reference_of(repository: Repository, ref: VariantRef) -> VariantRef:
    """The first of a variant's lineage; itself where the lineage is not published."""
    seen = {ref}
    while parent := repository.card(ref).lineage.parent:
        try:
            ref = repository.newest(ref.model, parent)
        except NotFound:
            break
        if ref in seen:
            break
        seen.add(ref)
    return ref


def evaluate(repository: Repository, ref: VariantRef, data: Path, protocol: Protocol, progress: Progress) -> Evaluation:
    """Judges a variant on a folder of pictures, or on the pictures of one or several COCO files.

    Pictures that calibrated or trained the variant are left out, and counted.

    Raises:
        NotFound: no such data.
        InvalidInput: labels or protocol that make no sense.
    """
    reference = reference_of(repository, ref)
    return evaluate_together(repository, [ref], reference, data, protocol, progress).evaluations[0]


@dataclass(frozen=True)
class Together:
    """Several variants judged on the same pictures, taking turns with one reference.

    Attributes:
        evaluations: in the order in which the variants were named.
        judged: what each found, the reference too.
        samples: of the precision by label file, of each variant.
    """

    data: EvaluationData
    reference: VariantRef
    evaluations: Sequence[Evaluation]
    judged: Mapping[VariantRef, Judged]
    samples: Mapping[str, Mapping[VariantRef, ResampledPrecision]]


def evaluate_together(
    repository: Repository,
    refs: Sequence[VariantRef],
    reference: VariantRef,
    data: Path,
    protocol: Protocol,
    progress: Progress,
) -> Together:
    """Judges variants against one reference, at the serving size of the first or the protocol's.

    Pictures that calibrated or trained any of the variants are left out, and counted.

    Raises:
        NotFound, InvalidInput: as `evaluate`; or one of them is no detector.
    """
    cards = {ref: repository.card(ref) for ref in refs}
    for ref, card in cards.items():
        if card.task != card_pb2.TASK_DETECTION:
            raise InvalidInput(f"{ref} is no detector")
    chosen = load_data(data, reduce(or_, map(repository.used_pictures, refs)))
    size_wh = [protocol.size_wh(card) for card in cards.values()][0]  # noqa: RUF015 each of them checks
    everyone = list(dict.fromkeys([reference, *refs]))
    detectors = {
        str(one): build_detector(
            repository.card(one), repository.model_bytes(one), size_wh=size_wh, thresholds=protocol.thresholds
        )
        for one in everyone
    }
    pictures = ((str(path), EncodedPicture(path.read_bytes())) for path in chosen.paths)
    with progress.bar(f"{_names(everyone)}: {len(chosen.paths)} pictures", len(chosen.paths)) as advance:
        found = judge(detectors, pictures, advance)
    judged = {one: found[str(one)] for one in everyone}
    samples: dict[str, dict[VariantRef, ResampledPrecision]] = {}
    evaluations = []
    with progress.bar("intervals: 1000 resamples", len(chosen.label_sets) + len(refs)) as advance:
        for name, labels in chosen.label_sets.items():
            samples[name] = {one: _precision(labels, judged[one], protocol) for one in everyone}
            advance()
        for ref, card in cards.items():
            evaluations.append(_evaluation(ref, reference, card, chosen, judged, samples, size_wh, protocol))
            advance()
    return Together(chosen, reference, evaluations, judged, samples)


def _names(refs: Sequence[VariantRef]) -> str:
    """The two that are judged, or how many."""
    reference, *others = refs
    return f"{others[0] if others else reference} and {reference}" if len(refs) < 3 else f"{len(refs)} variants"


def _evaluation(
    ref: VariantRef,
    reference: VariantRef,
    card: card_pb2.Card,
    data: EvaluationData,
    judged: Mapping[VariantRef, Judged],
    samples: Mapping[str, Mapping[VariantRef, ResampledPrecision]],
    size_wh: tuple[int, int],
    protocol: Protocol,
) -> Evaluation:
    own, other = judged[ref], judged[reference]
    agreement = _agreement(own, other, card)
    return Evaluation(
        ref=ref,
        reference=reference,
        size_wh=size_wh,
        protocol=protocol,
        pictures=len(data.paths),
        left_out=data.left_out,
        label_sets=[
            LabelSet(name, these[ref].value, these[reference].value, these[ref].less(these[reference]))
            for name, these in samples.items()
        ],
        agreement=bootstrap(agreement.agreement, agreement.pictures),
        agreement_pictures=agreement.pictures,
        stages=own.stage_medians(),
        reference_stages=other.stage_medians(),
        speedup=speedup(own, other),
        size_bytes=card.size_bytes,
        macs=card.macs,
    )


def _precision(labels: Labels, judged: Judged, protocol: Protocol) -> ResampledPrecision:
    detections = judged.detections
    found = {key: detections[str(path)] for key, path in labels.pictures.items() if str(path) in detections}
    return ResampledPrecision(PrecisionSamples(labels, found, protocol.thresholds.max_detections))


def _agreement(variant: Judged, reference: Judged, card: card_pb2.Card) -> AgreementSamples:
    """At the card's own score threshold: what its users would see."""
    ours, theirs = seen_by_users(variant, card), seen_by_users(reference, card)
    return AgreementSamples([(theirs[key], ours[key]) for key in ours])


def seen_by_users(judged: Judged, card: card_pb2.Card) -> dict[str, Detections]:
    """By picture, the detections that reach the card's own score threshold."""
    least = card.thresholds.min_score
    return {key: found[found.score >= least] for key, found in judged.detections.items()}


def dump(evaluation: Evaluation) -> str:
    return json.dumps(evaluation.as_json(), indent=2)
