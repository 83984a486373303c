"""What a long command shows while it works: rich's bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars


class Progress:
    """Named steps with their time, on standard error."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A step of unknown length."""
        began = time.monotonic()
        with self._console.status(name) if self._console.is_terminal else contextlib.nullcontext():
            yield
        self._done(name, began)

    @contextlib.contextmanager
    def bar(self, name: str, total: int) -> Iterator[Callable[[], None]]:
        """A step of `total` parts; call what it yields after each."""
        began = time.monotonic()
        with Bars(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        ) as bars:
            task = bars.add_task(name, total=total)
            yield lambda: bars.advance(task)
        self._done(name, began)

    def _done(self, name: str, began: float) -> None:
        self._console.print(f"[green]✓[/] {name} [dim]{time.monotonic() - began:.1f} s[/]", highlight=False)
