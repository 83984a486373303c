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
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from lathe.progress import Progress
    from lathe_compression.compress import compress
    from lathe_compression.recipe import load_recipe

    recipe = load_recipe(options.recipe)
    for ref in compress(recipe, options.repository, Progress()):
        print(options.repository / ref.model / ref.variant / str(ref.version))
