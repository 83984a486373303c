"""What a terminal shows of a load test: the figures of its page."""

from __future__ import annotations

import io

from rich.console import Console

from lathe_loadtest.figures import figures, in_ms
from lathe_loadtest.load_text import show, told
from lathe_loadtest.result import Event
from tests.loadtest.synthetic import synthetic_result


def test_actions_are_told_one_by_one_or_where_they_are_many_together_with_those_that_failed() -> None:
    swaps = [
        Event(float(at), "swap", f"{'ab'[at % 2]}=1", 0.2 if at == 3 else 0.1, "gone" if at == 5 else "")
        for at in range(9)
    ]
    assert list(told([Event(0.0, "route", "a=1", 0.32), *swaps])) == [
        "0.0 s: route a=1 – done in 0.32 s",
        "9 times swap – 0.10 s at the median, 0.20 at most",
        "5.0 s: swap b=1 – failed: gone",
    ]


def test_the_terminal_shows_the_percentiles_of_the_page_and_what_the_server_tells() -> None:
    result = synthetic_result(latency_ms={"int8": 20, "fp32": 60}, price_per_hour=0.04)
    found = figures(result)
    console = Console(file=io.StringIO(), width=200)
    show(result, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for name, one in {"all": found.all, **found.variants}.items():
        [row] = [line for line in text.splitlines() if line.startswith(f"│ {name} ")]
        told_ms = in_ms(one.percentiles[0.99]).partition(" ")[0]
        assert told_ms in [cell.strip() for cell in row.split("│")]
    assert "CPU a frame, ms" in text
    assert "a million frames" in text
