"""lathe repo: look at a repository without a server, check it, clear it out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lathe.errors import InvalidInput


def add_command(commands: Any) -> None:
    parser = commands.add_parser("repo", help="list, verify and clear out a repository")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    listed = verbs.add_parser("ls", help="every version, and the route of each model")
    listed.set_defaults(run=list_versions)
    verified = verbs.add_parser(
        "verify", help="check every file against its card; exit code 1 where something is wrong"
    )
    verified.set_defaults(run=verify)
    cleared = verbs.add_parser("gc", help="remove old versions that none of a model's three newest routes names")
    cleared.add_argument("--keep", type=int, default=2, help="newest versions of each variant (default %(default)s)")
    cleared.add_argument("--dry-run", action="store_true", help="only say which")
    cleared.set_defaults(run=clear_out)
    for verb in (listed, verified, cleared):
        verb.add_argument("repository", type=Path)


def list_versions(options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from lathe.errors import LatheError
    from lathe.housekeeping import versions
    from lathe.repository import Repository

    repository = Repository(options.repository)
    table = Table()
    for heading in ("version", "made", "MB", "on the route"):
        table.add_column(heading, no_wrap=heading == "version")
    shares: dict[str, str] = {}
    for model in repository.newest_revisions():
        try:
            route = repository.route(model)
        except LatheError:
            continue  # `verify` tells
        if route:
            cheaper = {f"{model}/{one.variant}/{one.version}": "to degrade to" for one in route.degrade.variants}
            shares |= cheaper | {f"{model}/{one.variant}/{one.version}": str(one.weight) for one in route.weights}
    for ref in versions(repository):
        try:
            card = repository.card(ref)
        except LatheError as error:
            table.add_row(str(ref), error.message, "", "")
            continue
        made = card.created_at.ToDatetime().strftime("%Y-%m-%d %H:%M")
        table.add_row(str(ref), made, f"{card.size_bytes / 1e6:.2f}", shares.get(str(ref), ""))
    Console().print(table)


def verify(options: argparse.Namespace) -> int:
    from lathe.housekeeping import problems, versions
    from lathe.repository import Repository

    repository = Repository(options.repository)
    found = list(problems(repository))
    for problem in found:
        print(f"{problem.where}: {problem.what}")
    print(f"{len(list(versions(repository)))} versions, {len(found)} problems")
    return 1 if found else 0


def clear_out(options: argparse.Namespace) -> None:
    from lathe.housekeeping import unneeded
    from lathe.repository import Repository

    if options.keep < 1:
        raise InvalidInput("--keep must be at least 1")
    repository = Repository(options.repository)
    for ref in unneeded(repository, options.keep):
        if not options.dry_run:
            repository.remove(ref)
        print(f"{'would remove' if options.dry_run else 'removed'} {ref}")
