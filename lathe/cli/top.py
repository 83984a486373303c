"""lathe top: how servers do, live in a terminal, from their metrics alone."""

from __future__ import annotations

import argparse
import json
import math
import os
import queue
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lathe.errors import InvalidInput, Unavailable

if TYPE_CHECKING:
    from rich.console import Console

    from lathe.watch import Sight, Watch

KEY_SECONDS = 0.1
"""Between two looks at the keyboard."""
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
    from rich.live import Live

    from lathe.top import View

    news: queue.SimpleQueue[tuple[Sight, ...]] = queue.SimpleQueue()

    def look() -> None:
        for sights in seen:
            news.put(sights)

    threading.Thread(target=look, daemon=True).start()
    sights = tuple(watch.sight for watch in watches)
    shown: tuple[object, ...] = ()
    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            while not news.empty():
                sights = news.get()
            if shown != (sights, console.size):  # a terminal of another size is drawn anew at once
                shown = (sights, console.size)
                live.update(View(sights, every, console.size.height), refresh=True)
            if pressed(KEY_SECONDS) in _QUIT:
                return


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """What waits so long for a key, which needs no Enter; empty where none was pressed, or there is no keyboard.

    Ctrl-C and SIGTERM end the program, and leave the terminal as it was.
    """

    def end(*_: object) -> None:
        raise SystemExit(0)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if not sys.stdin.isatty():
            yield _no_key
            return
        import termios
        import tty

        keyboard = sys.stdin.fileno()
        was = termios.tcgetattr(keyboard)
        try:
            tty.setcbreak(keyboard)
            yield lambda seconds: os.read(keyboard, 1).decode("latin-1") if _is_ready(keyboard, seconds) else ""
        finally:
            termios.tcsetattr(keyboard, termios.TCSADRAIN, was)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _no_key(seconds: float) -> str:
    time.sleep(seconds)
    return ""


def _is_ready(descriptor: int, seconds: float) -> bool:
    return bool(select.select([descriptor], [], [], seconds)[0])
