"""Which camera is ill? Frames, drops, age and silence by stream."""

from __future__ import annotations

from lathe_dashboards.panels import Dashboard, Panel, Query, Row, Variable
from lathe_dashboards.promql import ANSWERED, SERVER, quantile, rate, ratio, series, total

STREAM = SERVER + ',stream=~"$stream"'
NAMED = STREAM + ',stream!="other"'
FRAMES = "lathe_stream_frames_total"
DROPPED = 'outcome=~"dropped_.*"'
SILENT_SECONDS = 60
"""The alert's own."""
MOST = 10
"""Lines in a panel: there may be 200 streams."""


def _worst(expr: str) -> str:
    return f"topk({MOST}, {expr})"


def _dropped_share(by: tuple[str, ...] = ("stream",)) -> str:
    return ratio(rate(FRAMES, DROPPED, by, STREAM), rate(FRAMES, by=by, where=STREAM))


LAST = series("lathe_stream_last_frame_timestamp_seconds", where=NAMED)
CUT = "time() - 86400"
"""The alert's own: one that has been silent for a day is gone."""
SINCE = f"time() - max by (stream) ({LAST} > {CUT})"
RECORDED = series("job_stream:lathe_stream_last_frame_timestamp_seconds:max1d", where='job=~"$job",stream=~"$stream"')
SINCE_ANYWHERE = f"time() - max by (stream) ({LAST} > {CUT} or {RECORDED} > {CUT})"
"""Also of streams whose server has begun anew. What is recorded may be a minute old, so it is not asked alone."""
P99_AGE = quantile(0.99, "lathe_stream_age_seconds", ["stream"], where=STREAM)

STREAM_HEALTH = Dashboard(
    "lathe-streams",
    "Lathe: stream health",
    "Which camera is ill? Frames, drops, age and silence by stream. Streams have names here that the server's setting "
    "stream_labels lets be labels; all others are one, `other`.",
    (
        Row(
            "Now",
            (
                Panel(
                    "Open streams",
                    "All that are connected to the chosen servers, named here or not.",
                    "none",
                    (Query(total(series("lathe_streams", where=SERVER)), "streams"),),
                    kind="stat",
                    width=6,
                    height=5,
                ),
                Panel(
                    "Silent cameras",
                    "Streams that have sent a frame within a day, to any server of the job, and none for "
                    f"{SILENT_SECONDS} seconds.",
                    "none",
                    (Query(f"sum({SINCE_ANYWHERE} > bool {SILENT_SECONDS})", "silent"),),
                    kind="stat",
                    width=6,
                    height=5,
                    thresholds=((1, "red"),),
                ),
                Panel(
                    "Dropped",
                    "Share of the frames that were dropped, over the chosen streams.",
                    "percentunit",
                    (Query(_dropped_share(()), "dropped"),),
                    kind="stat",
                    width=6,
                    height=5,
                    thresholds=((0.01, "yellow"), (0.1, "red")),
                    decimals=1,
                ),
                Panel(
                    "Oldest answers",
                    "The worst stream's 99th percentile from capture to answer.",
                    "s",
                    (Query(f"max({P99_AGE})", "p99"),),
                    kind="stat",
                    width=6,
                    height=5,
                ),
            ),
        ),
        Row(
            "One by one",
            (
                Panel(
                    "Streams",
                    "One row a stream: click a title to sort by it. last frame is how long ago it came.",
                    "none",
                    (
                        Query(rate(FRAMES, by=["stream"], where=STREAM), "frames/s"),
                        Query(rate(FRAMES, ANSWERED, ["stream"], STREAM), "answered/s"),
                        Query(_dropped_share(), "dropped", "percentunit", ((0.01, "yellow"), (0.1, "red"))),
                        Query(P99_AGE, "p99 age", "s"),
                        Query(SINCE, "last frame", "s", ((SILENT_SECONDS, "red"),)),
                    ),
                    kind="table",
                    width=24,
                    height=9,
                    columns=("stream",),
                ),
            ),
        ),
        Row(
            f"The {MOST} that stand out",
            (
                Panel(
                    "Most dropped",
                    "Share of a stream's frames that were dropped.",
                    "percentunit",
                    (Query(_worst(_dropped_share()), "{{stream}}"),),
                    high=1.0,
                ),
                Panel(
                    "Oldest answers",
                    "99th percentile from capture to answer. One stream that is worse than all has a slow network.",
                    "s",
                    (Query(_worst(P99_AGE), "{{stream}}"),),
                ),
                Panel(
                    "Longest silent",
                    f"Time since the last frame; from {SILENT_SECONDS} seconds on there is an alert.",
                    "s",
                    (Query(_worst(SINCE), "{{stream}}"),),
                    thresholds=((SILENT_SECONDS, "red"),),
                ),
            ),
        ),
        Row(
            "All together",
            (
                Panel(
                    "Frames, by outcome",
                    "Frames a second of the chosen streams, by what became of them.",
                    "suffix: frames/s",
                    (Query(rate(FRAMES, by=["outcome"], where=STREAM), "{{outcome}}"),),
                    kind="stacked",
                    width=12,
                ),
                Panel(
                    "Busiest streams",
                    "Frames a second that a stream sends, answered or not.",
                    "suffix: frames/s",
                    (Query(_worst(rate(FRAMES, by=["stream"], where=STREAM)), "{{stream}}"),),
                    width=12,
                ),
            ),
        ),
    ),
    (Variable("stream", "Stream", f"label_values({FRAMES}{{{SERVER}}}, stream)"),),
)
