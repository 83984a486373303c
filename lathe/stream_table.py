"""Streams as a table that fits, those with most trouble first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.style import StyleType
from rich.table import Table
from rich.text import Text

from lathe.figure_text import ago, milli, short
from lathe.overview import CONDITIONS, StreamOverview

STREAM_BLOCK = 72
"""Columns of one table of streams; wide terminals have several side by side."""
_STYLES = {"well": "", "losing": "yellow", "silent": "red", "gone": "dim"}
_ABOVE = 2
"""Lines above the table: an empty one, and the summary."""


@dataclass(frozen=True)
class Streams:
    """As many as there is room for, those with most trouble first; side by side where it is wide.

    Attributes:
        streams: each with the number of its server, which is empty where there is one server.
        room: lines; None for all.
    """

    streams: Sequence[tuple[str, StreamOverview]]
    room: int | None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.room is not None and self.room <= _ABOVE + 1:
            yield self._summary(0)
            return
        blocks = 1 if self.room is None else max(1, options.max_width // STREAM_BLOCK)
        lines = len(self.streams) + 1 if self.room is None else self.room - _ABOVE
        rows = max(1, lines - 1)
        while True:
            shown = self.streams[: rows * blocks]
            grid = self._side_by_side(shown, min(rows, len(shown)))
            too_many = len(console.render_lines(grid, options.update(height=None))) - lines  # long names take two
            if self.room is None or too_many <= 0 or rows == 1:
                break
            rows = max(1, min(rows, len(shown)) - (too_many + 1) // 2)
        yield Text()
        yield self._summary(len(shown))
        yield grid

    def _side_by_side(self, shown: Sequence[tuple[str, StreamOverview]], rows: int) -> Table:
        grid = Table.grid(padding=(0, 4, 0, 0))
        grid.add_row(*(self._block(shown[start : start + rows]) for start in range(0, len(shown), rows)))
        return grid

    def _summary(self, shown: int) -> Text:
        counts = Counter(stream.condition for _, stream in self.streams)
        told = [f"{counts[condition]} {condition}" for condition in CONDITIONS if counts[condition]]
        hidden = len(self.streams) - shown
        return Text.assemble(
            ("streams  ", "bold"), ", ".join(told), (f"  {hidden} more have no room here" if hidden else "", "dim")
        )

    def _block(self, streams: Sequence[tuple[str, StreamOverview]]) -> Table:
        number = [("#", "left")] if streams[0][0] else []
        right = ("frames/s", "dropped/s", "failed/s", "p99 age ms", "last frame")
        table = names_and_figures(
            [*number, ("stream", "left"), ("", "left"), *((heading, "right") for heading in right)]
        )
        for server, stream in streams:
            drops, failures = stream.drops_per_second, stream.failures_per_second
            style = _STYLES[stream.condition]
            table.add_row(
                *([server] if server else []),
                Text(stream.name, style),
                Text(stream.condition, style),
                short(stream.frames_per_second),
                Text(short(drops), style if drops else ""),
                Text(short(failures), style if failures else ""),
                milli(stream.p99_age_seconds),
                Text(ago(stream.silent_seconds), style if stream.condition == "silent" else ""),
            )
        return table


class _AsTold(Table):
    """A table whose strings are shown as they are: names and metrics of others are no markup, whatever they hold."""

    def add_row(
        self, *renderables: RenderableType | None, style: StyleType | None = None, end_section: bool = False
    ) -> None:
        cells = (Text(cell) if isinstance(cell, str) else cell for cell in renderables)
        super().add_row(*cells, style=style, end_section=end_section)


def names_and_figures(columns: Sequence[tuple[str, str]]) -> Table:
    """Args:
    columns: heading, and left or right. Names, on the left, are folded and never cut: they are to be typed.
    """
    table = _AsTold(box=None, padding=(0, 1, 0, 0), header_style="bold", pad_edge=False)
    for heading, side in columns:
        is_name = side == "left"
        table.add_column(
            Text(heading),
            justify="left" if is_name else "right",
            overflow="fold",
            no_wrap=not is_name,
            vertical="top",
        )
    return table
