"""lathe evaluate: what a variant keeps of the quality and what it costs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lathe.errors import InvalidInput

if TYPE_CHECKING:
    from lathe.repository import Repository, VariantRef
    from lathe_compression.evaluate import Evaluation

MIN_SCORE, NMS, MAX_DETECTIONS = 0.02, 0.3, 1000

_DETECTION = ("size", "min_score", "nms", "max_detections")
_EMBEDDING = ("detector", "reference", "fmr", "seed")


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="judge a variant on labelled or unlabelled pictures",
        description="Judges a detector on pictures with or without labels, an embedding network on known faces.",
    )
    parser.add_argument("variant", type=Path, help="REPOSITORY/MODEL/VARIANT[/VERSION]")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder of pictures, or COCO labels (file or folder); for an embedding network a pairs.txt with its "
        "pictures beside it, as of Labeled Faces in the Wild, or a folder with a folder of pictures for each person",
    )
    detection = parser.add_argument_group("of detectors")
    detection.add_argument(
        "--size", type=int, metavar="LONG_SIDE", help="scale pictures to this (default: the card's serving size)"
    )
    detection.add_argument("--min-score", type=float, help=f"least score of a detection (default {MIN_SCORE})")
    detection.add_argument("--nms", type=float, help=f"overlap at which the weaker box goes (default {NMS})")
    detection.add_argument("--max-detections", type=int, help=f"most detections a picture (default {MAX_DETECTIONS})")
    embedding = parser.add_argument_group("of embedding networks")
    embedding.add_argument(
        "--detector",
        type=Path,
        metavar="REPOSITORY/MODEL/VARIANT",
        help="finds the faces (default: the recommended variant of the repository's one detection model)",
    )
    embedding.add_argument(
        "--reference",
        type=Path,
        metavar="REPOSITORY/MODEL/VARIANT",
        help="what it is compared with, and whose vectors are enrolled (default: the first variant of its lineage)",
    )
    embedding.add_argument(
        "--fmr",
        type=float,
        action="append",
        metavar="RATE",
        help="false match rate that the false non-match rate is wanted at; no more than 0.05; may be given "
        "several times (default 0.01, 0.001 and 0.0001)",
    )
    embedding.add_argument("--seed", type=int, help="of resamples and galleries (default 0)")
    parser.add_argument("--json", action="store_true", help="print all figures and the protocol as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from lathe.v1 import card_pb2
    from lathe_compression.evaluate import parse_variant_path

    repository, ref = parse_variant_path(options.variant)
    embeds = repository.card(ref).task == card_pb2.TASK_EMBEDDING
    strange = [name for name in (_DETECTION if embeds else _EMBEDDING) if getattr(options, name) is not None]
    if strange:
        kind = "a detector" if embeds else "an embedding network"
        raise InvalidInput(f"--{strange[0].replace('_', '-')} is of {kind}, and {ref} is none")
    if embeds:
        _evaluate_embedding(repository, ref, options)
    else:
        _evaluate_detector(repository, ref, options)


def _evaluate_detector(repository: Repository, ref: VariantRef, options: argparse.Namespace) -> None:
    from lathe.progress import Progress
    from lathe_compression.evaluate import Protocol, dump, evaluate
    from lathe_server.vision.detections import Thresholds

    thresholds = Thresholds(
        _or(options.min_score, MIN_SCORE), _or(options.nms, NMS), _or(options.max_detections, MAX_DETECTIONS)
    )
    evaluation = evaluate(repository, ref, options.data, Protocol(options.size, thresholds), Progress())
    if options.json:
        print(dump(evaluation))
    else:
        show(evaluation)


def _evaluate_embedding(repository: Repository, ref: VariantRef, options: argparse.Namespace) -> None:
    from lathe.cli.evaluated_faces import show_faces
    from lathe.progress import Progress
    from lathe_compression.error_rates import FMRS
    from lathe_compression.evaluate_embedding import FaceProtocol, dump, evaluate_embedding

    protocol = FaceProtocol(options.detector, options.reference, _or(options.fmr, FMRS), _or(options.seed, 0))
    evaluation = evaluate_embedding(repository, ref, options.data, protocol, Progress())
    if options.json:
        print(dump(evaluation))
    else:
        show_faces(evaluation)


T = TypeVar("T")


def _or(given: T | None, default: T) -> T:
    return default if given is None else given


def show(evaluation: Evaluation) -> None:
    """Prints the figures as a table."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    width, height = evaluation.size_wh
    title = f"{evaluation.ref} against {evaluation.reference}, scaled to fit {width}×{height}"
    table = Table(title=title, box=box.SIMPLE_HEAD)
    for heading in ("figure", evaluation.ref.variant, evaluation.reference.variant, "difference (95 %)"):
        table.add_column(heading, justify="left" if heading == "figure" else "right")
    for labels in evaluation.label_sets:
        difference = labels.difference
        table.add_row(
            f"AP@.5 {labels.name}",
            f"{labels.ap50:.4f}",
            f"{labels.reference_ap50:.4f}",
            f"{difference.value:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})",
        )
    agreement = evaluation.agreement
    table.add_row(
        "agreement",
        f"{agreement.value:.4f}",
        "",
        f"({agreement.low:.4f} to {agreement.high:.4f})",
    )
    for stage, seconds in evaluation.stages.items():
        table.add_row(f"{stage}, ms", f"{seconds * 1e3:.2f}", f"{evaluation.reference_stages[stage] * 1e3:.2f}", "")
    table.add_row("speed of infer", f"{evaluation.speedup:.2f}×", "1×", "")
    table.add_row("size, MB", f"{evaluation.size_bytes / 1e6:.2f}", "", "")
    Console().print(table)
    note = f"{evaluation.pictures} pictures, {evaluation.agreement_pictures} of them with detections"
    if evaluation.left_out:
        note += f"; {evaluation.left_out} left out because they made the variant"
    print(note)
