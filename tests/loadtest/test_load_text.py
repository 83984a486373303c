"""What a terminal shows of a load test: the figures of its page."""

from __future__ import annotations

import io
import re
from dataclasses import replace

from rich.console import Console

from lathe.figure_text import milli
from lathe_loadtest.expect import Expect
from lathe_loadtest.figures import figures, in_ms
from lathe_loadtest.histogram import encoded
from lathe_loadtest.judge import judge
from lathe_loadtest.latencies import latencies_of
from lathe_loadtest.load_page import page
from lathe_loadtest.load_text import show, told
from lathe_loadtest.result import Event, LoadResult
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


def shown(result: LoadResult) -> str:
    console = Console(file=io.StringIO(), width=200)
    show(result, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_judge_the_page_and_the_terminal_see_the_same_frames_after_a_warm_up() -> None:
    result = synthetic_result(seconds=12, warmup=2, drops=0.1)
    found = figures(result)
    assert (found.judged_seconds, found.due, found.offered.value) == (10, 400, 40.0)
    [check] = [one for one in judge(result, [Expect(answered_share=0.5)]) if one.what == "answered"]
    rows = {
        cells[0]: cells[1:]
        for line in shown(result).splitlines()
        if len(cells := [cell.strip() for cell in line.strip("│").split("│")]) > 1
    }
    assert rows["due"][:2] == rows["sent"][:2] == ["400", "40.0"]
    assert (
        rows["answered"][2]
        == check.measured.replace("%", " %")
        == f"{found.shares['answered'].value:.2%}".replace("%", " %")
    )
    percentile = latencies_of(result.cameras).percentile(0.99)
    assert rows["all"][2] == milli(percentile) == in_ms(found.all.percentiles[0.99])
    html = page(result).html()
    assert "10 s, 400 frames" in html
    assert f"<td>{milli(percentile)}</td>" in html


def test_names_are_no_markup() -> None:
    result = synthetic_result(latency_ms={"int8 [spot]": 20, "fp32 [/spot]": 60}, seconds=3)
    text = shown(replace(result, scenario=replace(result.scenario, name="[red]gate[/]")))
    assert all(name in text for name in ("int8 [spot]", "fp32 [/spot]", "[red]gate[/]: 3 s judged"))


def test_a_run_in_which_nothing_was_due_says_so() -> None:
    """As Ctrl-C in the warm-up leaves it."""
    one = synthetic_result(seconds=12, warmup=2)
    sender = replace(one.sender, lateness=encoded([]))
    nothing = replace(one, per_second=(), cameras=(), seconds=1.2, ended="interrupted", sender=sender)
    html = page(nothing).html()
    assert "No frame was due." in html
    assert "Every frame was answered" not in html
    assert not re.search(r"\bnan\b", html + shown(nothing))
