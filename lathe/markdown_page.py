"""`lathe report`'s figures as Markdown, for a repository's own documents: tables, and drawings beside the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lathe.carded_figures import serving_latency
from lathe.figures import Comparison, Rates
from lathe.fronts import fronts
from lathe.making import Making
from lathe.making_section import curve_span, hygiene_sentence, loss_curve, standings
from lathe.plot import standalone
from lathe.v1 import card_pb2
from lathe.variant_section import number

DRAWN_COSTS = ("latency", "size")


def write_markdown(
    comparison: Comparison, makings: Mapping[str, Making], rates: Rates, path: Path, preface: str = ""
) -> None:
    """Writes the page, and its drawings into a folder of the page's name.

    Args:
        preface: Markdown that stands before the figures; a title where there is none.
    """
    folder = path.with_suffix("")
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()

    def drawing(name: str, svg: str, caption: str) -> str:
        (folder / f"{name}.svg").write_text(standalone(svg), "utf-8")
        return f"![{caption}]({folder.name}/{name}.svg)"

    model = comparison.cards[comparison.reference].model
    parts = [preface.strip() or f"# {model}: {len(comparison.cards)} variants", "## Figures"]
    parts.append("\n".join(comparison.source))
    parts.append(_table(*_figures(comparison)))
    parts.append(_how_to_read(comparison))
    for front in fronts(comparison, rates):
        if front.name in DRAWN_COSTS and front.points:
            caption = f"{comparison.quality_name} against {front.title}"
            parts.append(drawing(front.name, front.plot(comparison.quality_name), caption))
    drawn: set[str] = set()
    for name, card in comparison.cards.items():
        parts.extend([f"## {name}", *_story(card)])
        making = makings.get(name)
        if making and making.hygiene_speedup is not None:
            parts.append(hygiene_sentence(making.hygiene_speedup))
        steps = making.steps if making else ()
        if len(steps) > 1 and (standing := standings(steps))[1]:
            parts.append(_table(*standing))
        for step in steps:
            if len(step.curve) > 1 and step.name not in drawn:  # of a step that variants share, one is enough
                drawn.add(step.name)
                caption = f"{step.name} ({step.kind}): loss from {curve_span(step.curve)}"
                parts.append(drawing(f"step-{len(drawn)}", loss_curve(step), caption))
                parts.append(f"{caption}.")
    path.write_text("\n\n".join(parts) + "\n", "utf-8")


def _figures(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Sizes and speeds are against the reference; the last speed is that of the card, at exactly the serving size."""
    reference = comparison.cards[comparison.reference]
    serving = f"{reference.serving_size.width}×{reference.serving_size.height}"
    headings = ["variant", comparison.quality_name, "95 %", "size, MB", "smaller", "infer, ms", "speed"]
    is_carded = comparison.facts.get("from") == "cards"
    headings += ["M MACs"] if is_carded else [f"speed at {serving}", "M MACs"]
    rows = []
    for name, card in comparison.cards.items():
        one = comparison.figures[name]
        rows.append(
            [
                f"`{name}`",
                number(one.quality, ".4f"),
                one.qualities[0].interval_text() if one.qualities else "",
                f"{card.size_bytes / 1e6:.3f}",
                f"{reference.size_bytes / card.size_bytes:.1f}×" if card.size_bytes else "",
                number(one.infer_ms, ".2f"),
                number(one.speedup, ".2f", "×"),
                *([] if is_carded else [_carded_speed(card, comparison.reference)]),
                f"{card.macs / 1e6:.0f}",
            ]
        )
    return headings, rows


def _carded_speed(card: card_pb2.Card, reference: str) -> str:
    latency = serving_latency(card)
    return f"{latency.speedup:.2f}×" if latency and latency.reference_variant == reference else ""


def _how_to_read(comparison: Comparison) -> str:
    card = comparison.cards[comparison.reference]
    latency = serving_latency(card)
    machine = f" Cards were measured on {latency.cpu}, {latency.runtime}." if latency else ""
    return (
        f"95 % is the interval of the paired difference to `{comparison.reference}` over the pictures (of the figure "
        f"itself for agreement). Infer is the network alone on one thread; speeds are medians of ratios of variants "
        f"taking turns.{machine}"
    )


def _story(card: card_pb2.Card) -> Iterator[str]:
    parent = f" from `{card.lineage.parent}`" if card.lineage.parent else ""
    made_with = ", ".join(card.lineage.made_with)
    yield f"Version {card.version}{parent}, `model.onnx` sha256 `{card.sha256}`, made with {made_with}."
    if card.lineage.steps:
        yield "\n".join(f"{place}. {sentence}" for place, sentence in enumerate(card.lineage.steps, 1))


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)
