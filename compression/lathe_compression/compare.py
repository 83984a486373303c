"""A comparison of all variants of a model on pictures of the user's own, for `lathe report`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path

from lathe.evidence import Interval
from lathe.figures import AGREEMENT, AP, Comparison, Figures, Pictures, Quality, common_reference, reference_first
from lathe.machine import cpu_name
from lathe.progress import Progress
from lathe.repository import Repository, VariantRef
from lathe.v1 import card_pb2
from lathe_compression.disagreement import LEGEND, show, worst
from lathe_compression.evaluate import Evaluation, Protocol, Together, evaluate_together, seen_by_users
from lathe_server.engines import RUNTIME

PICTURES_PER_VARIANT = 4


def compare_on_pictures(
    repository: Repository,
    cards: Mapping[str, card_pb2.Card],
    data: Path,
    protocol: Protocol,
    progress: Progress,
) -> Comparison:
    """Judges all variants in turns with their reference.

    Average precision decides where there are labels, of the label file `medium` or else the first; agreement
    where there are none.

    Raises:
        NotFound: no such data.
        InvalidInput: labels or protocol that make no sense, or every picture made some variant.
    """
    ordered = reference_first(cards, common_reference(cards))
    refs = {name: VariantRef(card.model, name, card.version) for name, card in ordered.items()}
    reference = next(iter(refs))
    together = evaluate_together(repository, list(refs.values()), refs[reference], data, protocol, progress)
    evaluations = dict(zip(refs, together.evaluations, strict=True))
    deciding = _deciding(list(together.samples))
    with progress.bar("pictures: draw", len(refs) - 1) as advance:
        disagreements = {}
        for name in list(refs)[1:]:
            disagreements[name] = _disagreements(together, refs[name], ordered[name])
            advance()
    return Comparison(
        reference,
        ordered,
        {name: _figures(one, name == reference, deciding) for name, one in evaluations.items()},
        f"{AP} {deciding}" if deciding else AGREEMENT,
        source=_source(together, evaluations[reference], data),
        differences=_differences(together, refs, deciding),
        disagreements=disagreements,
        legend=LEGEND,
        facts={"from": data.name, "evaluations": {name: one.as_json() for name, one in evaluations.items()}},
    )


def _deciding(label_sets: Sequence[str]) -> str:
    """Of several label files one decides; none where there are no labels."""
    return "medium" if "medium" in label_sets else next(iter(label_sets), "")


def _figures(evaluation: Evaluation, is_reference: bool, deciding: str) -> Figures:
    precisions = [
        Quality(f"{AP} {one.name}", one.ap50, None if is_reference else one.difference)
        for one in sorted(evaluation.label_sets, key=lambda one: one.name != deciding)
    ]
    agreement = Quality(AGREEMENT, evaluation.agreement.value, None if is_reference else evaluation.agreement)
    return Figures(
        qualities=(*precisions, agreement),
        infer_ms=evaluation.stages["infer"] * 1e3,
        frame_ms=evaluation.stages["total"] * 1e3,
        speedup=evaluation.speedup,
    )


def _differences(together: Together, refs: Mapping[str, VariantRef], deciding: str) -> dict[tuple[str, str], Interval]:
    """Of every two variants; none where agreement decides, which compares with the reference alone."""
    if not deciding:
        return {}
    samples = together.samples[deciding]
    return {(one, other): samples[refs[one]].less(samples[refs[other]]) for one, other in permutations(refs, 2)}


def _disagreements(together: Together, ref: VariantRef, card: card_pb2.Card) -> Pictures:
    theirs = seen_by_users(together.judged[together.reference], card)
    ours = seen_by_users(together.judged[ref], card)
    return [
        (
            show(Path(key), theirs[key], ours[key]),
            f"{Path(key).name}: {alone} box{'es' if alone > 1 else ''} by one of the two alone",
        )
        for key, alone in worst(theirs, ours, PICTURES_PER_VARIANT)
    ]


def _source(together: Together, evaluation: Evaluation, data: Path) -> list[str]:
    width, height = evaluation.size_wh
    thresholds = evaluation.protocol.thresholds
    sentences = [
        f"Measured on {cpu_name()}, {RUNTIME}; networks run on one thread and take turns on every picture.",
        f"{evaluation.pictures} pictures of {data.name}, scaled to fit into {width}×{height}.",
        f"Least score {thresholds.min_score:g}, overlap {thresholds.nms:g}, at most {thresholds.max_detections} "
        "detections a picture for average precision; agreement at the cards' own least score.",
        "Intervals are 95 % of 1000 resamples of the pictures, paired.",
    ]
    if together.data.left_out:
        sentences.append(f"{together.data.left_out} pictures are left out because they made a variant.")
    return sentences
