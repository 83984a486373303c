"""`lathe report`'s page and its figures as JSON: the choice, the fronts, then every variant."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lathe.card import enum_word
from lathe.figures import Comparison, Quality, Rates
from lathe.fronts import Front, choose, fronts
from lathe.making import Making
from lathe.recommend import Limits, Recommendation
from lathe.report import Report
from lathe.variant_section import add_variant, number

INTERVAL = "95 %"


def write_page(
    comparison: Comparison, makings: Mapping[str, Making], limits: Limits, rates: Rates, path: Path
) -> Recommendation:
    """Writes the HTML, and the JSON beside it.

    Returns:
        The recommendation, for the terminal.
    """
    chosen, drawn = choose(comparison, limits), fronts(comparison, rates)
    model = comparison.cards[comparison.reference].model
    report = Report(f"{model}: {len(comparison.cards)} variants", comparison.source[0])
    report.paragraph(" ".join(comparison.source[1:]), "note")
    report.heading("Recommendation")
    _add_recommendation(report, comparison, chosen, limits)
    report.table(*_table(comparison, drawn, rates))
    report.paragraph(_how_to_read(comparison, rates), "note")
    _add_fronts(report, comparison, drawn, rates)
    for name in comparison.cards:
        add_variant(report, comparison, name, rates, makings.get(name))
    report.save(path)
    figures = _as_json(comparison, makings, chosen, drawn, limits, rates)
    text = json.dumps(figures, indent=2, allow_nan=False, ensure_ascii=False)
    path.with_suffix(".json").write_text(text + "\n", "utf-8")
    return chosen


def _add_recommendation(report: Report, comparison: Comparison, chosen: Recommendation, limits: Limits) -> None:
    wanted = list(limits.each())
    report.paragraph(f"Limits: {', '.join(wanted)}." if wanted else "No limits were given.")
    if chosen.variant:
        report.paragraph(f"Serve {chosen.variant}.", "big good")
    else:
        report.paragraph("No variant can be recommended.", "big bad")
    report.paragraph(" ".join(chosen.reasons))
    if comparison.is_likeness:
        judges = "Thresholds on known faces" if comparison.embeds else "Labelled pictures (--data)"
        report.paragraph(
            f"{comparison.quality_name.capitalize()} is with {comparison.reference} itself, which so agrees wholly and "
            f"wins unless a limit rules it out. {judges} would tell which variant is better.",
            "note",
        )
    if not _has_intervals(comparison):
        report.paragraph("There are no intervals: qualities count as equal only where the figures are.", "note")


def _has_intervals(comparison: Comparison) -> bool:
    return any(one.interval for figures in comparison.figures.values() for one in figures.qualities)


def _table(comparison: Comparison, drawn: Sequence[Front], rates: Rates) -> tuple[list[str], list[list[str]]]:
    headings = ["variant", "format", comparison.quality_name, INTERVAL, "infer, ms", "speed", "frame, ms"]
    headings += ["size, MB", "M MACs", "energy, mJ", "USD a million", "fronts"]
    rows = []
    for name, card in comparison.cards.items():
        one = comparison.figures[name]
        rows.append(
            [
                name,
                enum_word("Precision", card.precision),
                number(one.quality, ".3f"),
                one.qualities[0].interval_text() if one.qualities else "",
                number(one.infer_ms, ".2f"),
                number(one.speedup, ".2f", "×"),
                number(one.frame_ms, ".2f"),
                f"{card.size_bytes / 1e6:.2f}",
                f"{card.macs / 1e6:.1f}",
                number(rates.millijoules(one.frame_ms), ".1f"),
                number(rates.cost_per_million(one.frame_ms), ".3f"),
                _fronts_of(name, drawn),
            ]
        )
    if not _has_intervals(comparison):
        at = headings.index(INTERVAL)
        headings, *rows = [line[:at] + line[at + 1 :] for line in (headings, *rows)]
    return headings, rows


def _fronts_of(name: str, drawn: Sequence[Front]) -> str:
    found = [front.name for front in drawn if name in front.best]
    return "all" if len(found) == len(drawn) else ", ".join(found)


def _how_to_read(comparison: Comparison, rates: Rates) -> str:
    difference = f"paired difference to {comparison.reference}"
    interval = f"of the {comparison.quality_name if comparison.is_likeness else difference}"
    told = f"{INTERVAL} is the interval {interval}. " if _has_intervals(comparison) else ""
    frame = "from a picture's landmarks to the vector" if comparison.embeds else "from bytes to detections"
    return (
        f"{told}Infer is the network alone, frame all {frame}, both on one thread. Energy is an estimate: CPU time "
        f"of a frame at {rates.watts_per_core:g} watts a core, not measured. "
        f"Cost is the same CPU time at {rates.price_per_core_hour:g} USD a core-hour."
    )


def _add_fronts(report: Report, comparison: Comparison, drawn: Sequence[Front], rates: Rates) -> None:
    report.heading("Quality against what it costs")
    if not drawn[0].points:
        report.paragraph("No variant has both quality and latency, so there is nothing to draw.")
        return
    main, *small = drawn
    report.plot(
        main.plot(comparison.quality_name),
        "Up and to the left is better. Dashed: the Pareto front; variants that another beats are faint. "
        "Point at a dot for its figures.",
    )
    captions = {
        "size": "The file that is served.",
        "energy": f"An estimate: CPU seconds times {rates.watts_per_core:g} watts a core.",
        "cost": f"CPU seconds at {rates.price_per_core_hour:g} USD a core-hour.",
    }
    report.plots([(front.small_plot(comparison.quality_name), captions[front.name]) for front in small])


def _as_json(
    comparison: Comparison,
    makings: Mapping[str, Making],
    chosen: Recommendation,
    drawn: Sequence[Front],
    limits: Limits,
    rates: Rates,
) -> dict[str, Any]:
    """The page's figures; one that is not known is null."""
    variants = {
        name: _variant_json(comparison, name, rates) | {"making": asdict(makings[name]) if name in makings else None}
        for name in comparison.cards
    }
    return {
        "model": comparison.cards[comparison.reference].model,
        "reference": comparison.reference,
        "quality": comparison.quality_name,
        "source": list(comparison.source),
        "limits": asdict(limits),
        "recommendation": asdict(chosen),
        "fronts": {front.name: {"unit": front.unit, "variants": front.best} for front in drawn},
        "variants": variants,
        "rates": asdict(rates) | {"currency": "USD", "energy": "estimated: CPU seconds times watts_per_core"},
        "facts": dict(comparison.facts),
    }


def _variant_json(comparison: Comparison, name: str, rates: Rates) -> dict[str, Any]:
    card, figures = comparison.cards[name], comparison.figures[name]
    return {
        "version": card.version,
        "precision": enum_word("Precision", card.precision),
        "size_bytes": card.size_bytes,
        "parameters": card.parameters,
        "macs": card.macs,
        "qualities": [_quality_json(one) for one in figures.qualities],
        "infer_ms": _finite(figures.infer_ms),
        "frame_ms": _finite(figures.frame_ms),
        "speedup": _finite(figures.speedup),
        "energy_millijoules_estimated": _finite(rates.millijoules(figures.frame_ms)),
        "cost_per_million_predictions": _finite(rates.cost_per_million(figures.frame_ms)),
        "lineage": {"teacher": card.lineage.teacher, "parent": card.lineage.parent, "steps": list(card.lineage.steps)},
    }


def _quality_json(one: Quality) -> dict[str, Any]:
    interval = one.interval
    return {
        "name": one.name,
        "value": _finite(one.value),
        "low": _finite(interval.low) if interval else None,
        "high": _finite(interval.high) if interval else None,
        "interval_of": ("difference" if one.is_precision else "value") if interval else None,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
