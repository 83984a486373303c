"""lathe plan: cameras a machine carries with each variant, and the price of a camera-month."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lathe.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lathe.v1 import card_pb2
    from lathe_loadtest.plan import Need
    from lathe_loadtest.result import LoadResult
    from lathe_loadtest.utilisation import Utilisation

ENOUGH_ANSWERED = 0.99


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
        nargs="+",
        default=[],
        metavar="FILE.json",
        help="what lathe load --find-capacity wrote of variants that are --measured; or load tests at the server's "
        "capacity, of one variant each",
    )
    parser.add_argument(
        "--utilisation",
        type=float,
        help="share of the cores that the server may use (default: that of --at-capacity, else 0.7)",
    )
    parser.add_argument(
        "--cores",
        type=int,
        help="of the machine that was measured (default: those of the load test's, where its server ran there, too; "
        "without one what there are)",
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
    from lathe_loadtest.plan import Instance, Prices, carded_needs, plan_rows

    if options.model is None and not options.measured:
        raise InvalidInput("a plan needs REPOSITORY/MODEL or --measured")
    if options.cores is not None and options.cores < 1:
        raise InvalidInput("--cores must be 1 or above")
    if options.utilisation is not None and options.at_capacity:
        raise InvalidInput("--utilisation takes the place of --at-capacity: give one of them")
    cards = _cards(options.model)
    measured, results = _measured(options.measured)
    carded = carded_needs(cards, measured)
    needs = {**carded.needs, **measured}
    ordered = [*(name for name in cards if name in needs), *(name for name in needs if name not in cards)]
    if not ordered:
        raise InvalidInput("no card holds a latency, and no load test was given")
    machine = Instance(_machine_name(results), options.cores or _cores(results))
    utilisations = _utilisations(options, ordered, measured, machine.cores)
    prices = config.load(Prices, options.prices) if options.prices else None
    rows = plan_rows(
        [needs[name] for name in ordered],
        [machine, *(prices.instances if prices else ())],
        fps=options.fps,
        utilisations={name: one.share for name, one in utilisations.items()},
        hours_a_month=prices.hours_a_month if prices else 730.0,
        cameras_wanted=options.cameras,
    )
    said = plan_text.assumptions(
        fps=options.fps,
        utilisations=utilisations,
        overhead_seconds=carded.added_seconds if carded.needs else None,
        overhead_is_measured=carded.is_measured,
        hours_a_month=prices.hours_a_month if prices else None,
        cpus=_cpus(cards, list(carded.needs), list(results.values())),
        this_cpu="" if results else cpu_name(),
        has_speeds=any(one.speed != 1 for one in (prices.instances if prices else ())),
    )
    said += [f"The card of {name} holds no latency, so it is not in the table." for name in carded.untold]
    said += _overloads(results)
    currency = prices.currency if prices else ""
    if options.json:
        print(plan_text.as_json(rows, said, options.fps, currency), end="")
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


def _measured(paths: list[Path]) -> tuple[dict[str, Need], dict[str, LoadResult]]:
    """Needs by variant, and results by the names of their files."""
    from lathe_loadtest.plan import measured_need
    from lathe_loadtest.result import read_result

    needs, results = {}, {}
    for path in paths:
        result = read_result(path)
        need = measured_need(result, path.name)
        if need.variant in needs:
            raise InvalidInput(f"{path.name} is of {need.variant}, of which another load test was given")
        needs[need.variant] = need
        results[path.name] = result
    return needs, results


def _machine_name(results: Mapping[str, LoadResult]) -> str:
    from lathe_loadtest.plan import SERVERS_MACHINE, THIS_MACHINE

    return THIS_MACHINE if all(one.is_local for one in results.values()) else SERVERS_MACHINE


def _cores(results: Mapping[str, LoadResult]) -> int:
    from lathe.machine import available_cores

    for name, result in results.items():
        if not result.is_local:  # its machine is the driver's
            raise InvalidInput(f"{name} does not know how many cores the server at {result.address} has: say --cores")
    counts = {result.machine.cores for result in results.values()}
    if len(counts) > 1:
        raise InvalidInput("the load tests are of machines with different numbers of cores: say --cores")
    return counts.pop() if counts else available_cores()


def _utilisations(
    options: argparse.Namespace, variants: list[str], measured: Mapping[str, Need], cores: int
) -> dict[str, Utilisation]:
    from lathe_loadtest.json_file import text_of
    from lathe_loadtest.utilisation import at_capacity, of_variants

    found: dict[str, Utilisation] = {}
    for path in options.at_capacity:
        variant, one = at_capacity(text_of(path), path.name, measured, cores)
        if variant in found:
            raise InvalidInput(f"{path.name} is of {variant}, of which another capacity was given")
        found[variant] = one
    return of_variants(variants, found, options.utilisation)


def _overloads(results: Mapping[str, LoadResult]) -> list[str]:
    """Of runs whose server did work for frames that it did not answer."""
    found = []
    for name, result in results.items():
        answered = result.outcomes["answered"] / result.outcomes.total()
        if answered < ENOUGH_ANSWERED:
            found.append(
                f"In {name} {answered:.1%} of the frames were answered; what the others took counts as theirs."
            )
    return found


def _cpus(cards: Mapping[str, card_pb2.Card], carded: list[str], results: list[LoadResult]) -> list[str]:
    from lathe.carded_figures import serving_latency

    found = {one.machine.cpu if one.is_local else f"the machine of {one.address}" for one in results}
    found |= {latency.cpu for name in carded if (latency := serving_latency(cards[name]))}
    return sorted(found)
