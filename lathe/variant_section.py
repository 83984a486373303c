"""The part of a page that tells one variant's story: where it comes from, what it is, where it fails."""

from __future__ import annotations

import math

from lathe.card import enum_word
from lathe.figures import Comparison, Figures, Rates, lineage
from lathe.making import Making
from lathe.making_section import add_making
from lathe.report import Report
from lathe.v1 import card_pb2

LONGEST_TITLE = 16


def add_variant(report: Report, comparison: Comparison, name: str, rates: Rates, making: Making | None) -> None:
    """Adds a variant's card, its gains and losses, its disagreements, and how it was made."""
    card = comparison.cards[name]
    report.heading(f"{name}, version {card.version}")
    report.chain(_chain(card))
    report.facts(_facts(comparison, name, rates))
    gains = _gains(comparison, name)
    if len(gains) > 1:
        report.subheading("What each variant on the way gained and lost")
        report.table(["variant", comparison.quality_name, "infer, ms", "size, MB", "M MACs"], gains)
        report.paragraph("In brackets: the change against the line before.", "note")
    if pictures := comparison.disagreements.get(name):
        report.subheading(f"Where it and {comparison.reference} disagree most")
        report.paragraph(comparison.legend, "note")
        report.pictures(pictures, is_large=True)
    elif name in comparison.disagreements:
        report.paragraph(f"It and {comparison.reference} disagree on no picture.")
    if making:
        add_making(report, making)
    for notice in card.notices:
        report.paragraph(notice, "note")
    with report.details("digests and tools"):
        report.table(["what", ""], _origins(card))


def _chain(card: card_pb2.Card) -> list[tuple[str, str]]:
    """The teacher, then each step: what stands before its colon as title, or its first word where that is long."""
    boxes = [("teacher", card.lineage.teacher or "not told")]
    for sentence in card.lineage.steps:
        title, _, text = sentence.partition(": ")
        if not text or len(title) > LONGEST_TITLE:
            title, _, text = sentence.partition(" ")
        boxes.append((title, text))
    return boxes


def _facts(comparison: Comparison, name: str, rates: Rates) -> list[tuple[str, str]]:
    card, figures = comparison.cards[name], comparison.figures[name]
    known = math.isfinite(figures.frame_ms)
    facts = [
        ("precision", enum_word("Precision", card.precision)),
        ("size", f"{card.size_bytes / 1e6:.2f} MB"),
        ("parameters", f"{card.parameters:,}"),
        ("multiply-accumulates", f"{card.macs / 1e6:.1f} M"),
        ("zero weights", f"{card.sparsity:.1%}"),
        *quality_facts(figures, comparison.reference),
        ("infer", number(figures.infer_ms, ".2f", " ms")),
        ("whole frame", number(figures.frame_ms, ".2f", " ms")),
        (f"speed against {comparison.reference}", number(figures.speedup, ".2f", "×")),
        ("energy, estimated", number(rates.millijoules(figures.frame_ms), ".1f", " mJ") if known else "unknown"),
        (
            "a million predictions",
            number(rates.cost_per_million(figures.frame_ms), ".3f", " USD") if known else "unknown",
        ),
    ]
    if card.recommended:
        facts.append(("its recipe", "recommends it"))
    return facts


def quality_facts(figures: Figures, reference: str) -> list[tuple[str, str]]:
    """Each quality figure; the interval of a difference to the reference follows in brackets."""
    facts = []
    for one in figures.qualities:
        interval = one.interval_text()
        against = f" against {reference}" if interval and one.is_precision else ""
        facts.append((one.name, number(one.value, ".3f") + (f" ({interval}{against})" if interval else "")))
    return facts or [("quality", "unknown")]


def _gains(comparison: Comparison, name: str) -> list[list[str]]:
    """A row for every published variant from the first to this one."""
    rows = []
    before: str | None = None
    for one in lineage(name, comparison.cards):
        now = _costs(comparison, one)
        rows.append([one, *_changes(now, _costs(comparison, before) if before else None)])
        before = one
    return rows


def _costs(comparison: Comparison, name: str) -> tuple[float, ...]:
    card, figures = comparison.cards[name], comparison.figures[name]
    return figures.quality, figures.infer_ms, card.size_bytes / 1e6, card.macs / 1e6


def _changes(now: tuple[float, ...], before: tuple[float, ...] | None) -> list[str]:
    """Quality changes by points, costs by shares."""
    cells = [number(now[0], ".3f"), number(now[1], ".2f"), number(now[2], ".2f"), number(now[3], ".1f")]
    if before is None:
        return cells
    changes = [
        now[0] - before[0],
        *((new / old - 1) if old else math.nan for new, old in zip(now[1:], before[1:], strict=True)),
    ]
    words = [f"{changes[0]:+.3f}", *(f"{change:+.0%}" for change in changes[1:])]
    return [
        f"{cell} ({word})" if math.isfinite(change) else cell
        for cell, word, change in zip(cells, words, changes, strict=True)
    ]


def _origins(card: card_pb2.Card) -> list[list[str]]:
    lines = [
        ["sha256 of model.onnx", card.sha256],
        ["sha256 of the teacher", card.lineage.teacher_sha256],
        ["sha256 of the recipe", card.lineage.recipe_sha256],
        ["made with", ", ".join(card.lineage.made_with)],
        ["pictures that made it", str(card.lineage.pictures or "none")],
        ["published", card.created_at.ToJsonString() if card.HasField("created_at") else ""],
    ]
    return [line for line in lines if line[1]]


def number(value: float, form: str, unit: str = "") -> str:
    """A figure as text; one that is not known says so."""
    return f"{value:{form}}{unit}" if math.isfinite(value) else "unknown"
