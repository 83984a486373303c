"""The page of a load test: whether it is to be believed first, then latencies, frames, the server, the sender."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from lathe.evidence import Interval
from lathe.figure_text import milli
from lathe.report import Report
from lathe_loadtest import load_plots
from lathe_loadtest.figures import (
    Figures,
    VariantFigures,
    accepted,
    figures,
    in_ms,
    server_rows,
    share_text,
    with_interval,
)
from lathe_loadtest.judge import Check
from lathe_loadtest.judge_text import HEADINGS, row
from lathe_loadtest.latencies import Latencies, latencies_by_group, latencies_of
from lathe_loadtest.phases import Phase, phases, told
from lathe_loadtest.result import ANSWERED, CameraResult, LoadResult
from lathe_loadtest.timeline import FEWEST_BLOCKS, KNOWN, Timeline

MOST_STRETCHES = 300
"""Of a drawing over time; longer runs are drawn in stretches of several seconds."""
MOST_CAMERAS = 20
FRAME_HEADINGS = ("due", "answered", "unanswered", "p50, ms", "p99, ms")
_RED = " What was done to the server is dashed in red."


def page(result: LoadResult, checks: Sequence[Check] = (), found: Figures | None = None) -> Report:
    """Args:
    checks: of what the scenario expects.
    found: its figures, where they are known already.
    """
    found = found or figures(result)
    judged, events = found.timeline, phases(result)
    scenario = result.scenario
    began = datetime.fromtimestamp(result.started_at_unix, UTC)
    report = Report(
        f"Load test: {scenario.name or scenario.model}",
        " ".join([*([scenario.about] if scenario.about else []), f"{began:%Y-%m-%d %H:%M:%S} UTC."]),
    )
    _add_validity(report, result, checks)
    report.facts(_facts(result, found))
    if checks:
        report.subheading("Expected and measured")
        report.table(HEADINGS, list(map(row, checks)))
    timeline = judged.grouped(max(1, math.ceil(len(judged) / MOST_STRETCHES)))
    _add_latency(report, timeline, found, events)
    if len(found.variants) > 1:
        _add_variants(report, timeline, found, events)
    _add_frames(report, timeline, found, events)
    _add_server(report, result, timeline, found, events)
    _add_groups(report, result)
    _add_cameras(report, result)
    _add_sender(report, result, found)
    return report


def _add_validity(report: Report, result: LoadResult, checks: Sequence[Check]) -> None:
    if result.is_valid:
        report.paragraph("Valid: the sender kept to its times, so the figures are the server's.", "big good")
    else:
        report.paragraph(f"Not valid: {'; '.join(result.why_invalid)}.", "big bad")
        report.paragraph("The figures say more of the driver than of the server. Do not judge a server by them.", "bad")
    if result.ended != "completed":
        how = "The server was lost" if result.ended == "server_lost" else "The run was interrupted"
        why = f": {result.error}" if result.error else ""
        report.paragraph(f"{how} after {result.seconds:.0f} of {result.scenario.seconds:.0f} s{why}.", "bad")
    for one in checks:
        if not one.holds:
            of = f"{one.of}: " if one.of else ""
            report.paragraph(f"Not met: {of}{one.what} {one.measured}, expected {one.expected}", "bad")
    if checks and all(one.holds for one in checks):
        report.paragraph("As expected.", "good")
    for event in result.events:
        if event.error:
            report.paragraph(f"At {event.at_seconds:.0f} s {event.text or event.do} failed: {event.error}", "bad")


def _facts(result: LoadResult, found: Figures) -> list[tuple[str, str]]:
    scenario = result.scenario
    groups = ", ".join(f"{one.count} at {one.fps:.3g} fps" for one in scenario.cameras)
    sizes = ", ".join(sorted({f"{one.size_wh[0]}×{one.size_wh[1]}, quality {one.quality}" for one in scenario.cameras}))
    return [
        ("model", scenario.model),
        ("variants", ", ".join(result.variants) or "none answered"),
        ("protocol", scenario.protocol),
        ("cameras", groups),
        ("pictures", sizes),
        ("load over time", scenario.shape.kind),
        ("judged", f"{found.judged_seconds} s, {found.due:,} frames"),
        ("server", result.address),
        ("driver's machine", f"{result.machine.cpu}, {result.machine.cores} cores"),
    ]


def _add_latency(report: Report, timeline: Timeline, found: Figures, events: Sequence[Phase]) -> None:
    report.heading("Latency")
    if not found.all.frames:
        report.paragraph("No frame was answered." if found.due else "No frame was due.", "bad")
        return
    blocks = found.timeline.blocks
    curves = {"all": blocks.together}
    if len(found.variants) > 1:
        curves |= {name: blocks.latencies[name] for name in found.variants}
    report.plot(
        load_plots.distribution(curves),
        "From when a frame was to be sent until its answer came: a frame that had to wait counts with its wait. "
        "Bands are 95 % intervals, cut at the slowest frame; they end where fewer than ten frames are slower, lines "
        "where none is.",
        load_plots.key(curves if len(curves) > 1 else ()),
    )
    rows = {"all": found.all, **(found.variants if len(found.variants) > 1 else {})}
    report.table(*_percentile_table(rows))
    report.paragraph(_how_to_read(len(blocks)), "note")
    if any(one.is_planned for one in events) and len(blocks) >= FEWEST_BLOCKS:
        report.paragraph("This load changes by plan, so blocks differ: intervals are wider than they would be.", "note")
    report.heading("Latency over time")
    shares = {"p50": 0.5, "p99": 0.99}
    stretch = int(timeline.lengths[0])
    each = "each second" if stretch == 1 else f"each {stretch} s"
    report.plot(
        load_plots.latency_over_time(timeline, events, shares),
        f"Of the frames that were to be sent in {each}. {told(events)}{_RED * any(one.is_action for one in events)} "
        "Gaps are times of which no frame was answered.",
        load_plots.key(shares),
    )


def _how_to_read(blocks: int) -> str:
    if blocks < FEWEST_BLOCKS:
        return "The run is too short for intervals: they need 25 s beside the warm-up."
    return (
        f"In brackets: 95 % intervals by Student's bootstrap over {blocks} blocks of consecutive seconds, since frames "
        "of one moment share a queue. They know the noise within this run, not that between runs."
    )


def _percentile_table(rows: dict[str, VariantFigures]) -> tuple[list[str], list[list[str]]]:
    shares = sorted({share for one in rows.values() for share in one.percentiles})
    headings = ["ms", "frames", "mean", *(f"p{100 * share:g}" for share in shares)]
    nothing = Interval(math.nan, math.nan, math.nan, 0.95)
    body = [
        [
            name,
            f"{one.frames:,}",
            milli(one.mean_seconds),
            *(in_ms(one.percentiles.get(share, nothing)) for share in shares),
        ]
        for name, one in rows.items()
    ]
    return headings, body


def _add_variants(report: Report, timeline: Timeline, found: Figures, events: Sequence[Phase]) -> None:
    report.heading("By variant")
    report.table(
        ["variant", "frames", "of the answered"],
        [[name, f"{one.frames:,}", f"{100 * one.share:.2f} %"] for name, one in found.variants.items()],
    )
    report.plot(
        load_plots.variants_over_time(timeline, events, 0.5), "p50 over time.", load_plots.key(timeline.latencies)
    )
    rows = {name: list(one.counts.sum(1) / timeline.lengths) for name, one in timeline.latencies.items()}
    report.plot(load_plots.rates_over_time(timeline, rows, events), "Answered by each.", load_plots.key(rows))


def _add_frames(report: Report, timeline: Timeline, found: Figures, events: Sequence[Phase]) -> None:
    report.heading("Frames offered, accepted, served")
    if not found.due:
        report.paragraph("No frame was due.", "bad")
        return
    rows = {
        "offered": list(timeline.due / timeline.lengths),
        "accepted": list(accepted(timeline) / timeline.lengths),
        "served": list(timeline.answered / timeline.lengths),
    }
    report.plot(
        load_plots.rates_over_time(timeline, rows, events),
        f"Offered {found.offered.value:.1f} frames a second: due by the cameras' clocks. Accepted "
        f"{found.accepted.value:.1f}: sent and not turned away. Served {with_interval(found.served, '.1f')}: answered.",
        load_plots.key(rows),
    )
    report.table(
        ["outcome", "frames", "of the due"],
        [[name, f"{found.outcomes[name]:,}", share_text(one)] for name, one in found.shares.items()],
    )
    if any(count for name, count in found.outcomes.items() if name != ANSWERED):
        report.subheading("Without an answer, by reason")
        names = load_plots.key(load_plots.unanswered(timeline), load_plots.UNANSWERED_COLOR)
        report.plot(load_plots.drops_over_time(timeline, events), "On top of one another.", names)
    else:
        report.paragraph("Every frame was answered.", "good")


def _add_server(
    report: Report, result: LoadResult, timeline: Timeline, found: Figures, events: Sequence[Phase]
) -> None:
    report.heading("The server, by its own metrics")
    if not found.server:
        report.paragraph("Its metrics could not be read, so CPU, memory, cost and energy are not known.")
        return
    report.facts(server_rows(found.server))
    if not found.server.cost_used:
        report.paragraph("The server has no price, so there is no cost (--price-per-core-hour).", "note")
    if len(timeline):
        report.plots(_server_plots(result, timeline, events))


def _server_plots(result: LoadResult, timeline: Timeline, events: Sequence[Phase]) -> list[tuple[str, str]]:
    end = float(timeline.starts[-1] + timeline.lengths[-1])
    grown = timeline.server
    answered = grown.get(ANSWERED)
    drawn: list[tuple[str, list[tuple[float, float]], str]] = []
    if "cpu_seconds" in grown:
        points = load_plots.per_stretch(grown["cpu_seconds"].tolist(), grown[KNOWN].tolist(), timeline)
        drawn.append(("cores", points, "CPU, in cores."))
    memory = [(reading.at_seconds, reading.resident_bytes / 1e6) for reading in result.server]
    drawn.append(("MB", memory, "Resident memory."))
    for name, title, factor, caption in (
        ("cost_usage", f"{result.server[-1].currency} a million frames", 1e6, "Cost of processors used."),
        ("joules", "mJ a frame", 1e3, f"Energy ({result.server[-1].energy_source})."),
    ):
        if name in grown and answered is not None and answered.any():
            points = load_plots.per_stretch((grown[name] * factor).tolist(), answered.tolist(), timeline)
            drawn.append((title, points, caption))
    return [
        (load_plots.small_over_time(points, title, end, events), caption) for title, points, caption in drawn if points
    ]


def _add_groups(report: Report, result: LoadResult) -> None:
    groups = latencies_by_group(result.cameras)
    if not groups:
        return
    report.heading("By group of cameras")
    answered = {name: one for name, one in groups.items() if one.total}
    if answered:
        report.plot(
            load_plots.distribution(answered),
            "The latencies of each.",
            load_plots.key(answered),
        )
    rows = []
    for name, latencies in groups.items():
        own = [camera for camera in result.cameras if camera.group == name]
        rows.append([name, str(len(own)), *_frames_of(own, latencies)])
    report.table(["group", "cameras", *FRAME_HEADINGS], rows)


def _frames_of(cameras: Sequence[CameraResult], latencies: Latencies) -> list[str]:
    """Cells below `FRAME_HEADINGS`."""
    due = sum(one.due for one in cameras)
    answered = sum(one.outcomes.get(ANSWERED, 0) for one in cameras)
    ms = [milli(latencies.percentile(share)) if latencies.total else "–" for share in (0.5, 0.99)]
    return [f"{due:,}", f"{answered:,}", f"{1 - answered / due:.2%}" if due else "–", *ms]


def _add_cameras(report: Report, result: LoadResult) -> None:
    report.heading("Cameras")
    worst = sorted(result.cameras, key=_badness, reverse=True)
    with report.details(f"{min(MOST_CAMERAS, len(worst))} of {len(worst)}, those with most unanswered frames first"):
        rows = [
            [one.name, *_frames_of([one], latencies_of([one])), str(one.connections)] for one in worst[:MOST_CAMERAS]
        ]
        report.table(["camera", *FRAME_HEADINGS, "connections"], rows)


def _badness(one: CameraResult) -> float:
    return (one.due - one.outcomes.get(ANSWERED, 0)) / one.due if one.due else 0.0


def _add_sender(report: Report, result: LoadResult, found: Figures) -> None:
    report.heading("The sender")
    report.facts(
        [
            ("processes", str(result.sender.processes)),
            ("CPU a frame sent, µs", f"{found.sender_us_per_frame:.0f}"),
            ("its own lateness, p99, ms", milli(found.late_p99_seconds) if found.due else "–"),
            ("at most, ms", milli(found.late_most_seconds) if found.due else "–"),
        ]
    )
    with report.details("scenario"):
        report.paragraph(json.dumps(asdict(result.scenario), ensure_ascii=False))
