"""lathe serve: the server."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any


def add_command(commands: Any) -> None:
    from lathe_server.settings import add_flags

    parser = commands.add_parser(
        "serve",
        help="serve a repository",
        description="Flags win over LATHE_… variables, these over --config, whose keys are the flags with underscores.",
    )
    parser.add_argument(
        "repository", help="folder that `lathe compress` published into, or an object store such as s3://bucket/models"
    )
    add_flags(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its C core would print over our own one-line errors
    from lathe_server.threads import let_workers_finish

    let_workers_finish()  # before libraries start threads of their own
    from lathe_server.server import run as run_server
    from lathe_server.settings import load_settings, unknown_variables

    settings = load_settings(options, os.environ)
    for warning in unknown_variables(os.environ):
        print(f"lathe: {warning}", file=sys.stderr)
    run_server(options.repository, settings)
