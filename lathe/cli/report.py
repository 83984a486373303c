"""lathe report: all variants of a model on one page, and which to serve."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lathe.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from lathe.figures import Comparison
    from lathe.repository import Repository
    from lathe.v1 import card_pb2

PAGE_SUFFIXES = (".html", ".htm")


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        "report",
        help="compare a model's variants on one page, and recommend one",
        description="Writes one HTML file that needs nothing else, and the same figures as JSON beside it. Without "
        "--data the figures are those of the cards.",
    )
    parser.add_argument("model", type=Path, help="REPOSITORY/MODEL")
    parser.add_argument(
        "--data", type=Path, help="folder of pictures, or COCO labels (file or folder): measure on these"
    )
    parser.add_argument(
        "--size", type=int, metavar="LONG_SIDE", help="scale pictures to this (default: the serving size)"
    )
    parser.add_argument("--max-latency-ms", type=float, metavar="X", help="limit of the network's time for a frame")
    parser.add_argument("--min-ap", type=float, metavar="Y", help="least AP@.5, 0 to 1")
    parser.add_argument("--max-size-mb", type=float, metavar="Z", help="limit of the file's size")
    parser.add_argument("--price-per-core-hour", type=float, default=0.04, help="US dollars (default %(default)s)")
    parser.add_argument(
        "--watts-per-core",
        type=float,
        default=5.0,
        help="of a busy core, for the estimate of energy (default %(default)s)",
    )
    parser.add_argument("--output", type=Path, default=Path("report.html"), help="(default %(default)s)")
    parser.add_argument("--markdown", type=Path, metavar="FILE.md", help="also as Markdown, with drawings beside it")
    parser.add_argument("--preface", type=Path, metavar="FILE.md", help="what the Markdown begins with")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from lathe.comparison_page import write_page
    from lathe.figures import Rates, load_cards
    from lathe.fronts import check_limits
    from lathe.making import parse_making
    from lathe.markdown_page import write_markdown
    from lathe.recommend import Limits
    from lathe.repository import VariantRef
    from lathe.v1 import card_pb2

    output: Path = options.output
    if output.suffix.lower() not in PAGE_SUFFIXES:
        raise InvalidInput(f"{output.name} must end in .html")
    markdown: Path | None = options.markdown
    if markdown and markdown.suffix.lower() != ".md":
        raise InvalidInput(f"{markdown.name} must end in .md")
    if options.preface and not markdown:
        raise InvalidInput("--preface is the beginning of --markdown, which is not given")
    for folder in {output.parent, *([markdown.parent] if markdown else [])}:
        if not folder.is_dir():
            raise NotFound(f"there is no folder {folder}")
    preface = _read(options.preface) if options.preface else ""
    if options.size is not None and options.data is None:
        raise InvalidInput("--size scales the pictures of --data, which is not given")
    limits = Limits(options.max_latency_ms, options.min_ap, options.max_size_mb)
    rates = Rates(options.price_per_core_hour, options.watts_per_core)
    repository, model = parse_model_path(options.model)
    makings = {}
    cards = load_cards(repository, model)
    embeds = any(card.task == card_pb2.TASK_EMBEDDING for card in cards.values())
    if embeds and (options.data or options.min_ap is not None):
        raise InvalidInput(
            f"{model} is an embedding network, whose report is of its cards, without --data and --min-ap; "
            "lathe evaluate judges one of its variants on faces of known people"
        )
    for name, card in cards.items():
        ref = VariantRef(model, name, card.version)
        if (content := repository.making(ref)) is not None:
            makings[name] = parse_making(content, str(ref))
    comparison = _compare(repository, cards, options)
    check_limits(comparison, limits)
    chosen = write_page(comparison, makings, limits, rates, output)
    if markdown:
        write_markdown(comparison, makings, rates, markdown, preface)
    print(
        " ".join([f"Serve {chosen.variant}." if chosen.variant else "No variant can be recommended.", *chosen.reasons])
    )
    told = f"report: {output}  figures: {output.with_suffix('.json')}"
    print(f"{told}  markdown: {markdown}" if markdown else told)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise NotFound(f"{path} cannot be read: {error}") from error


def parse_model_path(path: Path) -> tuple[Repository, str]:
    """`REPOSITORY/MODEL` as its parts.

    Raises:
        NotFound: there is no such repository.
        InvalidInput: no model is named.
    """
    from lathe.repository import Repository

    if not path.name or path.name == "..":
        raise InvalidInput(f"{path} is not REPOSITORY/MODEL")
    return Repository(path.parent), path.name


def _compare(repository: Repository, cards: dict[str, card_pb2.Card], options: argparse.Namespace) -> Comparison:
    """On the pictures of --data, else from the cards."""
    from lathe.carded_figures import compare_cards

    if options.data is None:
        return compare_cards(cards)
    from lathe.progress import Progress
    from lathe_compression.compare import compare_on_pictures
    from lathe_compression.evaluate import Protocol

    return compare_on_pictures(repository, cards, options.data, Protocol(options.size), Progress())
