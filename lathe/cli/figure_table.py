"""A table of figures in the terminal, and just as wide in the log of a CI, which scrolls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

LOG_WIDTH = 150


def show(headings: Sequence[str], rows: Iterable[Sequence[str]], words: Sequence[str]) -> None:
    """Prints a table.

    Args:
        words: the columns that hold words, on the left; the others hold numbers.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for heading in headings:
        table.add_column(Text(heading), justify="left" if heading in words else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console()
    (console if console.is_terminal else Console(width=LOG_WIDTH)).print(table)
