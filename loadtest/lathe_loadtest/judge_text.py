"""What was expected of a run and what it was, as a terminal and a page show it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from lathe_loadtest.judge import Check


def show(checks: Sequence[Check], console: Console) -> None:
    table = Table(title="expected and measured", title_justify="left")
    for name in ("", "of", "what", "expected", "measured"):
        table.add_column(name)
    for check in checks:
        cells = ("ok" if check.holds else "NO", check.of or "all", check.what, check.expected, check.measured)
        table.add_row(*cells, style=None if check.holds else "bold")
    console.print(table)


def lines(checks: Sequence[Check]) -> list[tuple[bool, str]]:
    """Whether each holds, and a line of it.

    >>> lines([Check("hot", "answered", "≥ 10.0%", "34.20%", True)])
    [(True, 'hot: answered 34.20%, expected ≥ 10.0%')]
    """
    return [
        (check.holds, f"{f'{check.of}: ' if check.of else ''}{check.what} {check.measured}, expected {check.expected}")
        for check in checks
    ]
