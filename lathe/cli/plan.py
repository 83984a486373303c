"""lathe plan: cameras a machine carries with each variant, and the price of a camera-month."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lathe.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lathe.v1 import card_pb2
    from lathe_loadtest.plan import Need
    from lathe_loadtest.result import LoadResult


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        "plan",
        help="how many cameras a machine carries, and what one costs",
        description="Counts from what was measured: by load tests, of one variant each, and for the other variants by "
        "their cards. Prices are those of a file of your own; recipes/prices.toml shows its form.",
    )
    parser.add_argument("model", type=Path, nargs="?", help="REPOSITORY/MODEL, whose cards are read")
    parser.add_argument("--fps", type=float, default=10.0, help="of a camera (default %(default)g)")
    parser.add_argument(
        "--measured", type=Path, nargs="+", default=[], metavar="RESULT.json", help="load tests of one variant each"
    )
    parser.add_argument(
        "--at-capacity",
        type=Path,
        metavar="FILE.json",
        help="what lathe load --find-capacity wrote, with the one --measured variant that was searched for; or a load "
        "test at the server's capacity",
    )
    parser.add_argument(
        "--utilisation",
        type=float,
        help="share of the cores that the server may use (default: that of --at-capacity, else 0.7)",
    )
    parser.add_argument(
        "--cores", type=int, help="of this machine (default: those of the load test's machine, else what there are)"
    )
    parser.add_argument("--prices", type=Path, metavar="FILE.toml", help="instances with their cores and prices")
    parser.add_argument("--cameras", type=int, default=0, metavar="N", help="also: how many machines N cameras need")
    parser.add_argument("--json", action="store_true", help="print all figures and assumptions as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from lathe import config
    from lathe.carded_figures import compare_cards
    from lathe.cli.figure_table import show
    from lathe.machine import cpu_name
    from lathe_loadtest import plan_text
    from lathe_loadtest.plan import THIS_MACHINE, Instance, Prices, carded_needs, plan_rows

    if options.model is None and not options.measured:
        raise InvalidInput("a plan needs REPOSITORY/MODEL or --measured")
    if options.cores is not None and options.cores < 1:
        raise InvalidInput("--cores must be 1 or above")
    cards = _cards(options.model)
    measured, results = _measured(options.measured)
    needs, overhead, untold = carded_needs(cards, measured)
    names = [*measured, *needs]
    ordered = [name for name in cards if name in names] + [name for name in names if name not in cards]
    if not ordered:
        raise InvalidInput("no card holds a latency, and no load test was given")
    cores = options.cores or _cores(results)
    utilisation, why = _utilisation(options, measured, cores)
    prices = config.load(Prices, options.prices) if options.prices else None
    rows = plan_rows(
        [measured.get(name) or needs[name] for name in ordered],
        [Instance(THIS_MACHINE, cores), *(prices.instances if prices else ())],
        fps=options.fps,
        utilisation=utilisation,
        hours_a_month=prices.hours_a_month if prices else 730.0,
        cameras_wanted=options.cameras,
    )
    said = plan_text.assumptions(
        fps=options.fps,
        utilisation=utilisation,
        utilisation_source=why,
        overhead_seconds=overhead if needs else None,
        overhead_is_measured=any(name in cards for name in measured),
        hours_a_month=prices.hours_a_month if prices else None,
        cpus=_cpus(cards, list(needs), results),
        this_cpu="" if results else cpu_name(),
        has_speeds=any(one.speed != 1 for one in (prices.instances if prices else ())),
    )
    said += [f"The card of {name} holds no latency, so it is not in the table." for name in untold]
    currency = prices.currency if prices else ""
    if options.json:
        print(plan_text.as_json(rows, said, options.fps, utilisation, currency), end="")
        return
    comparison = compare_cards(cards) if cards else None
    qualities = {name: one.quality for name, one in comparison.figures.items()} if comparison else {}
    table = (comparison.quality_name if comparison else "", currency, options.cameras)
    show(plan_text.headings(*table), plan_text.cells(rows, qualities, *table), ("machine", "variant", "from"))
    print("\n".join([*plan_text.summary(rows, options.fps, currency), "", *(f"* {one}" for one in said)]))


def _cards(path: Path | None) -> Mapping[str, card_pb2.Card]:
    from lathe.cli.report import parse_model_path
    from lathe.figures import load_cards

    return load_cards(*parse_model_path(path)) if path else {}


def _measured(paths: list[Path]) -> tuple[dict[str, Need], list[LoadResult]]:
    from lathe_loadtest.plan import measured_need
    from lathe_loadtest.result import read_result

    needs, results = {}, []
    for path in paths:
        result = read_result(path)
        need = measured_need(result, path.name)
        if need.variant in needs:
            raise InvalidInput(f"{path.name} is of {need.variant}, of which another load test was given")
        needs[need.variant] = need
        results.append(result)
    return needs, results


def _cores(results: list[LoadResult]) -> int:
    from lathe.machine import available_cores

    counts = {result.machine.cores for result in results}
    if len(counts) > 1:
        raise InvalidInput("the load tests are of machines with different numbers of cores: say --cores")
    return counts.pop() if counts else available_cores()


def _utilisation(options: argparse.Namespace, measured: Mapping[str, Need], cores: int) -> tuple[float, str]:
    from lathe_loadtest.plan import UTILISATION, utilisation_found, utilisation_of
    from lathe_loadtest.result import from_json

    if options.utilisation is not None:
        return options.utilisation, "as was asked for"
    if not options.at_capacity:
        return UTILISATION, "a rule of thumb, as no capacity was measured (--at-capacity)"
    name = options.at_capacity.name
    text = _text(options.at_capacity)
    if '"searches"' not in text:
        return utilisation_of(from_json(text, name), cores, name), f"what it used at its capacity in {name}"
    if len(measured) != 1:
        raise InvalidInput(f"{name} does not say which variant it is of: give --measured of that one alone")
    try:
        table = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"{name} is not JSON: {error}") from error
    (need,) = measured.values()
    return utilisation_found(table, need, cores, name), f"what {need.variant} takes at the capacity found in {name}"


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise NotFound(f"there is no file {path.name}", detail=str(error)) from error


def _cpus(cards: Mapping[str, card_pb2.Card], carded: list[str], results: list[LoadResult]) -> list[str]:
    from lathe.carded_figures import serving_latency

    found = {result.machine.cpu for result in results}
    found |= {latency.cpu for name in carded if (latency := serving_latency(cards[name]))}
    return sorted(found)
