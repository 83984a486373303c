"""The part of a page that shows how a variant was made: steps with their curves, and the layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lathe.making import Channels, Layer, LayerTrial, Making, Step
from lathe.plot import COLORS, Axis, Series, bars, lines
from lathe.report import Report

LONG_TABLE = 12
MOST_BARS = 24
MOST_NAMED_LINES = 5
STEEP = 30.0


def add_making(report: Report, making: Making) -> None:
    """Adds what hygiene gained, what the steps gained and lost, every step in order, then the table of layers."""
    if making.hygiene_speedup is not None:
        report.paragraph(hygiene_sentence(making.hygiene_speedup))
    _add_standings(report, making.steps)
    for number, step in enumerate(making.steps, 1):
        _add_step(report, number, step)
    if making.layers:
        _add_layers(report, making.layers)


def hygiene_sentence(speedup: float) -> str:
    """What the reference owes to its graph's being clean."""
    return (
        f"Graph hygiene alone: the clean graph is {speedup:.2f} times as fast as the exported one. "
        "Speeds are against the clean one, so that this is not counted as compression."
    )


def _add_standings(report: Report, steps: Sequence[Step]) -> None:
    headings, rows = standings(steps)
    if rows:
        report.subheading("What each step gained and lost")
        report.table(headings, rows)


def standings(steps: Sequence[Step]) -> tuple[list[str], list[list[str]]]:
    """A table with a row for each step whose graph was measured."""
    rows = [
        [f"{number}: {step.kind}", _share(after.agreement), _times(after.speedup), f"{after.size_bytes / 1e6:.2f}"]
        for number, step in enumerate(steps, 1)
        if (after := step.after)
    ]
    return ["after step", "agreement with the reference", "speed", "size, MB"], rows


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}×"


def _add_step(report: Report, number: int, step: Step) -> None:
    report.subheading(f"Step {number}: {step.name} ({step.kind})")
    for sentence in step.sentences:
        report.paragraph(sentence)
    if step.rounds:
        _add_rounds(report, step.rounds)
    if len(step.curve) > 1:
        report.plot(loss_curve(step), f"Training of {step.name}: loss from {curve_span(step.curve)}.")
    if step.channels:
        _add_channels(report, step.channels)
    if step.layers:
        _add_trials(report, step.layers)


def curve_span(curve: Sequence[tuple[float, float]]) -> str:
    """Where a loss began and ended, in words."""
    return f"{curve[0][1]:.4g} to {curve[-1][1]:.4g} over {curve[-1][0]:.0f} pictures"


def loss_curve(step: Step) -> str:
    """The loss over the pictures; its logarithm where it falls so far that the end would be a flat line."""
    losses = [loss for _, loss in step.curve]
    is_steep = min(losses) > 0 and max(losses) > STEEP * min(losses)
    points = [(seen, math.log10(loss)) for seen, loss in step.curve] if is_steep else step.curve
    low, high = min(value for _, value in points), max(value for _, value in points)
    return lines(
        [Series(points, COLORS[0], step.name)],
        Axis("pictures seen", 0.0, max(seen for seen, _ in points)),
        Axis("log10 of the loss", low, high) if is_steep else Axis("loss", min(0.0, low), high),
    )


def _add_rounds(report: Report, rounds: Sequence[Mapping[str, float]]) -> None:
    headings = list(dict.fromkeys(key for one in rounds for key in one))
    rows = [[f"{one[key]:.4g}" if key in one else "" for key in headings] for one in rounds]
    _add_table(report, f"{len(rounds)} rounds", [heading.replace("_", " ") for heading in headings], rows)


def _add_channels(report: Report, channels: Mapping[str, Channels]) -> None:
    """One line a layer: the loss as its channels go; the steepest are named."""
    drawn = {name: one for name, one in channels.items() if len(one.losses) > 1}
    steepest = sorted(drawn, key=lambda name: -max(loss for _, loss in drawn[name].losses))
    if drawn:
        series = [
            Series(
                one.losses,
                COLORS[number % len(COLORS)],
                f"{name}: {one.kept} of {one.width} channels kept",
                name if name in steepest[:MOST_NAMED_LINES] else "",
            )
            for number, (name, one) in enumerate(drawn.items())
        ]
        losses = [loss for one in drawn.values() for _, loss in one.losses]
        report.plot(
            lines(
                series,
                Axis("share of the layer's channels gone", 0.0, max(one.losses[-1][0] for one in drawn.values())),
                Axis("foreseen loss", min(0.0, *losses), max(losses)),
            ),
            "Sensitivity, as the criterion foresees it before the first cut: one layer loses channels, the others keep "
            "theirs. The most sensitive are named; point at a line for its name.",
        )
    rows = [
        [name, str(one.width), str(one.kept), f"{one.kept / max(1, one.width):.0%}"] for name, one in channels.items()
    ]
    _add_table(report, f"channels kept in {len(rows)} layers", ["layer", "width", "kept", "share"], rows)


def _add_trials(report: Report, trials: Mapping[str, LayerTrial]) -> None:
    """The error that each layer brings when it alone is quantized."""
    order = sorted(trials, key=lambda name: -trials[name].error)
    shown = order[:MOST_BARS]
    rows = [(name, max(0.0, trials[name].error), f"{name}: error {trials[name].error:.4g}") for name in shown]
    which = f"the {len(shown)} most sensitive of {len(order)} layers" if len(order) > len(shown) else "every layer"
    report.plot(bars(rows, "error when this layer alone is quantized"), f"Sensitivity of {which}.")
    table = [[name, f"{trials[name].error:.4g}", _microseconds(trials[name].seconds_saved)] for name in order]
    _add_table(
        report, f"sensitivity of {len(order)} layers", ["layer", "error", "saved, µs (below 0: it got slower)"], table
    )


def _microseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1e6:+.1f}"


def _add_layers(report: Report, layers: Sequence[Layer]) -> None:
    report.subheading("Layers")
    all_macs = sum(layer.macs for layer in layers) or 1
    rows = [
        [
            layer.name,
            layer.operator,
            "×".join("free" if side < 0 else str(side) for side in layer.shape),
            f"{layer.macs / 1e6:.2f}",
            f"{layer.macs / all_macs:.1%}",
            f"{layer.parameters:,}",
            layer.precision,
            f"{layer.sparsity:.0%}",
        ]
        for layer in layers
    ]
    headings = ["layer", "operator", "output", "M MACs", "share", "parameters", "precision", "zeros"]
    counts = {
        kind: sum(layer.precision == kind for layer in layers) for kind in dict.fromkeys(x.precision for x in layers)
    }
    summary = f"{len(layers)} layers: {', '.join(f'{count} {kind}' for kind, count in counts.items())}"
    _add_table(report, summary, headings, rows)


def _add_table(report: Report, summary: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A long one is hidden until somebody asks for it."""
    if len(rows) <= LONG_TABLE:
        report.table(headings, rows)
        return
    with report.details(summary):
        report.table(headings, rows)
