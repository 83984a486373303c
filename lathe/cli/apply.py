"""lathe apply: bring about the route that a file describes."""

from __future__ import annotations

import argparse
import getpass
from pathlib import Path
from typing import Any


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        "apply",
        help="bring about the route that a TOML file describes",
        description="Does nothing where the route says so already; fails where somebody else changes it meanwhile.",
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--control", default="127.0.0.1:8502", metavar="HOST:PORT", help="(default %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="only say whether something would change")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from lathe import config
    from lathe.cli.ctl import print_route
    from lathe.client import Client
    from lathe.route_file import RouteFile

    wanted = config.load(RouteFile, options.file)
    with Client(control=options.control) as client:
        route = client.route(wanted.model)
        newest: dict[str, int] = {}
        for status in client.variants(wanted.model):
            newest[status.card.variant] = max(newest.get(status.card.variant, 0), status.card.version)
        if wanted.holds(route, newest):
            print(f"{wanted.model}: nothing to do")
        elif options.dry_run:
            print(f"{wanted.model}: would change revision {route.revision}:")
            print_route(route)
            return
        else:
            route = client.set_route(
                wanted.model,
                {one.variant: one.weight for one in wanted.weights},
                expected_revision=route.revision,
                author=getpass.getuser(),
                reason=wanted.reason or f"lathe apply {options.file.name}",
                degrade=wanted.degrade.to if wanted.degrade else (),
                degrade_after_seconds=wanted.degrade.after_seconds if wanted.degrade else 0.1,
                shadow=wanted.shadow.variant if wanted.shadow else "",
                shadow_share=wanted.shadow.share if wanted.shadow else 0.1,
                rules={one.fits: one.variant for one in wanted.rules},
                labels={one.name: one.variant for one in wanted.labels},
            )
        print_route(route)
