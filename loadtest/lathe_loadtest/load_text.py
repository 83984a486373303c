"""A load test's result as a terminal shows it."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from lathe.figure_text import share, short
from lathe_loadtest.histogram import merged
from lathe_loadtest.result import ANSWERED, LoadResult

PERCENTILES = (50.0, 90.0, 99.0, 99.9, 99.99)
_MILLI = 1e3


def tables(result: LoadResult) -> tuple[Table, ...]:
    """What became of the frames, and how long the answers took."""
    frames = _frames(result)
    return (frames, _latencies(result)) if result.variants else (frames,)


def show(result: LoadResult, console: Console) -> None:
    for table in tables(result):
        console.print(table)
    sender = result.sender
    late = merged([sender.lateness]).get_value_at_percentile(99) / _MILLI
    processes = "1 process" if sender.processes == 1 else f"{sender.processes} processes"
    console.print(
        f"driver: {processes}, {sender.cpu_us_per_frame:.0f} µs of CPU a frame, p99 of its lateness {short(late)} ms",
        highlight=False,
    )
    for event in result.events:
        outcome = f"failed: {event.error}" if event.error else f"done in {event.took_seconds:.2f} s"
        console.print(f"{event.at_seconds:.1f} s: {event.do} {event.text} – {outcome}", markup=False, highlight=False)


def _frames(result: LoadResult) -> Table:
    table = Table(title=f"{result.scenario.name or 'load'}: {result.seconds:.0f} s", title_justify="left")
    for name in ("frames", "number", "a second", "share"):
        table.add_column(name, justify="left" if name == "frames" else "right")
    due = sum(one.due for one in result.per_second)
    rows = [("due", due), ("sent", sum(one.sent for one in result.per_second))]
    rows += sorted(result.outcomes.items(), key=lambda one: (one[0] != ANSWERED, -one[1]))
    for name, number in rows:
        rate = number / result.seconds if result.seconds else None
        table.add_row(name, str(number), short(rate), share(number / due) if due else "–")
    return table


def _latencies(result: LoadResult) -> Table:
    table = Table(title="latency from when frames were to be sent, ms", title_justify="left")
    table.add_column("variant")
    for percent in PERCENTILES:
        table.add_column(f"p{percent:g}", justify="right")
    table.add_column("max", justify="right")
    by = {name: [one.latencies[name] for one in result.per_second if name in one.latencies] for name in result.variants}
    for name, texts in by.items():
        table.add_row(name or "(not told)", *_percentiles(texts))
    if len(by) > 1:
        table.add_row("all", *_percentiles([text for texts in by.values() for text in texts]))
    return table


def _percentiles(texts: Iterable[str]) -> list[str]:
    """A dash where there are too few frames for a percentile to be one."""
    found = merged(texts)
    total = found.get_total_count()
    told = [
        short(found.get_value_at_percentile(percent) / _MILLI) if total * (1 - percent / 100) >= 1 else "–"
        for percent in PERCENTILES
    ]
    return [*told, short(found.get_max_value() / _MILLI)]
