"""The figures beside what they are to reach, as a page for a repository's own documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lathe.plot import COLORS, Axis, Series, lines, standalone

Report = Mapping[str, Mapping[str, float]]
"""Figures by scenario, and by variant where there are several: `throughput int8`."""


@dataclass(frozen=True)
class Row:
    """One line of the page.

    Attributes:
        scenario, figure: where its value is in the report.
        bar, aim: what it is to reach; empty where it only informs.
    """

    text: str
    scenario: str
    figure: str
    unit: str = ""
    digits: int = 2
    bar: str = ""
    aim: str = ""


ENGINES, ONE_CALLER, UNARY, TENSORS = "engines", "one caller", "unary", "tensors"
HOSTILE, WATCHED = "hostile", "watched"
DEGRADE, DEGRADE_TWICE = "degrade", "degrade twice"
PEERS = {"mosec": "mosec", "aio": "a minimal grpc.aio server", "kserve": "KServe", "mlserver": "MLServer"}


def rows(variant: str, cheaper: str, called: str, way_down: Sequence[str]) -> list[Row]:
    """Of a report.

    Args:
        variant, cheaper: two that serve streams.
        called: by unary calls, beside other servers.
        way_down: a longer way to degrade, from the dearest.
    """
    beside = [
        Row(f"`{called}`: its network", UNARY, "network_ms", "ms"),
        Row(f"`{called}`: the bare loop in two threads", UNARY, "raw_fps", "frames/s", 0),
        Row("JPEG unary on two cores: share of the bare loop", UNARY, "lathe_share", "", 3),
        Row("the same against mosec", UNARY, "over_mosec", "×", 3, "≥ 1", "1.05"),
        Row("the same: added to one caller's call", UNARY, "lathe_added_ms", "ms"),
    ]
    for name, text in PEERS.items():
        beside.append(Row(f"{text}: share of the bare loop", UNARY, f"{name}_share", "", 3))
        beside.append(Row(f"{text}: added to one caller's call", UNARY, f"{name}_added_ms", "ms"))
    through = []
    for name, bar, aim in ((variant, "≥ 0.90", "0.95"), (cheaper, "≥ 0.85", "0.92")):
        key = f"throughput {name}"
        through += [
            Row(f"`{name}`: its network", key, "network_ms", "ms"),
            Row(f"`{name}`: the bare loop", key, "raw_fps", "frames/s", 0),
            Row(f"`{name}`: JPEG frames on 16 streams", key, "server_fps", "frames/s", 0),
            Row(f"`{name}`: share of the bare loop", key, "share_of_raw", "", 3, bar, aim),
            Row(f"`{name}`: CPU above the bare loop, a frame", key, "cpu_over_raw_ms", "ms", 2, "≤ 0.75", "0.5"),
        ]
    degrading = []
    for scenario, way in ((DEGRADE, (variant, cheaper)), (DEGRADE_TWICE, way_down)):
        text = f"degrading {' → '.join(f'`{name}`' for name in way)}, ramp 1 → 3 → 1: answered against not"
        degrading += [
            Row(text, scenario, "answered_ratio", "×", 2, "≥ 1.5", "2"),
            Row("the same, at its peak alone", scenario, "answered_ratio_at_peak", "×"),
        ]
    return [
        *through,
        Row(f"`{variant}`'s network on ONNX Runtime", ENGINES, "onnxruntime_ms", "ms"),
        Row(f"`{variant}`'s network on OpenVINO", ENGINES, "openvino_ms", "ms"),
        Row("the same: speed of OpenVINO against ONNX Runtime", ENGINES, "openvino_speed", "×"),
        Row("one caller, JPEG unary: added latency", ONE_CALLER, "added_ms", "ms", 2, "≤ 0.6", "0.4"),
        *beside,
        Row("tensors of 983 KB in and 307 KB out, two cores: the network", TENSORS, "network_ms", "ms"),
        Row("the same: the bare loop in two threads", TENSORS, "raw_fps", "calls/s", 0),
        Row("the same: share of the bare loop", TENSORS, "share_of_raw", "", 3, "≥ 0.88", "0.95"),
        Row("a network that is next to nothing: in the bare loop", TENSORS, "tiny_ms", "ms", 3),
        Row("the same, 16 callers, two cores: calls a second", TENSORS, "tiny_per_second", "", 0, "≥ 5000", "10 000"),
        Row("the same: a minimal grpc.aio server, plain bytes", TENSORS, "tiny_aio_per_second", "", 0),
        Row("the same: mosec, plain bytes", TENSORS, "tiny_mosec_per_second", "", 0),
        Row("80 % of capacity, fixed rate: p99 ÷ service time", "steady", "p99_over_service", "", 1, "≤ 8", "5"),
        Row("80 % of capacity: frames dropped", "steady", "dropped", "", 0, "0", "0"),
        Row("2× overload, 64 streams: served ÷ capacity", "overload", "served_over_capacity", "", 3, "≥ 0.92", "0.97"),
        Row("2× overload: p99, of an age of at most 1000 ms", "overload", "p99_ms", "ms", 0, "≤ 1000", ""),
        Row("a camera at 120 fps among 16: p99 of the others", "flood", "p99_ratio", "×", 2, "≤ 1.2", "1.05"),
        Row("the same: frames of the others dropped", "flood", "others_dropped", "", 0, "", ""),
        Row("a swap a second: swaps that were made", "swaps", "swaps", "", 0, "", ""),
        Row("a swap a second: frames failed or dropped", "swaps", "failed", "", 0, "0", "0"),
        Row("a swap a second: p99 against none", "swaps", "p99_ratio", "×", 2, "≤ 1.25", "1.05"),
        Row(
            "streams opened and cancelled, 500 a second, 50 % load: p99 against none",
            HOSTILE,
            "cancelled_p99_ratio",
            "×",
            2,
            "≤ 1.3",
        ),
        Row("the same: streams that were", HOSTILE, "cancelled_streams", "", 0, "10 000"),
        Row("1 000 idle streams: p99 against none", HOSTILE, "idle_p99_ratio", "×", 2, "≤ 1.3"),
        Row("a client that never reads: p99 against none", HOSTILE, "deaf_p99_ratio", "×", 2, "≤ 1.3"),
        Row("clients killed in mid-frame: p99 against none", HOSTILE, "killed_p99_ratio", "×", 2, "≤ 1.3"),
        Row("beside all of these: frames of the cameras dropped", HOSTILE, "dropped", "", 0),
        Row("after all of these: memory against before", HOSTILE, "memory_ratio", "×", 2, "1"),
        Row("after all of these: descriptors gained", HOSTILE, "descriptors_gained", "", 0, "0"),
        Row("metrics: CPU time of a frame's observation", WATCHED, "observe_us", "µs", 1, "≤ 5"),
        Row("a scrape, four variants and 64 streams: series", WATCHED, "series", "", 0),
        Row("the same: CPU time", WATCHED, "scrape_ms", "ms", 1),
        Row("100 scrapes at once, each second, 50 % load: p99 against none", WATCHED, "together_p99_ratio", "×"),
        Row("100 scrapers that read 2.5 KB a second: p99 against none", WATCHED, "slow_p99_ratio", "×"),
        Row("beside both: frames of the cameras dropped", WATCHED, "dropped", "", 0, "0"),
        Row(
            "a tenth of the frames in the shadow too, one worker, 50 % load: p99 against none",
            "shadow",
            "p99_ratio",
            "×",
        ),
        Row("the same: share of the frames that was compared", "shadow", "share", "", 3),
        *degrading,
        Row("resident memory, two variants loaded", "footprint", "resident_mb", "MB", 0, "≤ 220", "180"),
        Row("1 000 swaps, one each 0.4 s, under streams and calls: failed or lost", "storm", "failed", "", 0, "0", "0"),
        Row("1 000 swaps: p99 against none", "storm", "p99_ratio", "×", 2, "≤ 1.25", "1.05"),
        Row("1 000 swaps: one takes", "storm", "swap_seconds", "s"),
        Row("1 000 swaps: memory after the last against after 100", "storm", "memory_ratio", "×", 2, "≤ 1.10", "1"),
        Row("soak: frames without an answer", "soak", "unanswered", "", 0, "0", "0"),
        Row("soak: slope of the memory", "soak", "memory_slope_mb_per_hour", "MB/h", 1, "about 0", ""),
        Row("soak: descriptors gained", "soak", "descriptors_gained", "", 0, "0", "0"),
        Row("ready after start", "footprint", "ready_seconds", "s", 2, "≤ 0.6", "0.4"),
    ]


LOAD = "load "
"""Before the share of the capacity, in the names of the scenarios that the plot is made of."""


def write_page(path: Path, preface: str, measured_on: str, table: Sequence[Row], report: Report) -> None:
    """The preface, a table of what was measured, and a plot in a folder of the page's name."""
    parts = [preface.strip(), "## Figures", measured_on, "\n".join(_table(table, report))]
    if any(name.startswith(LOAD) for name in report):
        path.with_suffix("").mkdir(exist_ok=True)
        drawing = path.with_suffix("") / "load.svg"
        drawing.write_text(standalone(load_plot(report)), "utf-8")
        parts.append(f"![latency against load, medians and 99th percentiles]({drawing.parent.name}/{drawing.name})")
    path.write_text("\n\n".join(parts) + "\n", "utf-8")


def _table(table: Sequence[Row], report: Report) -> list[str]:
    told = [f"| {row.text} | {said(row, report)} | {row.bar} | {row.aim} |" for row in table]
    return ["| | measured | bar | aim |", "|---|---|---|---|", *told]


def load_plot(report: Report) -> str:
    """Latency of what is answered against the load that is offered."""
    loads = {float(name.removeprefix(LOAD)): found for name, found in report.items() if name.startswith(LOAD)}
    series = [
        Series([(load, loads[load][f"{name}_ms"]) for load in sorted(loads)], color, name, label=name)
        for name, color in zip(("p50", "p99"), COLORS, strict=False)
    ]
    highest = max(y for one in series for _, y in one.points)
    return lines(series, Axis("frames offered, of what the server can do", 0.0, max(loads)), Axis("ms", 0.0, highest))


def said(row: Row, report: Report) -> str:
    """The value with its unit.

    >>> said(Row("memory", "footprint", "resident_mb", "MB", 0), {"footprint": {"resident_mb": 181.6}})
    '182 MB'
    """
    return f"{report[row.scenario][row.figure]:.{row.digits}f} {row.unit}".strip()
