"""What the demo found: a table for the terminal, figures as JSON, a page with pictures."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import simplejpeg
from rich import box
from rich.console import Console
from rich.table import Table

from lathe.annotate import draw
from lathe.card import enum_word
from lathe.demo.capacity import CAMERA_FPS, Capacity
from lathe.demo.footage import Footage
from lathe.demo.live import CAMERAS, FPS, LiveRun
from lathe.detections import Detections
from lathe.machine import cpu_name
from lathe.pareto import pareto_front
from lathe.plot import COLORS, Axis, Point, scatter
from lathe.report import Report
from lathe.repository import Repository, VariantRef
from lathe.v1 import card_pb2

if TYPE_CHECKING:
    from lathe_compression.evaluate import Evaluation

PICTURES_PER_VIDEO = 3
CANDIDATES_PER_VIDEO = 24


@dataclass(frozen=True)
class Row:
    """One variant's figures, all at the serving size.

    Attributes:
        live_ms: median and 99th percentile of the live part; None for a variant that had no part in it.
    """

    variant: str
    size_bytes: int
    quality_name: str
    quality: float
    quality_low: float
    quality_high: float
    infer_ms: float
    frame_ms: float
    speedup: float
    live_ms: tuple[float, float] | None
    capacity: Capacity


@dataclass(frozen=True)
class Findings:
    """Attributes:
    cards: by variant, the reference first.
    evaluations: of each variant but the reference: on bare frames, and on labelled pictures where given.
    """

    cards: Sequence[card_pb2.Card]
    evaluations: Mapping[str, Sequence[Evaluation]]
    capacities: Mapping[str, Capacity]
    live: LiveRun
    price_per_core_hour: float
    server_exit_code: int

    def rows(self) -> list[Row]:
        return [self._row(card) for card in self.cards]

    def _row(self, card: card_pb2.Card) -> Row:
        name = card.variant
        is_reference = name not in self.evaluations
        # The reference was measured in turn with every other variant; the first of them speaks for it.
        evaluation = next(iter(self.evaluations.values()))[-1] if is_reference else self.evaluations[name][-1]
        stages = evaluation.reference_stages if is_reference else evaluation.stages
        quality_name, quality, low, high = _quality(evaluation, is_reference)
        latencies = self.live.latencies(name)
        live_p50, live_p99 = np.quantile(latencies, [0.5, 0.99]) * 1e3 if latencies else (0.0, 0.0)
        return Row(
            name,
            card.size_bytes,
            quality_name,
            quality,
            low,
            high,
            stages["infer"] * 1e3,
            stages["total"] * 1e3,
            1.0 if is_reference else evaluation.speedup,
            (float(live_p50), float(live_p99)) if latencies else None,
            self.capacities[name],
        )

    def as_json(self) -> dict[str, Any]:
        live, swap = self.live, self.live.swap
        return {
            "lost_frames": live.lost,
            "frames": {
                "sent": live.sent,
                "answered": live.answered,
                "dropped": live.dropped,
                "rejected": live.outcomes["rejected"],
                "failed": live.outcomes["failed"],
                "lost": live.lost,
            },
            "swap": {
                "from": swap.before,
                "to": swap.after,
                "asked_at_seconds": swap.asked_at,
                "served_at_seconds": swap.served_at,
                "loaded_before": swap.was_loaded_before,
            },
            "variants": {row.variant: self._variant_json(row) for row in self.rows()},
            "cameras": {"count": CAMERAS, "fps": FPS},
            "price_per_core_hour": self.price_per_core_hour,
            "currency": "USD",
            "machine": {"cpu": cpu_name(), "python": platform.python_version()},
        }

    def _variant_json(self, row: Row) -> dict[str, Any]:
        capacity = row.capacity
        return {
            "size_bytes": row.size_bytes,
            "quality": {
                "metric": row.quality_name,
                "value": row.quality,
                "low": row.quality_low,
                "high": row.quality_high,
            },
            "infer_ms": row.infer_ms,
            "frame_ms": row.frame_ms,
            "speedup": row.speedup,
            "latency_p50_ms": row.live_ms[0] if row.live_ms else None,
            "latency_p99_ms": row.live_ms[1] if row.live_ms else None,
            "cpu_ms_per_frame": capacity.cpu_ms_per_frame,
            "frames_per_second": capacity.frames_per_second,
            "cameras_at_10_fps": capacity.cameras,
            "cost_per_million_predictions": capacity.cost_per_million,
            "evaluations": [one.as_json() for one in self.evaluations.get(row.variant, [])],
        }


def _quality(evaluation: Evaluation, is_reference: bool) -> tuple[str, float, float, float]:
    """Average precision where there were labels, else agreement with the reference; with its interval."""
    if evaluation.label_sets:
        labels = next((one for one in evaluation.label_sets if one.name == "medium"), evaluation.label_sets[0])
        name = f"AP@.5 {labels.name}"
        if is_reference:
            return name, labels.reference_ap50, labels.reference_ap50, labels.reference_ap50
        base = labels.reference_ap50
        return name, labels.ap50, base + labels.difference.low, base + labels.difference.high
    if is_reference:
        return "agreement", 1.0, 1.0, 1.0
    agreement = evaluation.agreement
    return "agreement", agreement.value, agreement.low, agreement.high


HEADINGS = {
    "variant": "variant",
    "MB": "size, MB",
    "quality": "quality",
    "infer": "infer, ms",
    "speed": "speed",
    "p50": "live p50, ms",
    "p99": "live p99, ms",
    "CPU": "CPU a frame, ms",
    "cameras": f"cameras at {CAMERA_FPS:g} fps",
    "USD": "USD a million",
}
"""Headings for a terminal of 80 columns, and for the page."""


def _cells(row: Row) -> list[str]:
    cost = row.capacity.cost_per_million
    return [
        row.variant,
        f"{row.size_bytes / 1e6:.2f}",
        f"{row.quality:.3f}",
        f"{row.infer_ms:.2f}",
        f"{row.speedup:.2f}×",
        *(f"{milliseconds:.1f}" for milliseconds in row.live_ms or ()),
        *([] if row.live_ms else ["–", "–"]),
        f"{row.capacity.cpu_ms_per_frame:.2f}",
        str(row.capacity.cameras),
        f"{cost:.3f}" if cost is not None else "",
    ]


def _account(live: LiveRun) -> str:
    reasons = ", ".join(f"{name.removeprefix('dropped_')} {count}" for name, count in live.dropped.items())
    return (
        f"{live.sent} frames sent, {live.answered} answered, {sum(live.dropped.values())} dropped"
        f"{f' ({reasons})' if reasons else ''}, {live.outcomes['rejected'] + live.outcomes['failed']} in error, "
        f"{live.lost} lost"
    )


def show(findings: Findings, console: Console) -> None:
    """Prints the table and the account of the frames."""
    rows = findings.rows()
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "variant" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row))
    console.print(table)
    console.print(
        f"quality: {rows[0].quality_name} at the serving size. infer: the network, ms, one thread.\n"
        "p50, p99: live, from due to answered, ms.\n"
        "CPU: the server's, ms a frame, at full load. USD: a million predictions.\n"
        f"cameras: at {CAMERA_FPS:g} fps that this machine carries.\n",
        highlight=False,
    )
    swap = findings.live.swap
    console.print(
        f"swap {swap.before} → {swap.after} under load took {swap.served_at - swap.asked_at:.2f} s\n"
        f"{_account(findings.live)}",
        highlight=False,
    )


def write_report(
    findings: Findings, repository: Repository, refs: Sequence[VariantRef], footage: Sequence[Footage], path: Path
) -> None:
    """Draws the page."""
    rows, live = findings.rows(), findings.live
    report = Report(
        f"{findings.cards[0].model}: {live.swap.before} to {live.swap.after}",
        f"Measured on {cpu_name()}; networks run on one thread. Live: {CAMERAS} cameras at {FPS:g} frames a second.",
    )
    report.paragraph(_account(live), "big bad" if live.lost else "big good")
    report.table(list(HEADINGS.values()), [_cells(row) for row in rows])
    report.paragraph(
        f"Quality is {rows[0].quality_name} at the serving size. Infer is the network alone, the variants taking turns "
        "on the same pictures. CPU a frame is that of the whole server process at full load; cameras are what it "
        "answered then, with the load generator on the same machine. Cost is the workers' CPU time at "
        f"{findings.price_per_core_hour:g} USD a core-hour.",
        "note",
    )
    report.heading("Quality against latency")
    report.plot(
        _front_plot(rows), "Up and to the left is better. Dashed: the Pareto front. Point at a dot for its figures."
    )
    report.heading("Latency over time")
    report.plot(_time_plot(live), _time_caption(live))
    report.heading("The same frames, every variant")
    for row in _pictures(repository, refs, footage):
        report.pictures(row)
    report.heading("Where the variants come from")
    for card in findings.cards:
        lineage = " → ".join([card.lineage.teacher, *card.lineage.steps])
        report.paragraph(
            f"{card.variant} ({enum_word('Precision', card.precision)}, {card.macs / 1e6:.0f} M multiply-accumulates, "
            f"sha256 {card.sha256[:12]}…): {lineage}"
        )
    for notice in findings.cards[0].notices:
        report.paragraph(notice, "note")
    report.save(path)


def _front_plot(rows: Sequence[Row]) -> str:
    at = [(row.infer_ms, row.quality) for row in rows]
    points = [
        Point(
            x,
            y,
            COLORS[number % len(COLORS)],
            f"{row.variant}: {row.quality_name} {y:.4f} ({row.quality_low:.4f} to {row.quality_high:.4f}), {x:.2f} ms",
            row.variant,
        )
        for number, ((x, y), row) in enumerate(zip(at, rows, strict=True))
    ]
    low, high = min(y for _, y in at), max(y for _, y in at)
    margin = max(0.01, (high - low) * 0.5)
    return scatter(
        points,
        Axis("infer, milliseconds a frame, one thread", 0.0, max(x for x, _ in at) * 1.1),
        Axis(rows[0].quality_name, low - margin, min(1.0, high + margin / 4)),
        line=[at[index] for index in pareto_front(at)],
    )


def _time_plot(live: LiveRun) -> str:
    swap = live.swap
    colors = {swap.before: COLORS[0], swap.after: COLORS[1]}
    points = [
        Point(
            sample.due_at,
            sample.latency_seconds * 1e3,
            colors.get(sample.variant, COLORS[2]),
            f"{sample.variant}, {sample.latency_seconds * 1e3:.1f} ms",
            radius=2.2,
        )
        for sample in live.samples
    ]
    return scatter(
        points,
        Axis("seconds from the start", 0.0, max(point.x for point in points)),
        Axis("milliseconds from due to answered", 0.0, max(point.y for point in points)),
        marks=[(swap.asked_at, swap.served_at, f"{swap.before} → {swap.after}")],
    )


def _time_caption(live: LiveRun) -> str:
    swap = live.swap
    during = sum(swap.asked_at <= sample.due_at <= swap.served_at for sample in live.samples)
    loaded = "was" if swap.was_loaded_before else "was not"
    return (
        f"One dot an answered frame: {swap.before} blue, {swap.after} orange. The band is the swap, "
        f"{swap.served_at - swap.asked_at:.2f} s of loading, checking and switching, with {during} frames due within "
        f"it; {swap.after} {loaded} in memory before."
    )


def _pictures(
    repository: Repository, refs: Sequence[VariantRef], footage: Sequence[Footage]
) -> list[list[tuple[bytes, str]]]:
    """A few frames of each video with every variant's boxes, side by side."""
    from lathe_compression.judge import build_detector
    from lathe_server.vision import EncodedPicture

    detectors = {ref.variant: build_detector(repository.card(ref), repository.model_bytes(ref)) for ref in refs}
    rows = []
    for video in footage:
        reference = detectors[refs[0].variant]
        candidates = range(0, len(video.frames), max(1, len(video.frames) // CANDIDATES_PER_VIDEO))
        faces = {index: len(reference.detect(EncodedPicture(video.frames[index])).detections) for index in candidates}
        for index in richest(faces, PICTURES_PER_VIDEO):
            picture = EncodedPicture(video.frames[index])
            rows.append(
                [
                    _annotated(
                        picture.data, detector.detect(picture).detections, f"{name}: {video.name}, frame {index}"
                    )
                    for name, detector in detectors.items()
                ]
            )
    return rows


def richest(faces: Mapping[int, int], count: int) -> list[int]:
    """The frame with most faces of each of `count` parts of a video, so that they are spread over it.

    >>> richest({0: 1, 10: 3, 20: 0, 30: 2, 40: 2, 50: 5}, 3)
    [10, 30, 50]
    """
    order = sorted(faces)
    bounds = [round(part * len(order) / count) for part in range(count + 1)]
    parts = [order[low:high] for low, high in pairwise(bounds) if low < high]
    return [max(part, key=lambda index: (faces[index], -index)) for part in parts]


def _annotated(jpeg: bytes, found: Detections, caption: str) -> tuple[bytes, str]:
    """The frame at the width of the page's column, with its boxes."""
    pixels = simplejpeg.decode_jpeg(jpeg)
    scale = min(4.0, max(1.0, 480 / pixels.shape[1]))
    if scale > 1:
        pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    drawn = draw(pixels, found.scaled(scale, scale))
    faces = len(found)
    return simplejpeg.encode_jpeg(np.ascontiguousarray(drawn), 85, "RGB", "420"), f"{caption}: {faces} found"
