"""A load test's result as a terminal shows it: the figures of its page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lathe.figure_text import milli, share, short
from lathe_loadtest.figures import Figures, figures, server_rows
from lathe_loadtest.latencies import Latencies, latencies_by_group
from lathe_loadtest.result import ANSWERED, Event, LoadResult

SHARES = (0.5, 0.9, 0.99, 0.999, 0.9999)
MOST_EVENTS = 8
"""Of one kind that are told one by one."""


def show(result: LoadResult, console: Console, found: Figures | None = None) -> None:
    """Args:
    found: its figures, where they are known already.
    """
    found = found or figures(result)
    blocks = found.timeline.blocks
    console.print(_frames(result, found))
    if found.all.frames:
        console.print(_latencies(result, blocks.latencies, blocks.together))
    if found.server:
        console.print(_server(found))
    sender = result.sender
    processes = "1 process" if sender.processes == 1 else f"{sender.processes} processes"
    console.print(
        f"driver: {processes}, {found.sender_us_per_frame:.0f} µs of CPU a frame, p99 of its lateness "
        f"{milli(found.late_p99_seconds if found.due else None)} ms",
        highlight=False,
    )
    for line in told(result.events):
        console.print(line, markup=False, highlight=False)


def told(events: Sequence[Event]) -> Iterator[str]:
    """What was done to the server, a line each; where one thing was done again and again, those that failed."""
    kinds: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        kinds[event.do].append(event)
    for do, own in kinds.items():
        is_long = len(own) > MOST_EVENTS
        if is_long:
            took = [event.took_seconds for event in own]
            yield f"{len(own)} times {do} – {median(took):.2f} s at the median, {max(took):.2f} at most"
        for event in own:
            if event.error:
                yield f"{event.at_seconds:.1f} s: {event.do} {event.text} – failed: {event.error}"
            elif not is_long:
                yield f"{event.at_seconds:.1f} s: {event.do} {event.text} – done in {event.took_seconds:.2f} s"


def _frames(result: LoadResult, found: Figures) -> Table:
    title = Text(f"{result.scenario.name or 'load'}: {found.judged_seconds} s judged")
    table = Table(title=title, title_justify="left")
    for name in ("frames", "number", "a second", "share"):
        table.add_column(name, justify="left" if name == "frames" else "right")
    rows = [("due", found.due), ("sent", int(found.timeline.sent.sum()))]
    rows += sorted(found.outcomes.items(), key=lambda one: (one[0] != ANSWERED, -one[1]))
    for name, number in rows:
        rate = number / found.judged_seconds if found.judged_seconds else None
        table.add_row(name, str(number), short(rate), share(number / found.due) if found.due else "–")
    return table


def _latencies(result: LoadResult, variants: Mapping[str, Latencies], together: Latencies) -> Table:
    table = Table(title="latency from when frames were to be sent, ms", title_justify="left")
    table.add_column("of")
    for one in SHARES:
        table.add_column(f"p{one * 100:g}", justify="right")
    table.add_column("max", justify="right")
    rows = {"all": together}
    if len(variants) > 1:
        rows |= {name or "(no variant told)": latencies for name, latencies in variants.items()}
    rows |= {f"cameras: {name}": latencies for name, latencies in latencies_by_group(result.cameras).items()}
    for name, latencies in rows.items():
        if latencies.total:
            table.add_row(Text(name), *_percentiles(latencies))
    return table


def _percentiles(latencies: Latencies) -> list[str]:
    """A dash where there are too few frames for a percentile to be one."""
    known = dict(latencies.curve(SHARES))
    return [milli(known[one]) if one in known else "–" for one in SHARES] + [milli(latencies.percentile(1.0))]


def _server(found: Figures) -> Table:
    table = Table(title="the server, by its own metrics", title_justify="left", show_header=False)
    assert found.server
    for name, value in server_rows(found.server):
        table.add_row(Text(name), value)
    return table
