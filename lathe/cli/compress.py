"""lathe compress: a recipe in, published variants out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_command(commands: Any) -> None:
    parser = commands.add_parser("compress", help="make the variants of a model, as its recipe says")
    parser.add_argument("recipe", type=Path, help="TOML file")
    parser.add_argument(
        "--repository",
        type=Path,
        default=Path("work/models"),
        help="where variants are published (default %(default)s)",
    )
    parser.add_argument(
        "--cache", type=Path, help="where results of steps are kept (default: cache, beside the repository)"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="VARIANT", help="make this variant alone; may be given again"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done and how long it may take")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from lathe.progress import Progress
    from lathe_compression.compress import compress
    from lathe_compression.dry_run import show_plan
    from lathe_compression.recipe import load_recipe

    recipe = load_recipe(options.recipe)
    cache = options.cache or options.repository.parent / "cache"
    if options.dry_run:
        show_plan(recipe, cache, options.only)
        return
    for ref in compress(recipe, options.repository, Progress(), cache=cache, only=options.only):
        print(options.repository / ref.model / ref.variant / str(ref.version))
