"""lathe load compare: what a change of the server has done to the figures of a load test, for CI."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lathe.cli.output_file import check_output
from lathe.errors import InvalidInput

if TYPE_CHECKING:
    from lathe_loadtest.compare import Comparison

WORDS = ("load", "compare")
"""Which `lathe.cli` takes for one, because the argument of `lathe load` is free."""
NOT_JUDGED = 2


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        " ".join(WORDS),
        help="judge a load test against an earlier one",
        description="Exit code 0: no regression is shown. 1: a figure is worse by more than is allowed, beyond its "
        "interval. 2: the two cannot be judged: a file is no result, a run is invalid, the loads differ, or there are "
        "too few seconds or frames.",
    )
    parser.add_argument("a", type=Path, metavar="A.json", help="result of the run before")
    parser.add_argument("b", type=Path, metavar="B.json", help="result of the run to judge")
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="FIGURE=CHANGE",
        help="what may be worse, such as p99=10%% or unanswered=0.1%% (in points); figures are p50, p90, p99, p99.9 "
        "and cpu (default 5%%), unanswered (default 1%%)",
    )
    parser.add_argument(
        "--alpha", type=float, default=0.05, help="chance of a false alarm, over all figures (default %(default)s)"
    )
    parser.add_argument("--anyway", action="store_true", help="judge also invalid runs, and different loads")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--output", type=Path, metavar="FILE.html", help="also write a page")
    parser.set_defaults(run=run, error_code=NOT_JUDGED)  # 1 would say that there is a regression


def run(options: argparse.Namespace) -> int:
    """
    Returns:
        The exit code.
    """
    check_output("--output", options.output)
    from lathe_loadtest.compare import compare
    from lathe_loadtest.compare_page import as_json, page
    from lathe_loadtest.result import read_result

    allowed = dict(parse_allowed(word) for word in options.allow)
    a, b = read_result(options.a), read_result(options.b)
    found = compare(a, b, allowed, alpha=options.alpha, anyway=options.anyway)
    if options.json:
        print(as_json(found), end="")
    else:
        _show(found)
    if options.output:
        page(a, b, found, (options.a.name, options.b.name)).save(options.output)
    return found.exit_code


def parse_allowed(word: str) -> tuple[str, float]:
    """
    Raises:
        InvalidInput: not FIGURE=CHANGE, or a number of percent without its sign.

    >>> parse_allowed("p99=10%"), parse_allowed("p50=0.05")
    (('p99', 0.1), ('p50', 0.05))
    """
    name, sign, text = word.partition("=")
    number = text.removesuffix("%")
    try:
        if not sign:
            raise ValueError
        change = float(number) / (1 if number == text else 100)
    except ValueError:
        raise InvalidInput(f"{word} is not FIGURE=CHANGE, such as p99=10%") from None
    if change >= 1 and number == text:
        raise InvalidInput(f"{word} allows {change:.0%}: say {word}%, or {name}={change:.0%}")
    return name, change


def _show(found: Comparison) -> None:
    from lathe.cli.figure_table import show
    from lathe_loadtest.compare_page import HEADINGS, how_to_read, rows

    show(HEADINGS, rows(found), ("figure", "verdict"))
    for note in found.notes:
        print(f"{note[0].upper()}{note[1:]}.")
    print(how_to_read(found))
    print(found.sentence)
