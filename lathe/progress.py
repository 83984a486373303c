"""What a long command shows while it works: rich's bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

SECONDS_BETWEEN_LINES = 60.0


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
        with self._bars("{task.description}") as bars:
            task = bars.add_task(name, total=total)
            yield lambda: bars.advance(task)
        self._done(name, began)

    @contextlib.contextmanager
    def training(self, name: str, steps: int) -> Iterator[Callable[[int, float, float], None]]:
        """A step that learns; call what it yields with the number of steps done, the loss, and the agreement
        with the teacher as last measured (NaN before).

        Where there is no terminal it prints a line a minute instead of a bar.
        """
        began = said = time.monotonic()
        with self._bars("{task.description} {task.fields[standing]}") as bars:
            task = bars.add_task(name, total=steps, standing="")

            def show(done: int, loss: float, agreement: float) -> None:
                nonlocal said
                standing = f"loss {loss:.4f}" + (f", agreement {agreement:.3f}" if math.isfinite(agreement) else "")
                bars.update(task, completed=done, standing=standing)
                if not self._console.is_terminal and time.monotonic() - said > SECONDS_BETWEEN_LINES:
                    said = time.monotonic()
                    self._console.print(f"  {name}: step {done} of {steps}, {standing}", highlight=False)

            yield show
        self._done(name, began)

    def warn(self, text: str) -> None:
        self._console.print(f"[yellow]![/] {escape(text)}", highlight=False)

    def _bars(self, text: str) -> Bars:
        return Bars(
            SpinnerColumn(),
            TextColumn(text),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )

    def _done(self, name: str, began: float) -> None:
        self._console.print(f"[green]✓[/] {name} [dim]{time.monotonic() - began:.1f} s[/]", highlight=False)
