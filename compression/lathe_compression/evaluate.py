"""What a published variant keeps of the quality and what it costs, on pictures of the user's own.

Beside the variant runs its reference (the first of its lineage), on the same pictures at the same size,
taking turns: figures of one line always belong together.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lathe.errors import InvalidInput, NotFound
from lathe.evidence import Interval, bootstrap
from lathe.machine import cpu_name
from lathe.progress import Progress
from lathe.repository import Repository, VariantRef
from lathe.v1 import card_pb2
from lathe_compression.agreement import AgreementSamples
from lathe_compression.average_precision import Labels, PrecisionSamples
from lathe_compression.judge import Judged, build_detector, judge, speedup
from lathe_compression.pictures import file_digest, folder_pictures
from lathe_server.engines import RUNTIME
from lathe_server.vision import EncodedPicture
from lathe_server.vision.detections import Thresholds

LABEL_FILES = "instances_*.json"
WIDE_OPEN = Thresholds(min_score=0.02, nms=0.3, max_detections=1000)
LABEL_PREFIX = "instances_"


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
    card = repository.card(ref)
    reference_ref = reference_of(repository, ref)
    label_sets = _label_sets(data)
    paths = _picture_paths(data, label_sets)
    used = set(card.lineage.picture_sha256)
    kept = [path for path in paths if file_digest(path) not in used] if used else paths
    if not paths:
        raise InvalidInput("the labels name no pictures")
    if not kept:
        raise InvalidInput("every picture was used to make the variant; none is left to judge it")
    size_wh = protocol.size_wh(card)
    detectors = {
        name: build_detector(
            repository.card(one), repository.model_bytes(one), size_wh=size_wh, thresholds=protocol.thresholds
        )
        for name, one in {"reference": reference_ref, "variant": ref}.items()
    }
    pictures = ((str(path), EncodedPicture(path.read_bytes())) for path in kept)
    with progress.bar(f"{ref} and {reference_ref}: {len(kept)} pictures", len(kept)) as advance:
        judged = judge(detectors, pictures, advance)
    variant, reference = judged["variant"], judged["reference"]
    samples = _agreement(variant, reference, card)
    measured = []
    with progress.bar("intervals: 1000 resamples", len(label_sets)) as advance:
        for name, labels in label_sets.items():
            measured.append(_measure(name, labels, variant, reference, protocol))
            advance()
        agreement = bootstrap(samples.agreement, samples.pictures)
    return Evaluation(
        ref=ref,
        reference=reference_ref,
        size_wh=size_wh,
        protocol=protocol,
        pictures=len(kept),
        left_out=len(paths) - len(kept),
        label_sets=measured,
        agreement=agreement,
        agreement_pictures=samples.pictures,
        stages=variant.stage_medians(),
        reference_stages=reference.stage_medians(),
        speedup=speedup(variant, reference),
        size_bytes=card.size_bytes,
        macs=card.macs,
    )


def _label_sets(data: Path) -> dict[str, Labels]:
    """Label files by short name; empty for a folder of bare pictures."""
    if data.is_file():
        return {data.stem.removeprefix(LABEL_PREFIX): Labels(data)}
    if not data.exists():
        raise NotFound(f"there is no folder or label file {data}")
    return {path.stem.removeprefix(LABEL_PREFIX): Labels(path) for path in sorted(data.glob(LABEL_FILES))}


def _picture_paths(data: Path, label_sets: Mapping[str, Labels]) -> list[Path]:
    if not label_sets:
        return folder_pictures(data)
    paths = sorted({path for labels in label_sets.values() for path in labels.pictures.values()})
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise NotFound(f"{len(missing)} labelled pictures are missing, {missing[0]} among them")
    return paths


def _measure(name: str, labels: Labels, variant: Judged, reference: Judged, protocol: Protocol) -> LabelSet:
    samples = {}
    for kind, judged in {"variant": variant, "reference": reference}.items():
        detections = judged.detections
        found = {key: detections[str(path)] for key, path in labels.pictures.items() if str(path) in detections}
        samples[kind] = PrecisionSamples(labels, found, protocol.thresholds.max_detections)
    own, other = samples["variant"], samples["reference"]
    return LabelSet(
        name,
        own.ap50(),
        other.ap50(),
        bootstrap(lambda counts: own.ap50(counts) - other.ap50(counts), len(own.picture_ids)),
    )


def _agreement(variant: Judged, reference: Judged, card: card_pb2.Card) -> AgreementSamples:
    """At the card's own score threshold: what its users would see."""
    least = card.thresholds.min_score
    ours, theirs = variant.detections, reference.detections
    return AgreementSamples(
        [(theirs[key][theirs[key].score >= least], ours[key][ours[key].score >= least]) for key in ours]
    )


def dump(evaluation: Evaluation) -> str:
    return json.dumps(evaluation.as_json(), indent=2)
