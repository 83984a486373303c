"""Which variant is better? What each is, does and costs, side by side."""

from __future__ import annotations

from lathe_dashboards.panels import Dashboard, Panel, Query, Row, Variable
from lathe_dashboards.promql import (
    BY_VARIANT,
    JUDGED,
    MODEL,
    OF_VARIANTS,
    VARIANT,
    per_frame,
    per_frame_where_told,
    quantile,
    rate,
    series,
)

MILLION = 1e6
STATES = (
    ("loading", "blue"),
    ("checking", "purple"),
    ("warming", "yellow"),
    ("ready", "green"),
    ("draining", "orange"),
    ("failed", "red"),
)
WORDS = ((0, "away", "gray"), *((number, word, color) for number, (word, color) in enumerate(STATES, 1)))
LABELS = ", ".join(VARIANT)


def _per_million(counter: str, label: str = "") -> str:
    return f"{MILLION:.0f} * {per_frame_where_told(counter, VARIANT, label)}"


def _quantile(share: float) -> str:
    return quantile(share, "lathe_request_seconds", VARIANT, where=OF_VARIANTS)


def _state() -> str:
    """The number of the state that a variant is in; 0 is none."""
    found = (series("lathe_variant_state", f'state="{word}"') for word, _ in STATES)
    terms = (f"{number} * {one}" for number, one in enumerate(found, 1))
    return f"max by ({LABELS}) ({' or '.join(terms)})"


CHOSEN = series("lathe_variant_quality", 'metric=~"$quality"')
QUALITY = f"max by ({LABELS}) ({CHOSEN})"

TABLE = Panel(
    "Variants",
    "One row a variant. Quality, size and speed-up are as its card says, all else as it is now; a cell is empty where "
    "there is no such figure, or the variant has answered nothing of late. Where servers count in different currencies "
    "there is a row for each.",
    "none",
    (
        Query(f"max by ({LABELS}, precision, sparsity) ({series('lathe_variant_info')})"),
        Query(_state(), "state", words=WORDS),
        Query(f"max by ({LABELS}) ({series('lathe_route_weight')})", "weight"),
        Query(QUALITY, "quality", "percentunit"),
        Query(f"max by ({LABELS}) ({series('lathe_variant_speedup')})", "speed-up", "suffix:×"),
        Query(f"max by ({LABELS}) ({series('lathe_variant_size_bytes')})", "size", "bytes"),
        Query(rate(*JUDGED, VARIANT, OF_VARIANTS), "frames/s"),
        Query(_quantile(0.5), "p50", "s"),
        Query(_quantile(0.99), "p99", "s"),
        Query(per_frame("lathe_cpu_seconds_total", VARIANT), "CPU/frame", "s"),
        Query(_per_million("lathe_cost_usage_total", "currency"), "cost/million"),
        Query(per_frame_where_told("lathe_energy_joules_total", VARIANT), "energy/frame", "joule"),
        Query(_per_million("lathe_carbon_grams_total"), "carbon/million", "massg"),
    ),
    kind="table",
    width=24,
    height=7,
    columns=(*VARIANT, "precision", "sparsity", "currency"),
)

VARIANTS = Dashboard(
    "lathe-variants",
    "Lathe: variants compared",
    "Which variant is better? Quality, latency, CPU, cost, energy and carbon side by side.",
    (
        Row("Side by side", (TABLE,)),
        Row(
            "What each does",
            (
                Panel(
                    "Latency, 99th percentile",
                    "From arrival to answer. Variants that serve at the same time share queue and cores.",
                    "s",
                    (Query(_quantile(0.99), BY_VARIANT),),
                ),
                Panel(
                    "Latency, median",
                    "From arrival to answer, half of the frames.",
                    "s",
                    (Query(_quantile(0.5), BY_VARIANT),),
                ),
                Panel(
                    "CPU time of a frame",
                    "Measured on the thread that judged it: no other variant and no queue is in it.",
                    "s",
                    (Query(per_frame("lathe_cpu_seconds_total", VARIANT), BY_VARIANT),),
                ),
                Panel(
                    "Quality",
                    "As the card says, by the chosen metric; changes with versions only.",
                    "percentunit",
                    (Query(QUALITY, BY_VARIANT),),
                    high=1.0,
                ),
                Panel(
                    "Answered",
                    "Frames a second by the variant that answered them; a pipeline's is one of each of its variants.",
                    "suffix: frames/s",
                    (Query(rate(*JUDGED, VARIANT, OF_VARIANTS), BY_VARIANT),),
                    kind="stacked",
                ),
                Panel(
                    "Failed or rejected",
                    "Frames a second that came to nothing, by the variant that was to answer; those of a "
                    "pipeline are the pipeline's.",
                    "suffix: frames/s",
                    (
                        Query(
                            rate("lathe_frames_total", 'outcome=~"failed|rejected"', VARIANT, OF_VARIANTS), BY_VARIANT
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "What each costs",
            (
                Panel(
                    "Cost of a million frames",
                    "Price of the processor time that predictions used, in the currency that the legend names.",
                    "none",
                    (Query(_per_million("lathe_cost_usage_total", "currency"), f"{BY_VARIANT} {{{{currency}}}}"),),
                    empty="no price is set",
                ),
                Panel(
                    "Energy of a frame",
                    "Joules, by who told: rapl and nvml are meters, estimate is CPU time at so many watts a core.",
                    "joule",
                    (
                        Query(
                            per_frame_where_told("lathe_energy_joules_total", VARIANT, "source"),
                            f"{BY_VARIANT} {{{{source}}}}",
                        ),
                    ),
                ),
                Panel(
                    "Carbon of a million frames",
                    "Grams that stand for the energy at the intensity that the server was told.",
                    "massg",
                    (Query(_per_million("lathe_carbon_grams_total"), BY_VARIANT),),
                    empty="no carbon intensity is set",
                ),
            ),
        ),
        Row(
            "Who should answer",
            (
                Panel(
                    "Weights on the route",
                    "Relative: two variants with 1 and 3 get a quarter and three quarters of the streams.",
                    "none",
                    (Query(f"max by ({LABELS}) ({series('lathe_route_weight')})", BY_VARIANT),),
                    width=12,
                ),
                Panel(
                    "State",
                    "What each variant was in memory, the furthest on of all servers; grey is not in memory.",
                    "none",
                    (Query(_state(), BY_VARIANT),),
                    kind="states",
                    width=12,
                    words=WORDS,
                ),
            ),
        ),
    ),
    (Variable("quality", "Quality", f"label_values(lathe_variant_quality{{{MODEL}}}, metric)", is_many=False),),
)
