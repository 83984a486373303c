"""Two load tests compared, as a page, as JSON, and as rows for a terminal."""

from __future__ import annotations

import json
import math

from lathe.report import Report
from lathe_loadtest import load_plots
from lathe_loadtest.compare import TITLES, UNANSWERED, WORDS, Change, Comparison
from lathe_loadtest.result import LoadResult
from lathe_loadtest.timeline import Timeline

HEADINGS = ("figure", "verdict", "change", "interval", "allowed", "A", "B")


def rows(comparison: Comparison) -> list[list[str]]:
    """Under HEADINGS."""
    judged = [
        [
            TITLES[one.name],
            _word(comparison, one) + (f": {one.why}" if one.why else ""),
            _change(one, one.change.value),
            "–" if one.why else _bounds(one),
            f"≤ {_change(one, one.allowed)}",
            *(_value(one, side) for side in (one.a, one.b)),
        ]
        for one in comparison.changes
    ]
    shown = [
        [title, "shown, not judged", f"{b / a - 1:+.1%}" if a else "–", "–", "–", f"{a:.4g}", f"{b:.4g}"]
        for title, a, b in comparison.others
    ]
    return judged + shown


def how_to_read(comparison: Comparison) -> str:
    level = next((one.change.level for one in comparison.changes), math.nan)
    return (
        "A figure is a regression only where its whole interval lies beyond what is allowed, and better where it lies "
        f"below 0; no regression where it ends within. Intervals hold with {level:.1%} each, so that where nothing has "
        f"changed a regression is called at most {comparison.alpha:.0%} of the time, over all figures. They rest on "
        f"{comparison.seconds} s, in blocks that stand opposite each other. They do not know what differs between two "
        "runs of the same server: what is allowed has to cover it."
    )


def as_json(comparison: Comparison) -> str:
    """Everything that the verdict rests on; unknown numbers are null."""
    table = {
        "format": 1,
        "kind": "comparison",
        "verdict": comparison.verdict,
        "exit_code": comparison.exit_code,
        "sentence": comparison.sentence,
        "alpha": comparison.alpha,
        "seconds": comparison.seconds,
        "obstacles": list(comparison.obstacles),
        "notes": list(comparison.notes),
        "figures": [
            {
                "name": one.name,
                "a": _known(one.a),
                "b": _known(one.b),
                "change": _known(one.change.value),
                "low": _known(one.change.low),
                "high": _known(one.change.high),
                "level": one.change.level,
                "allowed": one.allowed,
                "verdict": _word(comparison, one).lower(),
                "why": one.why,
            }
            for one in comparison.changes
        ],
        "others": [{"name": title, "a": _known(a), "b": _known(b)} for title, a, b in comparison.others],
    }
    return json.dumps(table, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def page(a: LoadResult, b: LoadResult, comparison: Comparison, names: tuple[str, str]) -> Report:
    """Args:
    names: of the two files.
    """
    report = Report("Two load tests compared", f"A is {names[0]}, B is {names[1]}.")
    style = {"no regression": "big good", "regression": "big bad"}.get(comparison.verdict, "big")
    if comparison.verdict == "no regression" and comparison.unsettled:
        style = "big"  # green would say more than was shown
    report.paragraph(comparison.sentence, style)
    for note in comparison.notes:
        report.paragraph(f"{note[0].upper()}{note[1:]}.", "note")
    report.table(HEADINGS, rows(comparison))
    report.paragraph(how_to_read(comparison), "note")
    blocks = {name: Timeline.of(one).blocks.together for name, one in (("A", a), ("B", b))}
    curves = {name: one for name, one in blocks.items() if one.total}
    if curves:
        report.heading("Latency")
        report.plot(
            load_plots.distribution(curves), "All variants together; bands are 95 % intervals.", load_plots.key(curves)
        )
    return report


def _word(comparison: Comparison, one: Change) -> str:
    return "not judged" if comparison.obstacles else WORDS[one.verdict]


def _value(one: Change, side: float) -> str:
    if not math.isfinite(side):
        return "–"
    return f"{side:.2%}" if one.name == UNANSWERED else f"{side * 1e3:.2f}"


def _change(one: Change, value: float) -> str:
    if not math.isfinite(value):
        return "–"
    if one.name == UNANSWERED:
        return f"{100 * value:+.2f} points"
    return f"{value:+.1%}" if abs(value) >= 0.01 else f"{value:+.2%}"


def _bounds(one: Change) -> str:
    low, high = (_change(one, bound) for bound in (one.change.low, one.change.high))
    return f"{low.removesuffix(' points')} to {high}"


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
