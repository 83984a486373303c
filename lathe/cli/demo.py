"""lathe demo: the whole way, on real videos or with real faces, in minutes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lathe.errors import InvalidInput


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        "demo", help="compress a face detector, serve it, swap it under load, report; or know faces again"
    )
    parser.add_argument("--recipe", type=Path, default=Path("recipes/face.toml"), help="(default %(default)s)")
    parser.add_argument(
        "--output",
        type=Path,
        help="folder; its models are made anew (default work/demo, with --biometric work/demo-biometric)",
    )
    parser.add_argument(
        "--source",
        type=Path,
        action="append",
        default=[],
        metavar="VIDEO",
        help="your own video; give several for several cameras",
    )
    parser.add_argument("--frames", type=Path, metavar="FOLDER", help="your own pictures for evaluation")
    parser.add_argument("--data", type=Path, metavar="COCO", help="labelled pictures, for average precision")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the live part (default %(default)s)")
    parser.add_argument("--price-per-core-hour", type=float, default=0.04, help="US dollars (default %(default)s)")
    parser.add_argument("--experiment", action="store_true", help="go on with an A/B test, to its verdict")
    biometric = parser.add_argument_group("instead")
    biometric.add_argument(
        "--biometric",
        action="store_true",
        help="enrol 40 people, identify them, change the network, delete one; only --models and --output count",
    )
    biometric.add_argument(
        "--models",
        type=Path,
        default=Path("models"),
        metavar="REPOSITORY",
        help="with face and face-embed (default %(default)s)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.biometric:
        return _run_biometric(options)
    from lathe.demo import Demo

    return Demo(
        recipe=options.recipe,
        output=options.output or Path("work/demo"),
        sources=tuple(options.source),
        frames=options.frames,
        data=options.data,
        seconds=options.seconds,
        price_per_core_hour=options.price_per_core_hour,
        experiment=options.experiment,
    ).run()


def _run_biometric(options: argparse.Namespace) -> int:
    if options.source or options.frames or options.data or options.experiment:
        raise InvalidInput("the biometric demo has pictures of its own, and no A/B test")
    from lathe.demo.biometric import BiometricDemo

    return BiometricDemo(options.models, options.output or Path("work/demo-biometric")).run()
