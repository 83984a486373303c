"""What a published embedding variant keeps of the quality and what it costs, on faces of the user's own.

Beside the variant runs its reference (the first of its lineage) on the same faces, taking turns. A third set of figures
is across the two: enrolled with the reference and probed with the variant, as after a swap that keeps its gallery.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lathe.errors import InvalidInput, NotFound
from lathe.machine import cpu_name
from lathe.progress import Progress
from lathe.repository import Repository, VariantRef
from lathe.v1 import card_pb2
from lathe_compression.comparisons import Faces
from lathe_compression.embedding_data import FaceData, load_faces
from lathe_compression.embedding_quality import Difference, EmbeddingQuality, quality_of, rate_key
from lathe_compression.error_rates import EXPECTED_FALSE_MATCHES, FMRS, LARGEST_FMR, RESAMPLES
from lathe_compression.evaluate import parse_variant_path, reference_of
from lathe_compression.identification import DRAWS
from lathe_compression.judge import build_detector
from lathe_compression.judge_embeddings import JudgedFaces, build_embedder, judge_embeddings
from lathe_compression.verification import PARTS
from lathe_server.engines import RUNTIME

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class FaceProtocol:
    """How an embedding variant is judged.

    Attributes:
        detector: `REPOSITORY/MODEL/VARIANT[/VERSION]`; None takes the recommended variant of the same repository's one
            detection model.
        reference: `REPOSITORY/MODEL/VARIANT[/VERSION]` to compare with; None takes the first of the variant's lineage.
        fmrs: false match rates that the false non-match rate is wanted at.
        seed: of the resamples, and of the draws of a gallery.
    """

    detector: Path | None = None
    reference: Path | None = None
    fmrs: Sequence[float] = FMRS
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises InvalidInput where a rate or the seed makes no sense."""
        if not self.fmrs or not all(0 < fmr <= LARGEST_FMR for fmr in self.fmrs):
            raise InvalidInput(f"a false match rate must be above 0 and no more than {LARGEST_FMR}")
        if self.seed < 0:
            raise InvalidInput("the seed must be a whole number from 0 up")


@dataclass(frozen=True)
class EmbeddingEvaluation:
    """All that was measured of one variant on one set of faces.

    Attributes:
        missing_reference: the variant that the lineage names and the repository lacks; empty where it has it, or where
            another one was named.
        cross: enrolled with the reference, probed with the variant; None for the reference itself, and where the two
            have vectors of different lengths.
        cosine: the mean between the variant's and the reference's vector of the same face; NaN where they cannot be
            compared.
    """

    ref: VariantRef
    reference: VariantRef
    missing_reference: str
    card: card_pb2.Card
    detector: VariantRef
    protocol: FaceProtocol
    data: FaceData
    judged: JudgedFaces
    own: EmbeddingQuality
    its: EmbeddingQuality
    cross: EmbeddingQuality | None
    cosine: float

    @property
    def difference(self) -> Difference:
        """The variant's figures less the reference's."""
        return self.own.less(self.its)

    @property
    def stages(self) -> Mapping[str, float]:
        return self.judged.stage_medians(str(self.ref))

    @property
    def reference_stages(self) -> Mapping[str, float]:
        return self.judged.stage_medians(str(self.reference))

    @property
    def speedup(self) -> float:
        return self.judged.speedup(str(self.ref), str(self.reference))

    def as_json(self) -> dict[str, Any]:
        """The figures with their protocol."""
        cross = self.cross and {"enrolled": self.reference.variant} | self.cross.as_json() | {
            "difference": self.cross.less(self.its).as_json()
        }
        return {
            "variant": str(self.ref),
            "reference_variant": str(self.reference),
            "missing_reference": self.missing_reference or None,
            "space": self.card.embedding.space,
            **self.own.as_json(),
            "reference": self.its.as_json(),
            "difference": self.difference.as_json(),
            "cross": cross,
            "cosine": None if np.isnan(self.cosine) else self.cosine,
            "failures_to_acquire": self.own.failures,
            "pictures": len(self.data.paths),
            "subjects": len(set(self.data.subjects)),
            "pairs": len(self.data.pairs.fold),
            "left_out": self.data.left_out,
            "pairs_left_out": self.data.pairs_left_out,
            "size_bytes": self.card.size_bytes,
            "macs": self.card.macs,
            "speedup": self.speedup,
            "latency_ms": {stage: seconds * 1e3 for stage, seconds in self.stages.items()},
            "reference_latency_ms": {stage: seconds * 1e3 for stage, seconds in self.reference_stages.items()},
            "protocol": self._protocol(),
        }

    def _protocol(self) -> dict[str, Any]:
        decided = "each decided by the threshold that is best on the others; the mean over the folds"
        if self.own.accuracy.is_cut:
            decided = f"one fold, cut into {PARTS} parts; {decided}"
        return {
            "data": self.data.name,
            "folds": self.data.folds,
            "detector": str(self.detector),
            "size_wh": [self.card.serving_size.width, self.card.serving_size.height],
            "face": "the one nearest the middle of the picture, in sides of its box",
            "failure_to_acquire": "a picture in which no face is found; it matches nothing, and its comparisons count",
            "accuracy": decided if len(self.data.pairs.fold) else "not given, since there are no pairs",
            "fnmr": "all comparisons of the pictures, none with itself; the lowest threshold that keeps the rate; not "
            f"given where fewer than {EXPECTED_FALSE_MATCHES} false matches would be expected",
            "card_thresholds": "the card's; its fmr is kept where the interval of the one here reaches down to it, and "
            "neither is told where the comparisons are too few for it",
            "fmrs": [rate_key(fmr) for fmr in self.protocol.fmrs],
            "identification": f"mean of {DRAWS} draws of one picture a subject; rank-1 with every subject enrolled, "
            "fnir at fpir with half of them, first place asked for",
            "cross": "enrolled with the reference, probed with the variant, in both directions of each pair",
            "interval": f"bootstrap over subjects, 95 %, {RESAMPLES} resamples, the threshold found anew in each; "
            "differences paired",
            "seed": self.protocol.seed,
            "latency": "medians over pictures, one thread, the networks taking turns",
            "cpu": cpu_name(),
            "runtime": RUNTIME,
        }


def evaluate_embedding(
    repository: Repository, ref: VariantRef, data: Path, protocol: FaceProtocol, progress: Progress
) -> EmbeddingEvaluation:
    """Judges an embedding variant on a file of pairs or a folder of people.

    Pictures that calibrated or trained the variant or its reference are left out, and counted.

    Raises:
        NotFound: no such data, no detector, or no such reference.
        InvalidInput: data or protocol that make no sense, or no face found in any picture.
    """
    references, reference, missing = _reference(repository, ref, protocol.reference)
    card, reference_card = repository.card(ref), references.card(reference)
    faces = load_faces(data, repository.used_pictures(ref) | references.used_pictures(reference))
    detectors, detector_ref = _detector(repository, protocol.detector)
    embedders = {str(reference): build_embedder(reference_card, references.model_bytes(reference))}
    if ref != reference:
        embedders[str(ref)] = build_embedder(card, repository.model_bytes(ref))
    detector = build_detector(detectors.card(detector_ref), detectors.model_bytes(detector_ref))
    with progress.bar(f"{' and '.join(embedders)}: {len(faces.paths)} pictures", len(faces.paths)) as advance:
        judged = judge_embeddings(embedders, detector, faces.paths, advance)
    own, its = judged.embedded[str(ref)].vectors, judged.embedded[str(reference)].vectors
    subjects = np.array(faces.subjects)

    def measured(
        probes: Vectors, enrolled: Vectors | None, carded: Iterable[card_pb2.MatchThreshold]
    ) -> EmbeddingQuality:
        among = Faces(subjects, probes, enrolled)
        return quality_of(among, faces.pairs, protocol.fmrs, carded=carded, seed=protocol.seed)

    is_comparable = own.shape == its.shape
    with progress.step(f"error rates: {RESAMPLES} resamples"):
        quality = measured(own, None, card.embedding.thresholds)
        reference_quality = quality if ref == reference else measured(its, None, reference_card.embedding.thresholds)
        across = is_comparable and ref != reference
        cross = measured(own, its, _across(card, reference_card.embedding.space)) if across else None
    return EmbeddingEvaluation(
        ref=ref,
        reference=reference,
        missing_reference=missing,
        card=card,
        detector=detector_ref,
        protocol=protocol,
        data=faces,
        judged=judged,
        own=quality,
        its=reference_quality,
        cross=cross,
        cosine=float(np.nanmean((own * its).sum(axis=1))) if is_comparable else float("nan"),
    )


def _across(card: card_pb2.Card, space: str) -> Iterable[card_pb2.MatchThreshold]:
    """A card's thresholds for vectors enrolled in another space."""
    return next((other.thresholds for other in card.embedding.cross_spaces if other.space == space), ())


def _reference(repository: Repository, ref: VariantRef, named: Path | None) -> tuple[Repository, VariantRef, str]:
    """What a variant is compared with, and what it should have been where the repository lacks that.

    Raises:
        NotFound: nothing is published where one was named.
        InvalidInput: one of the same name was named in another repository.
    """
    if named is not None:
        other, reference = parse_variant_path(named)
        if reference == ref and other.root.resolve() != repository.root.resolve():
            raise InvalidInput(f"the reference is named as the variant is, {ref}; publish one under another name")
        return other, reference, ""
    reference = reference_of(repository, ref)
    parent = repository.card(reference).lineage.parent
    return repository, reference, "" if parent in ("", *repository.variants(ref.model)) else parent


def _detector(repository: Repository, named: Path | None) -> tuple[Repository, VariantRef]:
    """The detector that finds the faces.

    Raises:
        NotFound: there is none.
        InvalidInput: what is named detects nothing, or one of several must be named.
    """
    if named is not None:
        other, ref = parse_variant_path(named)
        if other.card(ref).task != card_pb2.TASK_DETECTION:
            raise InvalidInput(f"{ref} is no detector")
        return other, ref
    cards = {model: repository.newest_cards(model) for model in repository.models()}
    detecting = {model: found for model, found in cards.items() if found and found[0].task == card_pb2.TASK_DETECTION}
    if not detecting:
        raise NotFound("the repository has no detection model to find the faces; name one with --detector")
    if len(detecting) > 1:
        raise InvalidInput(f"several models detect ({', '.join(detecting)}); name one with --detector")
    ((model, found),) = detecting.items()
    card = next((one for one in found if one.recommended), found[0])
    return repository, VariantRef(model, card.variant, card.version)


def dump(evaluation: EmbeddingEvaluation) -> str:
    return json.dumps(evaluation.as_json(), indent=2)
