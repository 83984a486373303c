"""How many cameras does it carry, how many could it, and what does a prediction cost?"""

from __future__ import annotations

from lathe_dashboards.panels import Dashboard, Panel, Query, Row
from lathe_dashboards.promql import (
    ANSWERED,
    OF_ONE_SERVER,
    SERVER,
    per_frame_where_told,
    quantile,
    rate,
    ratio,
    series,
    total,
)

STREAMS = total(series("lathe_streams", where=SERVER))
WORKERS = series("lathe_workers", where=SERVER)
BUSY_STAGES = 'stage!="queue"'
HOUR, MILLION = "3600", "1000000"


def _utilisation(by: tuple[str, ...] = ()) -> str:
    """Of the workers' time, the part in which they judged frames."""
    busy = rate("lathe_stage_seconds_sum", BUSY_STAGES, by, where=SERVER)
    return ratio(busy, total(WORKERS, by))


def _saved() -> str:
    """What the same frames would have cost more with the teacher, a second."""
    usage = f"rate({series('lathe_cost_usage_total')}[$__rate_interval])"
    more = f"({series('lathe_variant_speedup')} - 1)"
    return total(f"{usage} * on ({', '.join(OF_ONE_SERVER)}) group_left () {more}", ["currency"])


ANSWERED_SHARE = ratio(
    rate("lathe_frames_total", ANSWERED, where=SERVER),
    rate("lathe_frames_total", 'outcome!="rejected"', where=SERVER),
)
CAPACITY = f"{STREAMS} * {ANSWERED_SHARE} / ({_utilisation()} > 0)"
NO_PRICE = "no price is set"
NO_CARBON = "no carbon intensity is set"

NOW = Row(
    "Now",
    (
        Panel(
            "Cameras carried",
            "Streams that are open on the chosen servers.",
            "none",
            (Query(STREAMS, "streams"),),
            kind="stat",
            width=4,
            height=5,
        ),
        Panel(
            "Cameras that it could carry",
            "Estimate: streams × share of their frames that is answered / utilisation of the workers. It supposes "
            "that further cameras would be as these are, and it wavers while the workers have little to do.",
            "none",
            (Query(CAPACITY, "cameras"),),
            kind="stat",
            width=5,
            height=5,
            decimals=0,
            empty="no frames",
        ),
        Panel(
            "Workers in use",
            "Share of the worker threads' time in which they judged frames. Above 80 % queues begin to grow.",
            "percentunit",
            (Query(_utilisation(), "utilisation"),),
            kind="stat",
            width=4,
            height=5,
            thresholds=((0.8, "yellow"), (0.95, "red")),
            decimals=0,
        ),
        Panel(
            "Cost an hour",
            "What the machines cost, idle time included (allocation).",
            "none",
            (Query(f"{HOUR} * {rate('lathe_cost_allocation_total', by=['currency'])}", "{{currency}}"),),
            kind="stat",
            width=4,
            height=5,
            decimals=3,
            empty=NO_PRICE,
        ),
        Panel(
            "Saved an hour",
            "What the teacher would have used beyond this for the same frames: usage × (speed-up − 1), with the "
            "speed-up that each variant's card has measured.",
            "none",
            (Query(f"{HOUR} * {_saved()}", "{{currency}}"),),
            kind="stat",
            width=4,
            height=5,
            decimals=3,
            empty=NO_PRICE,
        ),
        Panel(
            "Power",
            "Watts that the servers use, by who told: a meter (rapl, nvml), or an estimate from CPU time.",
            "watt",
            (Query(rate("lathe_energy_joules_total", by=["source"]), "{{source}}"),),
            kind="stat",
            width=3,
            height=5,
            decimals=1,
        ),
    ),
)

CAPACITY_ROW = Row(
    "Capacity",
    (
        Panel(
            "Workers in use, by server",
            "Share of the worker threads' time in which they judged frames. Uneven lines say that streams are spread "
            "unevenly.",
            "percentunit",
            (Query(_utilisation(("instance",)), "{{instance}}"),),
            thresholds=((0.8, "yellow"), (0.95, "red")),
            high=1.0,
        ),
        Panel(
            "Queue",
            "Mean and 99th percentile of the wait for a worker, of answered frames; and how long the one waits now "
            "that has waited longest. Replicas are added by this.",
            "s",
            (
                Query(
                    ratio(
                        rate("lathe_stage_seconds_sum", 'stage="queue"'),
                        rate("lathe_stage_seconds_count", 'stage="queue"'),
                    ),
                    "mean",
                ),
                Query(quantile(0.99, "lathe_stage_seconds", more='stage="queue"'), "p99"),
                Query(f"max({series('lathe_queue_age_seconds', where=SERVER)})", "waits now"),
            ),
        ),
        Panel(
            "Cameras carried, and that it could carry",
            "The second line is an estimate; the distance between the two is what is in reserve.",
            "none",
            (Query(STREAMS, "carried"), Query(CAPACITY, "could carry")),
        ),
    ),
)

COST_ROW = Row(
    "Cost",
    (
        Panel(
            "Cost of a million predictions",
            "usage: the price of the processor time that they took. allocation: the price of the machines, idle time "
            "included, shared out. The two meet when the machines are full.",
            "none",
            (
                Query(
                    f"{MILLION} * {per_frame_where_told('lathe_cost_usage_total', ['model'], 'currency')}",
                    "{{model}} usage {{currency}}",
                ),
                Query(
                    f"{MILLION} * {per_frame_where_told('lathe_cost_allocation_total', ['model'], 'currency')}",
                    "{{model}} allocation {{currency}}",
                ),
            ),
            empty=NO_PRICE,
        ),
        Panel(
            "Cost an hour",
            "allocation − usage is what idles. saved is what the teacher would have used beyond usage.",
            "none",
            (
                Query(f"{HOUR} * {rate('lathe_cost_usage_total', by=['currency'])}", "usage {{currency}}"),
                Query(f"{HOUR} * {rate('lathe_cost_allocation_total', by=['currency'])}", "allocation {{currency}}"),
                Query(f"{HOUR} * {_saved()}", "saved {{currency}}"),
            ),
            empty=NO_PRICE,
        ),
        Panel(
            "CPU time, by what took it",
            "Cores that are busy. All but predictions is overhead; the sum is the process's own CPU time.",
            "suffix: cores",
            (
                Query(rate("lathe_cpu_seconds_total", where=SERVER), "predictions"),
                Query(rate("lathe_cpu_overhead_seconds_total", by=["component"], where=SERVER), "{{component}}"),
            ),
            kind="stacked",
        ),
    ),
)

ENERGY_ROW = Row(
    "Energy and carbon",
    (
        Panel(
            "Energy of a prediction",
            "Joules, by who told: rapl and nvml are meters, estimate is CPU time at so many watts a core.",
            "joule",
            (
                Query(
                    per_frame_where_told("lathe_energy_joules_total", ["model"], "source"),
                    "{{model}} {{source}}",
                ),
            ),
        ),
        Panel(
            "Carbon of a million predictions",
            "Grams, at the intensity that the server was told.",
            "massg",
            (Query(f"{MILLION} * {per_frame_where_told('lathe_carbon_grams_total', ['model'])}", "{{model}}"),),
            empty=NO_CARBON,
        ),
        Panel(
            "Carbon an hour",
            "Grams an hour, by model.",
            "massg",
            (Query(f"{HOUR} * {rate('lathe_carbon_grams_total', by=['model'])}", "{{model}}"),),
            kind="stacked",
            empty=NO_CARBON,
        ),
    ),
)

CAPACITY_AND_COST = Dashboard(
    "lathe-capacity",
    "Lathe: capacity and cost",
    "How many cameras does it carry, how many could it, and what does a prediction cost?",
    (NOW, CAPACITY_ROW, COST_ROW, ENERGY_ROW),
)
