"""lathe load: cameras that send at their own pace, whatever the server does, and what became of their frames."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lathe.cli import load_capacity
from lathe.cli.output_file import check_output
from lathe.errors import InvalidInput, LatheError

if TYPE_CHECKING:
    from lathe_loadtest.figures import Figures
    from lathe_loadtest.judge import Check
    from lathe_loadtest.overrides import Overrides
    from lathe_loadtest.result import LoadResult
    from lathe_loadtest.scenario import Scenario

EXIT_SERVER_LOST, EXIT_INVALID, EXIT_UNEXPECTED, EXIT_INTERRUPTED = 1, 3, 4, 130


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        "load",
        help="drive a server as cameras would, and measure",
        description="Plays a scenario: a file, or one of the box by its name. Frames are sent when they are due, "
        "whatever the server does, and latency counts from then. Flags override the scenario, or take its place. "
        f"Exit code 0: it ran to its end. {EXIT_SERVER_LOST}: no server, or it was lost in mid-run; what was seen is "
        f"kept. {EXIT_INVALID}: the driver was the limit, so the figures say nothing of the server. {EXIT_UNEXPECTED}: "
        "something that the scenario expects does not hold.",
    )
    parser.add_argument("scenario", nargs="?", help="SCENARIO.toml, or a name of the box; none: flags alone")
    parser.add_argument(
        "--like", type=Path, metavar="RESULT.json", help="the scenario of an earlier run, with the rates it then had"
    )
    parser.add_argument("--server", metavar="HOST:PORT", default="127.0.0.1:8500", help="(default %(default)s)")
    parser.add_argument(
        "--http",
        metavar="HOST:PORT",
        default="127.0.0.1:8501",
        help="of its metrics; empty reads none (default %(default)s)",
    )
    parser.add_argument(
        "--control",
        metavar="HOST:PORT",
        default="127.0.0.1:8502",
        help="for the scenario's actions (default %(default)s)",
    )
    parser.add_argument("--serve", type=Path, metavar="REPOSITORY", help="start a server of its own, for restarts")
    parser.add_argument("--model", help="(default: the scenario's, or the server's only one that detects)")
    parser.add_argument("--protocol", choices=("stream", "unary", "tensors"), help="(default stream)")
    parser.add_argument("--seconds", type=float, help="(default 30)")
    parser.add_argument("--cameras", type=int, metavar="N", help="(default 1)")
    parser.add_argument("--fps", type=float, help="of each camera (default 10)")
    parser.add_argument("--size", type=size_wh, metavar="WIDTHxHEIGHT", help="of the pictures (default 640x480)")
    parser.add_argument("--quality", type=int, help="of their JPEG files (default 90)")
    parser.add_argument("--variant", help="pin a variant (default: follow the route)")
    parser.add_argument("--max-age", type=float, metavar="SECONDS", help="drop frames older than this (default: none)")
    parser.add_argument("--seed", type=int, help="of all that is random (default 1)")
    parser.add_argument(
        "--footage", action="append", metavar="PATH", help="video, picture or folder of them; may be repeated"
    )
    parser.add_argument(
        "--processes", type=int, default=0, metavar="N", help="that send (default: as many as the load needs)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="write all that was seen")
    parser.add_argument("--report", type=Path, metavar="FILE.html", help="write a page of it")
    load_capacity.add_arguments(parser)
    parser.set_defaults(run=run)


def size_wh(text: str) -> tuple[int, int]:
    """
    >>> size_wh("640x480")
    (640, 480)
    """
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text} is not WIDTHxHEIGHT")
    return int(width), int(height)


def run(options: argparse.Namespace) -> int:
    """
    Returns:
        The exit code.
    """
    if options.processes < 0:
        raise InvalidInput("--processes must not be negative")
    if options.like and options.scenario:
        raise InvalidInput("--like takes the place of a scenario")
    check_output("--output", options.output)
    check_output("--report", options.report)
    load_capacity.check(options)
    from lathe_loadtest.figures import figures
    from lathe_loadtest.judge import judge
    from lathe_loadtest.play import play
    from lathe_loadtest.result import write_result
    from lathe_loadtest.stage import Target, staged

    scenario = _scenario(options)
    target = Target(options.server, options.http, options.control)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lathe-load-")))
        stage = stack.enter_context(staged(scenario, target, serve=options.serve, folder=folder))
        stop = stack.enter_context(_interrupts())
        try:
            if options.find_capacity:
                return load_capacity.run(options, scenario, stage, stop)
            with _progress(scenario) as on_beat:
                result = play(scenario, stage, processes=options.processes, stop=stop, on_beat=on_beat)
        except LatheError:
            if stop.is_set():  # before there was anything to keep
                raise KeyboardInterrupt from None
            raise
        checks, found = judge(result), figures(result)
        try:
            code = tell(result, checks, found)
        finally:  # whoever reads what is printed may be gone
            if options.output:
                write_result(result, options.output)
            if options.report:
                _write_page(result, checks, found, options.report)
    return code  # after the stage has gone: whatever happens then, this is kept


def tell(result: LoadResult, checks: Sequence[Check], found: Figures | None = None) -> int:
    """Prints the figures, and on standard error what spoils them; the exit code."""
    from rich.console import Console

    from lathe_loadtest import judge_text
    from lathe_loadtest.load_text import show

    console = Console()
    show(result, console, found)
    if result.scenario.expect:
        judge_text.show(checks, console)
    sys.stdout.flush()
    if result.error:
        print(f"lathe: {result.error}", file=sys.stderr)
    for what, count in result.strange.items():
        print(f"lathe: {count} {what}", file=sys.stderr)
    for reason in result.why_invalid:
        print(f"lathe: invalid: {reason}", file=sys.stderr)
    if result.ended == "server_lost":
        return EXIT_SERVER_LOST
    if result.ended == "interrupted":
        return EXIT_INTERRUPTED
    if not result.is_valid:
        return EXIT_INVALID
    return EXIT_UNEXPECTED if result.scenario.expect and not all(check.holds for check in checks) else 0


def _write_page(result: LoadResult, checks: Sequence[Check], found: Figures, path: Path) -> None:
    from lathe_loadtest.load_page import page

    page(result, checks if result.scenario.expect else (), found).save(path)


def _scenario(options: argparse.Namespace) -> Scenario:
    from lathe_loadtest.boxed import find
    from lathe_loadtest.overrides import overridden, without_file
    from lathe_loadtest.result import read_result

    said = _overrides(options)
    if options.like:
        return overridden(read_result(options.like).scenario, said)
    return overridden(find(options.scenario), said) if options.scenario else without_file(said)


def _overrides(options: argparse.Namespace) -> Overrides:
    from lathe_loadtest.overrides import Overrides

    return Overrides(
        model=options.model,
        protocol=options.protocol,
        seconds=options.seconds,
        seed=options.seed,
        footage=tuple(options.footage) if options.footage else None,
        cameras=options.cameras,
        fps=options.fps,
        size_wh=options.size,
        quality=options.quality,
        variant=options.variant,
        max_age_seconds=options.max_age,
    )


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Set by Ctrl-C and SIGTERM: the run ends, and what it has seen is kept. A second one ends the program."""
    stop = threading.Event()

    def end(*_: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress(scenario: Scenario) -> Iterator[Any]:
    """A line on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    with console.status(Text(f"{scenario.name}: connecting")) as status:

        def show(seconds: float, frames: int, cameras: int) -> None:
            passed = f"{seconds:.0f} of {scenario.seconds:.0f} s"
            status.update(Text(f"{scenario.name}: {passed}, {frames} frames, {cameras} cameras"))

        yield show
