"""`python -m lathe_loadtest.bench`: runs the scenarios that are asked for and says how they went."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lathe.errors import LatheError
from lathe.machine import cpu_name
from lathe.progress import Progress
from lathe_loadtest.bench import endurance, scenarios
from lathe_loadtest.bench.h2load import H2LOAD
from lathe_loadtest.bench.heavier import publish_heavier
from lathe_loadtest.bench.hostile import hostile
from lathe_loadtest.bench.page import (
    DEGRADE,
    DEGRADE_TWICE,
    ENGINES,
    HOSTILE,
    LOAD,
    ONE_CALLER,
    TENSORS,
    UNARY,
    WATCHED,
    rows,
    said,
    write_page,
)
from lathe_loadtest.bench.rig import Rig
from lathe_loadtest.bench.tensor_calls import tensor_calls
from lathe_loadtest.bench.watching import watched

LONG = ("soak", "storm")
"""Run where they are asked for alone."""
LOADS = (0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.25, 1.5, 2.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repository", type=Path)
    parser.add_argument("--variant", default="int8")
    parser.add_argument("--cheaper", default="student-int8")
    parser.add_argument("--cheapest", default="student-int8", help="to degrade to in the end (default %(default)s)")
    parser.add_argument("--unary", default="fp32", metavar="VARIANT", help="for unary calls (default %(default)s)")
    parser.add_argument(
        "--unary-ms", type=float, metavar="MS", help="add work to that variant until its network takes so long"
    )
    parser.add_argument("--peers", type=Path, default=Path("work/peers"), help="environments of other servers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each single measurement (default %(default)s)")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="SCENARIO", help="measure these anew, and keep the others' figures"
    )
    parser.add_argument("--output", type=Path, default=Path("work/bench"))
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the figures as a page")
    parser.add_argument("--preface", type=Path, metavar="FILE", help="what stands before them there")
    options = parser.parse_args()
    variant, cheaper, called = options.variant, options.cheaper, options.unary
    way_down = list(dict.fromkeys([called, variant, cheaper, options.cheapest]))
    rig = Rig(options.repository, options.output, seconds=options.seconds, rounds=options.rounds)
    if options.unary_ms and rig.has(called):
        called = f"{called}-heavier"
        publish_heavier(
            rig, options.repository, options.unary, called, lambda raw: raw.infer_ms, lambda _: options.unary_ms
        )
    known: dict[str, Callable[[], scenarios.Figures]] = {
        f"throughput {variant}": partial(scenarios.throughput, rig, variant),
        f"throughput {cheaper}": partial(scenarios.throughput, rig, cheaper),
        ENGINES: partial(scenarios.engines, rig, variant),
        ONE_CALLER: partial(scenarios.one_caller, rig, variant),
        UNARY: partial(scenarios.unary, rig, called, options.peers),
        TENSORS: partial(tensor_calls, rig, called, options.peers),
        "steady": partial(scenarios.steady, rig, variant),
        "overload": partial(scenarios.overload, rig, variant),
        "flood": partial(scenarios.flood, rig, variant),
        "swaps": partial(scenarios.swaps, rig, variant),
        HOSTILE: partial(hostile, rig, variant),
        WATCHED: partial(watched, rig, variant),
        "shadow": partial(scenarios.shadow, rig, variant),
        DEGRADE: partial(scenarios.degrade, rig, variant, [cheaper]),
        DEGRADE_TWICE: partial(scenarios.degrade, rig, way_down[0], way_down[1:]),
        **{f"{LOAD}{share:g}": partial(scenarios.load, rig, variant, share) for share in LOADS},
        "footprint": partial(scenarios.footprint, rig, [variant, cheaper]),
        "soak": partial(endurance.soak, rig, variant),
        "storm": partial(endurance.storm, rig, variant),
    }
    left_out = _left_out(rig, options.unary, way_down)
    figures = options.output / "bench.json"
    report = json.loads(figures.read_text("utf-8")) if options.only and figures.exists() else {}
    for name, measure in known.items():
        if name not in (options.only or known.keys() - set(LONG)):
            continue
        if name in left_out:
            print(f"{name} is left out: {left_out[name]}", file=sys.stderr)
            continue
        with Progress().step(name):
            report[name] = dict(measure())
    chosen = [row for row in rows(variant, cheaper, called, way_down) if row.figure in report.get(row.scenario, {})]
    table = Table("", "measured", "bar", "aim", title=f"{cpu_name()}, medians of {options.rounds}")
    for row in chosen:
        table.add_row(row.text, said(row, report), row.bar, row.aim)
    Console().print(table)
    figures.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    if options.markdown:
        preface = options.preface.read_text("utf-8") if options.preface else "# Serving, measured"
        cores = "one core for the server, one for who drives it"
        measured_on = f"{cpu_name()}: {cores}; medians of at least {options.rounds}; the plot is of one run."
        write_page(options.markdown, preface, measured_on, chosen, report)


def _left_out(rig: Rig, called: str, way_down: Sequence[str]) -> dict[str, str]:
    """Scenarios that cannot be had here, and why."""
    found = {}
    if not find_spec("openvino"):
        found[ENGINES] = "OpenVINO is not installed"
    if not rig.has(called):
        found[UNARY] = found[TENSORS] = found[DEGRADE_TWICE] = f"the repository has no variant {called}"
    if len(way_down) < 3:
        found[DEGRADE_TWICE] = f"there is no third variant beside {' and '.join(way_down)}"
    if not shutil.which(H2LOAD):
        found[ONE_CALLER] = found[UNARY] = found[TENSORS] = f"{H2LOAD} is not installed (Debian: nghttp2-client)"
    return found


if __name__ == "__main__":
    try:
        main()
    except LatheError as error:
        sys.exit(f"bench: {error.message}")
