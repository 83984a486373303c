"""lathe demo: the whole way, on real videos or with real faces, in minutes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lathe.errors import InvalidInput

OF_CAMERAS = ("recipe", "source", "frames", "data", "seconds", "price_per_core_hour", "experiment")
"""Options that the biometric demo has not; None where they are not given."""


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        "demo", help="compress a face detector, serve it, swap it under load, report; or know faces again"
    )
    parser.add_argument("--recipe", type=Path, help="(default recipes/face.toml)")
    parser.add_argument(
        "--output",
        type=Path,
        help="folder; its models are made anew (default work/demo, with --biometric work/demo-biometric)",
    )
    parser.add_argument(
        "--source",
        type=Path,
        action="append",
        metavar="VIDEO",
        help="your own video; give several for several cameras",
    )
    parser.add_argument("--frames", type=Path, metavar="FOLDER", help="your own pictures for evaluation")
    parser.add_argument("--data", type=Path, metavar="COCO", help="labelled pictures, for average precision")
    parser.add_argument("--seconds", type=float, help="length of the live part (default 20)")
    parser.add_argument("--price-per-core-hour", type=float, help="US dollars (default 0.04)")
    parser.add_argument(
        "--experiment", action="store_true", default=None, help="go on with an A/B test, to its verdict"
    )
    biometric = parser.add_argument_group("instead")
    biometric.add_argument(
        "--biometric",
        action="store_true",
        help="enrol 40 people, identify them, change the network, delete one; goes with --models and --output alone",
    )
    biometric.add_argument(
        "--models",
        type=Path,
        metavar="REPOSITORY",
        help="with face and face-embed (default models)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    given = {name: value for name in OF_CAMERAS if (value := getattr(options, name)) is not None}
    if options.biometric:
        if given:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise InvalidInput(f"--biometric goes with --models and --output alone, not with {flags}")
        from lathe.demo.biometric import BiometricDemo

        return BiometricDemo(options.models or Path("models"), options.output or Path("work/demo-biometric")).run()
    if options.models:
        raise InvalidInput("--models goes with --biometric")
    from lathe.demo import Demo

    return Demo(options.output or Path("work/demo"), sources=given.pop("source", ()), **given).run()
