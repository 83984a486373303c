"""lathe evaluate: what a variant keeps of the quality and what it costs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lathe_compression.evaluate import Evaluation


def add_command(commands: Any) -> None:
    parser = commands.add_parser("evaluate", help="judge a variant on labelled or unlabelled pictures")
    parser.add_argument("variant", type=Path, help="REPOSITORY/MODEL/VARIANT[/VERSION]")
    parser.add_argument("--data", type=Path, required=True, help="folder of pictures, or COCO labels (file or folder)")
    parser.add_argument(
        "--size", type=int, metavar="LONG_SIDE", help="scale pictures to this (default: the card's serving size)"
    )
    parser.add_argument(
        "--min-score", type=float, default=0.02, help="least score of a detection (default %(default)s)"
    )
    parser.add_argument(
        "--nms", type=float, default=0.3, help="overlap at which the weaker box goes (default %(default)s)"
    )
    parser.add_argument(
        "--max-detections", type=int, default=1000, help="most detections a picture (default %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print all figures and the protocol as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from lathe.progress import Progress
    from lathe_compression.evaluate import Protocol, dump, evaluate, parse_variant_path
    from lathe_server.vision.detections import Thresholds

    repository, ref = parse_variant_path(options.variant)
    thresholds = Thresholds(options.min_score, options.nms, options.max_detections)
    evaluation = evaluate(repository, ref, options.data, Protocol(options.size, thresholds), Progress())
    if options.json:
        print(dump(evaluation))
    else:
        show(evaluation)


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
