"""lathe token: make a token for callers of a server."""

from __future__ import annotations

import argparse
import fcntl
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
        "--role",
        choices=("infer", "gallery", "control"),
        default="infer",
        help="gallery may also enrol and delete faces; control may do everything (default %(default)s)",
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
    token, sha256 = new_token()
    entry = f'\n[[tokens]]\nname = "{options.name}"\nrole = "{options.role}"\nsha256 = "{sha256}"\n'
    if options.days is not None:
        entry += f"expires = {datetime.now(UTC) + timedelta(days=options.days):%Y-%m-%dT%H:%M:%SZ}\n"
    file: Path = options.file
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # of two who do so at once one waits
        known = config.load(TokenFile, file).tokens if file.exists() else ()
        if options.name in {one.name for one in known}:
            raise AlreadyExists(f"{options.name} has a token; remove its entry first")
        staging = file.with_name(f".{file.name}.{os.getpid()}")
        try:
            staging.touch(0o600)
            staging.write_text((file.read_text("utf-8") if file.exists() else "") + entry, "utf-8")
            config.load(TokenFile, staging)  # what stands there may leave no place for an entry
            staging.replace(file)
        finally:
            staging.unlink(missing_ok=True)
    finally:
        os.close(folder)
    print(token)
