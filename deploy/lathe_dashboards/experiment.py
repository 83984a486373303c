"""Is the candidate better? What the experiment says, with its intervals, and how far the two agree."""

from __future__ import annotations

from lathe.experiment import AGREEMENT, METRICS
from lathe_dashboards.panels import Dashboard, Panel, Query, Row
from lathe_dashboards.promql import BY_VARIANT, JUDGED, OF_VARIANTS, VARIANT, rate, ratio, series, total

ESTIMATE = "lathe_experiment_estimate"
BOUNDS = ("low", "value", "high")
OBJECTIVE, EFFECT, LEAST_AGREEMENT = "cpu_seconds", 0.02, 0.9
"""What an experiment is about unless it says otherwise, and by how much it has to be better."""


def _estimates(metric: str, title: str, rule: str, colors: tuple[tuple[float, str], ...], base: str = "green") -> Panel:
    """How one figure's estimate went while the experiment ran."""
    bounds = {bound: series(ESTIMATE, f'metric="{metric}",bound="{bound}"') for bound in BOUNDS}
    return Panel(
        f"{title[:1].upper()}{title[1:]}",
        f"Candidate against baseline: the estimate, between low and high, which hold the truth. {rule}",
        "percentunit",
        tuple(Query(f"max by (model) ({of_bound})", f"{{{{model}}}} {bound}") for bound, of_bound in bounds.items()),
        width=6,
        thresholds=colors,
        base=base,
        low=None,
    )


def _no_worse(name: str) -> Panel:
    margin = METRICS[name].margin
    rule = (
        f"Shown to be no worse than allowed once high is below {margin:.1%}, unless the experiment set another limit."
    )
    return _estimates(name, METRICS[name].title, rule, ((margin, "red"),))


def _column(bound: str) -> Query:
    found = series(ESTIMATE, f'bound="{bound}"')
    return Query(f"max by (model, metric) ({found})", bound)


def _boxes(kind: str) -> str:
    return rate("lathe_shadow_boxes_total", f'kind="{kind}"', VARIANT)


BETTER = _estimates(
    OBJECTIVE,
    METRICS[OBJECTIVE].title,
    f"The objective, unless the experiment set another: shown to be better once high is below {-EFFECT:.0%}.",
    ((-EFFECT, "yellow"), (EFFECT, "red")),
)
AGREES = _estimates(
    AGREEMENT,
    "agreement on the same frames",
    f"Itself, no difference: shown once low is above {LEAST_AGREEMENT:.0%}, unless the experiment set another limit.",
    ((LEAST_AGREEMENT, "green"),),
    base="red",
)

EXPERIMENT = Dashboard(
    "lathe-experiment",
    "Lathe: experiment",
    "Is the candidate better? Estimates with their intervals, verdicts, and agreement in the shadow.",
    (
        Row(
            "Now",
            (
                Panel(
                    "Running",
                    "Whether an experiment runs on one of the chosen servers.",
                    "none",
                    (Query(f"max by (model) ({series('lathe_experiment_running')})", "{{model}}"),),
                    kind="stat",
                    width=5,
                    words=((0, "no", "gray"), (1, "running", "blue")),
                ),
                Panel(
                    "Verdicts",
                    "Experiments that ended, by what they said, since the servers started.",
                    "none",
                    (
                        Query(
                            total(series("lathe_experiments_total"), ["model", "verdict"]),
                            "{{model}} {{verdict}}",
                        ),
                    ),
                    kind="stat",
                    width=7,
                    empty="none has ended",
                ),
                Panel(
                    "Estimates of the newest experiment",
                    "Times are candidate / baseline − 1, shares are differences, the agreement is itself. low and high "
                    "hold the truth at all looks together.",
                    "percentunit",
                    tuple(_column(bound) for bound in ("low", "value", "high")),
                    kind="table",
                    width=12,
                    columns=("model", "metric"),
                    empty="there has been none",
                ),
            ),
        ),
        Row(
            "Estimates against their limits",
            (BETTER, *(_no_worse(name) for name in METRICS if name != OBJECTIVE), AGREES),
        ),
        Row(
            "In the shadow",
            (
                Panel(
                    "Agreement",
                    "F1 score over boxes that overlap by half, on frames that both variants judged: 2 matched / found.",
                    "percentunit",
                    (
                        Query(
                            f"2 * {ratio(_boxes('matched'), _boxes('found'))}",
                            BY_VARIANT,
                        ),
                    ),
                    high=1.0,
                ),
                Panel(
                    "Frames compared",
                    "Frames a second that the other variant judged too, while a worker had nothing else to do.",
                    "suffix: frames/s",
                    (
                        Query(
                            rate("lathe_shadow_frames_total", by=[*VARIANT, "outcome"]), f"{BY_VARIANT} {{{{outcome}}}}"
                        ),
                    ),
                ),
                Panel(
                    "Answered, by variant",
                    "Frames a second of each side. Where the unit is the block, one at a time has them all.",
                    "suffix: frames/s",
                    (Query(rate(*JUDGED, VARIANT, OF_VARIANTS), BY_VARIANT),),
                    kind="stacked",
                ),
            ),
        ),
    ),
)
