"""lathe top: how servers do, live in a terminal, from their metrics alone."""

from __future__ import annotations

import argparse
import json
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lathe.errors import InvalidInput, Unavailable

if TYPE_CHECKING:
    from rich.console import Console

    from lathe.terminal import Asked
    from lathe.watch import Sight, Watch

KEY_SECONDS = 0.1
"""Between two looks at the keyboard, and at what signals ask for."""
_QUIT = ("q", "Q")


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        "top",
        help="watch servers live in the terminal",
        description="Shows frames, latencies, drops, costs and streams of one server or several, from /metrics. "
        "Where servers talk TLS, the variables LATHE_CA, LATHE_CERTIFICATE and LATHE_KEY say how.",
    )
    parser.add_argument(
        "--http",
        nargs="+",
        default=["127.0.0.1:8501"],
        metavar="HOST:PORT",
        help="HTTP ports of servers (default 127.0.0.1:8501)",
    )
    parser.add_argument(
        "--every", type=float, default=2.0, metavar="SECONDS", help="between two looks (default %(default)g)"
    )
    parser.add_argument("--once", action="store_true", help="print what one interval shows, and end")
    parser.add_argument("--json", action="store_true", help="print a JSON line each interval")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    if not 0 < options.every < math.inf:
        raise InvalidInput("--every must be above 0")
    for address in options.http:
        host, _, port = address.rpartition(":")
        if not host or "/" in host or not port.isdecimal():
            raise InvalidInput(f"{address} is not HOST:PORT")
    from rich.console import Console

    from lathe.watch import look, looks

    watches = _watches(options.http)
    if all(sight.problem for sight in look(watches)):
        raise Unavailable(watches[0].sight.problem)
    console = Console()
    seen = looks(watches, options.every)
    if options.once:
        sights = next(seen)
        if all(sight.problem for sight in sights):
            raise Unavailable(sights[0].problem)
        _print(console, sights, options)
    elif options.json or not console.is_terminal or console.is_dumb_terminal:
        for sights in seen:
            _print(console, sights, options)
    else:
        _live(console, watches, seen, options.every)


def _watches(addresses: Sequence[str]) -> list[Watch]:
    from functools import partial

    from lathe.connection import Connection
    from lathe.scrape import scrape
    from lathe.watch import Watch

    tls = Connection.from_environment().ssl_context()
    return [Watch(address, partial(scrape, address, tls)) for address in addresses]


def _print(console: Console, sights: Sequence[Sight], options: argparse.Namespace) -> None:
    if options.json:
        print(json_line(sights, time.time()), flush=True)
        return
    from lathe.top import View

    console.print(View(sights, options.every))
    console.print()
    sys.stdout.flush()


def json_line(sights: Sequence[Sight], unix_seconds: float) -> str:
    servers = [
        {
            "address": sight.address,
            "problem": sight.problem,
            "overview": sight.overview.plain() if sight.overview else None,
        }
        for sight in sights
    ]
    return json.dumps({"time": unix_seconds, "servers": servers}, allow_nan=False)


def _live(console: Console, watches: Sequence[Watch], seen: Iterator[tuple[Sight, ...]], every: float) -> None:
    """Until somebody ends it. A thread looks, so that keys are heard while a server lets it wait."""
    from lathe.terminal import is_in_front, signals

    newest = deque([tuple(watch.sight for watch in watches)], maxlen=1)

    def look() -> None:
        for sights in seen:
            newest.append(sights)

    with signals() as asked:
        threading.Thread(target=look, daemon=True).start()
        while not asked.to_end:
            if asked.to_stop:
                asked.stop()
            elif not is_in_front():
                time.sleep(KEY_SECONDS)
            elif _is_done(console, newest, every, asked):
                return


def _is_done(console: Console, newest: deque[tuple[Sight, ...]], every: float, asked: Asked) -> bool:
    """Shows the newest sights until a key or a signal, and leaves the terminal as it was.

    Returns:
        Whether it was a key, and not a signal, which may ask to end or to stop for a while.
    """
    from rich.live import Live

    from lathe.terminal import keys
    from lathe.top import View

    shown: tuple[object, ...] = ()
    with keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        while not (asked.to_end or asked.to_stop):
            sights = newest[0]
            if shown != (sights, console.size):  # a terminal of another size is drawn anew at once
                shown = (sights, console.size)
                live.update(View(sights, every, console.size.height), refresh=True)
            if pressed(KEY_SECONDS) in _QUIT:
                return True
    return False
