"""Is it well? The objective, how fast its budget goes, latency, throughput, and what is lost."""

from __future__ import annotations

from lathe_dashboards.panels import OBJECTIVE, Dashboard, Panel, Query, Row
from lathe_dashboards.promql import (
    ANSWERED,
    BY_VARIANT,
    JUDGED,
    OF_VARIANTS,
    SERVER,
    VARIANT,
    quantile,
    rate,
    ratio,
    series,
    total,
)

FRAMES = "lathe_objective_frames_total"
MET = 'result="met"'
# The strictest of the chosen servers.
SHARE = f"max({series('lathe_objective_share', where=SERVER)})"
SECONDS = f"min({series('lathe_objective_seconds', where=SERVER)})"
BURN = ((1.0, "yellow"), (6.0, "orange"), (14.4, "red"))
"""The alerts' own steps."""


def _burnt(window: str) -> Query:
    errors = f'job_model:lathe_objective_misses_per_frames:ratio_rate{window}{{job=~"$job",model=~"$model"}}'
    budget = '(1 - job:lathe_objective_share:max{job=~"$job"})'
    return Query(f"{errors} / on (job) group_left () {budget}", f"{{{{model}}}} over {window}")


OBJECTIVE_ROW = Row(
    "Objective",
    (
        Panel(
            "Met",
            "Share of the frames that were answered in time, of those that were to be: met of met, late and lost. "
            "Beside it stands what the servers were asked for.",
            "percentunit",
            (
                Query(ratio(rate(FRAMES, MET), rate(FRAMES)), "met"),
                Query(SHARE, OBJECTIVE),
            ),
            kind="stat",
            width=6,
            height=5,
            decimals=2,
        ),
        Panel(
            "Burn rate",
            "How many times faster than allowed frames are late or lost, now. At 1 the error budget lasts just as long "
            "as its period; from 14.4 on it is gone in two days of thirty.",
            "suffix:×",
            (Query(f"(1 - {ratio(rate(FRAMES, MET), rate(FRAMES))}) / (1 - {SHARE})", "now"),),
            kind="stat",
            width=4,
            height=5,
            thresholds=BURN,
            decimals=1,
        ),
        Panel(
            "99th percentile, of the objective",
            "Latency of the slowest hundredth as a share of the time allowed: above 100 % more than one in a hundred "
            "is late.",
            "percentunit",
            (Query(f"{quantile(0.99, 'lathe_request_seconds')} / {SECONDS}", "p99"),),
            kind="stat",
            width=5,
            height=5,
            thresholds=((0.8, "yellow"), (1.0, "red")),
            decimals=0,
        ),
        Panel(
            "Answered",
            "Frames a second that were answered.",
            "suffix: frames/s",
            (Query(rate("lathe_frames_total", ANSWERED), "answered"),),
            kind="stat",
            width=5,
            height=5,
            decimals=1,
        ),
        Panel(
            "Streams",
            "Cameras that are connected to the chosen servers.",
            "none",
            (Query(f"sum({series('lathe_streams', where=SERVER)})", "streams"),),
            kind="stat",
            width=4,
            height=5,
        ),
        Panel(
            "Objective met, by model",
            "The line should stay above the dashed one, which is the share that the servers were asked for.",
            "percentunit",
            (
                Query(ratio(rate(FRAMES, MET, ["model"]), rate(FRAMES, by=["model"])), "{{model}}"),
                Query(SHARE, OBJECTIVE),
            ),
            width=12,
            low=None,
            high=1.0,
        ),
        Panel(
            "Burn rate, by window",
            "As the alerts see it: pages come at 14.4 over 1h and at 6 over 6h, tickets at 3 over 1d and at 1 over 3d, "
            "each while a shorter window agrees. Recorded by deploy/prometheus/rules.yml.",
            "suffix:×",
            tuple(_burnt(window) for window in ("1h", "6h", "1d", "3d")),
            width=12,
            thresholds=BURN,
        ),
    ),
)

LATENCY_ROW = Row(
    "Latency",
    (
        Panel(
            "From arrival to answer",
            "Half of the answered frames took less than p50, all but one in a hundred less than p99; the dashed line "
            "is what is allowed.",
            "s",
            (
                Query(quantile(0.5, "lathe_request_seconds"), "p50"),
                Query(quantile(0.99, "lathe_request_seconds"), "p99"),
                Query(SECONDS, OBJECTIVE),
            ),
        ),
        Panel(
            "From capture to answer",
            "The age of what the answer shows. It exceeds the latency by the time on the network and in the camera.",
            "s",
            (
                Query(quantile(0.5, "lathe_age_seconds"), "p50"),
                Query(quantile(0.99, "lathe_age_seconds"), "p99"),
            ),
        ),
        Panel(
            "Where the time goes",
            "Mean time of an answered frame by stage. A queue that grows says that workers are short.",
            "s",
            (
                Query(
                    f"{rate('lathe_stage_seconds_sum', by=['stage'])} / on () group_left () "
                    f"({rate('lathe_request_seconds_count')} > 0)",
                    "{{stage}}",
                ),
            ),
            kind="stacked",
        ),
    ),
)

TRAFFIC_ROW = Row(
    "Traffic",
    (
        Panel(
            "Answered, by variant",
            "Frames a second by the variant that answered them; a swap shows as one colour giving way to another.",
            "suffix: frames/s",
            (Query(rate(*JUDGED, VARIANT, OF_VARIANTS), BY_VARIANT),),
            kind="stacked",
        ),
        Panel(
            "Not answered, by reason",
            "superseded and too_old: the server was short of time. deadline, cancelled: the caller gave up. rejected: "
            "the frame was no good. failed: the server's own fault.",
            "suffix: frames/s",
            (Query(rate("lathe_frames_total", 'outcome!="answered"', ["outcome"]), "{{outcome}}"),),
            kind="stacked",
        ),
        Panel(
            "Calls, by status",
            "Calls and streams that ended, by gRPC's status.",
            "suffix: calls/s",
            (Query(rate("lathe_requests_total", by=["status"], where=SERVER), "{{status}}"),),
            kind="stacked",
        ),
        Panel(
            "Streams and waiting frames",
            "Open streams, and frames that wait for a worker: at most one of each stream waits.",
            "none",
            (
                Query(f"sum({series('lathe_streams', where=SERVER)})", "streams"),
                Query(f"sum({series('lathe_waiting_frames', where=SERVER)})", "waiting frames"),
            ),
        ),
        Panel(
            "Answered by a cheaper variant",
            "Share of the answered frames that load has made a cheaper variant answer than the route says.",
            "percentunit",
            (
                Query(
                    ratio(
                        rate("lathe_degraded_frames_total", by=["model"]),
                        rate(*JUDGED, ["model"]),
                    ),
                    "{{model}}",
                ),
            ),
            high=1.0,
        ),
        Panel(
            "Swaps",
            "Changes of a route, by what became of them: done here, followed from another server, or refused, after "
            "which the old one serves on.",
            "none",
            (
                Query(
                    total(f"increase({series('lathe_swaps_total')}[$__rate_interval])", ["model", "result"]),
                    "{{model}} {{result}}",
                ),
            ),
        ),
    ),
)

SERVER_ROW = Row(
    "Servers",
    (
        Panel(
            "CPU in use",
            "Cores that each server keeps busy, all of its threads together.",
            "suffix: cores",
            (Query(rate("process_cpu_seconds_total", by=["instance"], where=SERVER), "{{instance}}"),),
        ),
        Panel(
            "Memory",
            "Resident memory of each server. It should stay flat over swaps.",
            "bytes",
            (Query(series("process_resident_memory_bytes", where=SERVER), "{{instance}}"),),
        ),
        Panel(
            "Open files and connections",
            "Descriptors of each server. They should come back to where they were when cameras leave.",
            "none",
            (Query(series("process_open_fds", where=SERVER), "{{instance}}"),),
        ),
        Panel(
            "Turned away",
            "Calls without a good token, or that come faster than theirs may. Nobody is where no tokens are asked for.",
            "suffix: calls/s",
            (Query(rate("lathe_turned_away_total", by=["status"], where=SERVER), "{{status}}"),),
            kind="stacked",
        ),
        Panel(
            "Time of a swap, by phase",
            "Mean seconds that variants took to be loaded, checked, warmed up and drained. Frames wait for none of it.",
            "s",
            (
                Query(
                    ratio(
                        rate("lathe_swap_phase_seconds_sum", by=["phase"]),
                        rate("lathe_swap_phase_seconds_count", by=["phase"]),
                    ),
                    "{{phase}}",
                ),
            ),
            kind="stacked",
        ),
        Panel(
            "Lag of the event loop",
            "How late the loop comes to what is due, 99th percentile. All frames wait for it.",
            "s",
            (Query(quantile(0.99, "lathe_event_loop_lag_seconds", ["instance"], where=SERVER), "{{instance}}"),),
        ),
    ),
)

OVERVIEW = Dashboard(
    "lathe-overview",
    "Lathe: overview",
    "Is it well? The objective, how fast its error budget goes, latency, throughput, and what is lost.",
    (OBJECTIVE_ROW, LATENCY_ROW, TRAFFIC_ROW, SERVER_ROW),
)
