"""The page of an experiment: its verdict, what it rests on, and how it came to be, round by round."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from google.protobuf import json_format

from lathe.experiment import AGREEMENT, METRICS, TITLES, judge, said_of, title, verdict_word, word
from lathe.plot import COLORS, SMALL_WH, Axis, Series, lines
from lathe.report import Report
from lathe.v1 import experiment_pb2
from lathe.v1.experiment_pb2 import EXPERIMENT_UNIT_STREAM, VERDICT_PROMOTE

MOST_LOOKS = 60
"""Rounds after which a plot shows the interval; evenly spaced where there were more."""


def write(experiment: experiment_pb2.Experiment, folder: Path, stem: str) -> Path:
    """Writes `<stem>.html`, and `<stem>.json` with all that the verdict rests on; returns the page's path."""
    content = json_format.MessageToJson(experiment, preserving_proto_field_name=True, indent=2)
    (folder / f"{stem}.json").write_text(content + "\n", "utf-8")
    path = folder / f"{stem}.html"
    page(experiment).save(path)
    return path


def page(experiment: experiment_pb2.Experiment) -> Report:
    """Args:
    experiment: one that has ended, or that runs.
    """
    spec = experiment.spec
    report = Report(f"Experiment {experiment.id}", title(spec))
    style = "big good" if experiment.verdict == VERDICT_PROMOTE else "big"
    report.paragraph(f"{verdict_word(experiment).capitalize()}. {experiment.reason}.", style)
    report.facts(_facts(experiment))
    report.heading("What was judged")
    report.paragraph(_method(spec))
    report.table(
        ["metric", "baseline", "candidate", "difference", f"low ({1 - spec.alpha:.0%})", "high", "allowed"],
        [_row(spec, experiment.rounds, one) for one in experiment.estimates],
    )
    report.paragraph(
        "For a promotion every line has to hold by these bounds. For a rollback one is enough, so wider bounds count "
        f"for it, which hold for all lines together with {1 - spec.alpha:.0%}.",
        "note",
    )
    looks = _looks(spec, experiment.rounds)
    if looks:
        report.heading("Over time")
        report.paragraph(
            "Each band is what was known at that moment. It holds at all moments together, so it was allowed "
            "to look at any time and to stop at the first verdict.",
            "note",
        )
        names = [one.metric for one in experiment.estimates]
        drawn = [(_band(spec, name, looks), TITLES[name]) for name in names if _bounded(name, looks)]
        report.plots(drawn)
    again = judge(spec, experiment.rounds, is_over=True)
    report.heading("Once more")
    report.paragraph(
        f"Judged anew from its rounds: {word(again.verdict)}. {again.reason}. "
        "A guardrail, a stop or another route may have ended the experiment before its rounds did."
    )
    with report.details("all rounds"):
        report.table(*_round_table(spec, experiment.rounds))
    return report


def _facts(experiment: experiment_pb2.Experiment) -> list[tuple[str, str]]:
    spec, rounds = experiment.spec, experiment.rounds
    frames = sum(one.baseline_frames for one in rounds), sum(one.candidate_frames for one in rounds)
    return [
        ("began", f"{experiment.started_at.ToDatetime():%Y-%m-%d %H:%M:%S} UTC"),
        ("took", f"{rounds[-1].ended_seconds:.0f} s" if rounds else "no round"),
        ("rounds", str(len(rounds))),
        ("frames of the baseline", f"{frames[0]:,}"),
        ("frames of the candidate", f"{frames[1]:,}"),
        ("frames that both judged", f"{sum(one.compared_frames for one in rounds):,}"),
        ("server", experiment.owner),
        ("by", experiment.author or "–"),
        ("chance of a wrong verdict", f"at most {spec.alpha:.1%}"),
    ]


def _method(spec: experiment_pb2.ExperimentSpec) -> str:
    who = "each stream by itself" if spec.unit == EXPERIMENT_UNIT_STREAM else "all frames of the model together"
    shared = " Both sides share queue and cores, so latency and drops are not compared." * (
        spec.unit == EXPERIMENT_UNIT_STREAM
    )
    return (
        f"Sides changed every {spec.block_seconds:g} s, {who}; in one of {spec.blocks_per_round} blocks, drawn "
        f"anew for each round, the candidate answered. The first {spec.washout_seconds:g} s of a block do not count. "
        "A round gives one number a metric, and the intervals are of these numbers: frames of a camera are not "
        f"independent.{shared}"
    )


def _row(
    spec: experiment_pb2.ExperimentSpec, rounds: Sequence[experiment_pb2.Round], one: experiment_pb2.Estimate
) -> list[str]:
    effects = [effect for each in rounds for effect in each.effects if effect.metric == one.metric]
    sides = ["", ""]
    if effects:
        means = [sum(getattr(effect, side) for effect in effects) / len(effects) for side in ("baseline", "candidate")]
        is_time = METRICS[one.metric].is_time
        sides = [f"{mean * 1e3:.2f} ms" if is_time else f"{mean:.2%}" for mean in means]
    sign = "" if one.metric == AGREEMENT else "+"
    bounds = (_percent(number, sign) for number in (one.value, one.low, one.high))
    return [TITLES[one.metric], *sides, *bounds, _allowed(spec, one)]


def _percent(number: float, sign: str) -> str:
    return f"{number:{sign}.1%}" if math.isfinite(number) else "–"


def _allowed(spec: experiment_pb2.ExperimentSpec, one: experiment_pb2.Estimate) -> str:
    if one.metric == AGREEMENT:
        return f"≥ {spec.minimum_agreement:.0%}"
    if one.metric == spec.objective:
        return f"better by {spec.minimum_effect:.1%}"
    margins = {margin.metric: margin.margin for margin in spec.margins}
    return f"≤ {margins[one.metric]:+.1%}" if one.metric in margins else "as many"


Look = tuple[float, dict[str, experiment_pb2.Estimate]]


def _looks(spec: experiment_pb2.ExperimentSpec, rounds: Sequence[experiment_pb2.Round]) -> list[Look]:
    """What was known after some of the rounds."""
    step = max(1, math.ceil(len(rounds) / MOST_LOOKS))
    counts = sorted({*range(step, len(rounds) + 1, step), len(rounds)} - {0})
    return [
        (rounds[count - 1].ended_seconds, {one.metric: one for one in judge(spec, rounds[:count]).estimates})
        for count in counts
    ]


def _bounded(name: str, looks: Sequence[Look]) -> list[tuple[float, experiment_pb2.Estimate]]:
    return [(seconds, known[name]) for seconds, known in looks if math.isfinite(known[name].high)]


def _band(spec: experiment_pb2.ExperimentSpec, name: str, looks: Sequence[Look]) -> str:
    points = _bounded(name, looks)
    bands = {
        bound: [(seconds, 100 * getattr(one, bound)) for seconds, one in points] for bound in ("low", "value", "high")
    }
    # The first intervals are so wide that the later ones would be a line.
    settled = sorted(abs(value) for _, value in bands["low"] + bands["high"])[: max(1, len(points) * 3 // 2)]
    reach = max(settled) * 1.2 or 1.0
    low, high = (0.0, 100.0) if name == AGREEMENT else (-reach, reach)
    if name == AGREEMENT:
        low = max(0.0, min(value for _, value in bands["value"]) - reach / 6)
    cut = {bound: [(seconds, min(max(value, low), high)) for seconds, value in band] for bound, band in bands.items()}
    end = points[-1][0]
    series = [
        Series(cut["low"], COLORS[1], "low"),
        Series(cut["high"], COLORS[1], "high"),
        Series(cut["value"], COLORS[0], said_of(points[-1][1])),
        *(Series([(0.0, 100 * limit), (end, 100 * limit)], COLORS[4], what) for limit, what in _limits(spec, name)),
    ]
    unit = "percent" if name == AGREEMENT or name not in METRICS or METRICS[name].is_time else "points"
    return lines(series, Axis("seconds", 0.0, end), Axis(unit, low, high), size_wh=SMALL_WH)


def _limits(spec: experiment_pb2.ExperimentSpec, name: str) -> list[tuple[float, str]]:
    if name == AGREEMENT:
        return [(spec.minimum_agreement, "the least that is allowed")]
    if name == spec.objective:
        return [(-spec.minimum_effect, "better"), (spec.minimum_effect, "worse")]
    return [(margin.margin, "the most that is allowed") for margin in spec.margins if margin.metric == name]


def _round_table(
    spec: experiment_pb2.ExperimentSpec, rounds: Sequence[experiment_pb2.Round]
) -> tuple[list[str], list[list[str]]]:
    rows = []
    for number, one in enumerate(rounds, 1):
        effect = next((effect for effect in one.effects if effect.metric == spec.objective), None)
        sides = [f"{effect.baseline * 1e3:.2f} ms", f"{effect.candidate * 1e3:.2f} ms"] if effect else ["", ""]
        agreement = f"{2 * one.matched_boxes / one.found_boxes:.3f}" if one.found_boxes else ""
        rows.append(
            [
                str(number),
                f"{one.ended_seconds:.1f}",
                str(one.baseline_frames),
                str(one.candidate_frames),
                *sides,
                f"{math.expm1(effect.effect):+.1%}" if effect else "",
                str(one.compared_frames),
                agreement,
            ]
        )
    objective = TITLES[spec.objective]
    headings = [
        "round",
        "ended, s",
        "frames A",
        "frames B",
        f"{objective}, A",
        "B",
        "difference",
        "compared",
        AGREEMENT,
    ]
    return headings, rows
