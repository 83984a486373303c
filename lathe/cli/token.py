"""lathe token: make a token for callers of a server."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        "token",
        help="make a token, and enter it into the file that `lathe serve --tokens` reads",
        description="Prints the token, once; the file holds its SHA-256 only. Clients show it by LATHE_TOKEN, or as a "
        "bearer token. To withdraw it, remove its entry: servers see that within a second.",
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("name", help="of whoever gets it")
    parser.add_argument(
        "--role", choices=("infer", "control"), default="infer", help="control may do everything (default %(default)s)"
    )
    parser.add_argument("--days", type=float, help="after which it is good for nothing any more (default: for ever)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from datetime import UTC, datetime, timedelta

    from lathe import config
    from lathe.card import check_name
    from lathe.errors import AlreadyExists, InvalidInput
    from lathe_server.access.tokens import TokenFile, new_token

    check_name(options.name, "token")
    if options.days is not None and not 0 < options.days < 100_000:
        raise InvalidInput("--days must be above 0")
    known = config.load(TokenFile, options.file).tokens if options.file.exists() else ()
    if options.name in {one.name for one in known}:
        raise AlreadyExists(f"{options.name} has a token; remove its entry first")
    token, sha256 = new_token()
    entry = f'\n[[tokens]]\nname = "{options.name}"\nrole = "{options.role}"\nsha256 = "{sha256}"\n'
    if options.days is not None:
        entry += f"expires = {datetime.now(UTC) + timedelta(days=options.days):%Y-%m-%dT%H:%M:%SZ}\n"
    descriptor = os.open(options.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "a", encoding="utf-8") as file:
        file.write(entry)
    print(token)
