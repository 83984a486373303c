"""What was expected of a run and what it was, as a terminal and a page show it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lathe_loadtest.judge import Check

HEADINGS = ("", "of", "what", "expected", "measured")


def show(checks: Sequence[Check], console: Console) -> None:
    table = Table(title="expected and measured", title_justify="left")
    for name in HEADINGS:
        table.add_column(name)
    for check in checks:
        table.add_row(*map(Text, row(check)), style=None if check.holds else "bold")
    console.print(table)


def row(check: Check) -> list[str]:
    """Its cells below `HEADINGS`."""
    return ["ok" if check.holds else "NO", check.of or "all", check.what, check.expected, check.measured]
