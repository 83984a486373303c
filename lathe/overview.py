"""How servers do, at a glance: a pure function of two scrapes, for `lathe top` and the live page.

A figure that a server does not tell is None, never 0: an older server has fewer metrics, one without a price no cost.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lathe.scrape import Scrape
from lathe.window import Window

SILENT_SECONDS, GONE_SECONDS = 5.0, 60.0
"""A stream without a frame for so long is silent, and after so long was closed rather than lost."""
MILLION = 1e6
HOUR_SECONDS = 3600
_DROPPED = "dropped_"

Condition = Literal["silent", "losing", "well", "gone"]
CONDITIONS: tuple[Condition, ...] = ("silent", "losing", "well", "gone")
"""Of streams, those with most trouble first."""


@dataclass(frozen=True)
class Estimate:
    """What an experiment says of one metric: candidate against baseline, with its bounds, which may be infinite."""

    metric: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Quality:
    """A figure of a variant's card, and the data on which it was measured."""

    metric: str
    data: str
    value: float


@dataclass(frozen=True)
class VariantOverview:
    """Attributes:
    version: its number; the label as it is where that is none.
    state: as of `lathe_variant_state`; empty where it is not in memory.
    weight: on its model's route.
    frames_per_second: answered.
    p50_seconds, p99_seconds: from arrival to answer; None where nothing was answered, like all that is of a frame.
    gpu_ms_per_frame: None where no graphics processor serves.
    cost_per_million: what a million answered frames use of processors; None without a price.
    energy_source: who tells the joules; several are joined by +.
    grams_per_million: carbon of a million answered frames; None where it is not told.
    qualities: the card's.
    speedup: of its network against the variant that it was made from, by the card; None where it does not say.
    """

    model: str
    variant: str
    version: int | str
    state: str
    weight: float
    frames_per_second: float
    p50_seconds: float | None
    p99_seconds: float | None
    cpu_ms_per_frame: float | None
    gpu_ms_per_frame: float | None
    cost_per_million: float | None
    joules_per_frame: float | None
    energy_source: str
    grams_per_million: float | None
    qualities: tuple[Quality, ...]
    speedup: float | None


@dataclass(frozen=True)
class ModelOverview:
    """Attributes:
    share_met: of the frames that count for the objective; None where there were none.
    degrade_level: how many variants cheaper than its route says it is served.
    experiment: None where none runs; empty before its first round ends.
    """

    name: str
    share_met: float | None
    degrade_level: int
    experiment: tuple[Estimate, ...] | None
    variants: tuple[VariantOverview, ...]


@dataclass(frozen=True)
class StreamOverview:
    """Attributes:
    frames_per_second: answered.
    failures_per_second: rejected and failed.
    p99_age_seconds: from capture to answer; None where nothing was answered.
    silent_seconds: since its last frame; None where there was none.
    """

    name: str
    condition: Condition
    frames_per_second: float
    drops_per_second: float
    failures_per_second: float
    p99_age_seconds: float | None
    silent_seconds: float | None


@dataclass(frozen=True)
class Totals:
    """Of the whole server.

    Attributes:
        queue_age_seconds: how long the frame has waited that waits the longest.
        drops_per_second: by reason.
        currency: of costs; empty without a price.
        cost_usage_per_hour, cost_allocation_per_hour: of what predictions used, and of the machine, idle or not.
        energy_source: who tells the watts.
        utilisation: CPU time of predictions, as a share of the workers'.
        cores: CPU seconds a second, of the whole process.
        gpu_utilisation: GPU seconds a second; None where no graphics processor serves.
        loop_lag_p99_seconds: how late the event loop comes to what is due.
    """

    streams: int
    waiting_frames: int
    queue_age_seconds: float | None
    answered_per_second: float
    drops_per_second: Mapping[str, float]
    rejected_per_second: float
    failed_per_second: float
    currency: str
    cost_usage_per_hour: float | None
    cost_allocation_per_hour: float | None
    watts: float | None
    energy_source: str
    grams_per_hour: float | None
    workers: int | None
    utilisation: float | None
    cores: float | None
    gpu_utilisation: float | None
    loop_lag_p99_seconds: float | None
    memory_bytes: int | None
    is_short_of_memory: bool

    @property
    def dropped_per_second(self) -> float:
        return sum(self.drops_per_second.values())


@dataclass(frozen=True)
class Overview:
    """Attributes:
    seconds: of the window.
    has_restarted: the server began anew within it; its figures are those since.
    objective_seconds, objective_share: within how long which share of the frames should be answered.
    streams: those with most trouble first.
    """

    seconds: float
    has_restarted: bool
    objective_seconds: float | None
    objective_share: float | None
    totals: Totals
    models: tuple[ModelOverview, ...]
    streams: tuple[StreamOverview, ...]

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it: a number that is none, or infinite, is null."""
        plain: dict[str, Any] = _finite(asdict(self))
        return plain


def overview(before: Scrape, after: Scrape, seconds: float, *, now: float) -> Overview:
    """What happened between two scrapes of one server, and how it stands at the second.

    Args:
        seconds: between them, above 0.
        now: unix time of the second.
    """
    window = Window(before, after, seconds)
    return Overview(
        seconds=seconds,
        has_restarted=window.has_restarted,
        objective_seconds=window.gauge("lathe_objective_seconds"),
        objective_share=window.gauge("lathe_objective_share"),
        totals=_totals(window),
        models=_models(window),
        streams=_streams(window, now),
    )


def _totals(window: Window) -> Totals:
    after = window.after
    outcomes = {outcome: rate for (outcome,), rate in window.rates("lathe_frames_total", "outcome").items()}
    workers = window.gauge("lathe_workers")
    busy = window.rate("lathe_cpu_seconds_total")
    usage, allocation = window.rate("lathe_cost_usage_total"), window.rate("lathe_cost_allocation_total")
    memory = window.gauge("process_resident_memory_bytes")
    grams = window.rate("lathe_carbon_grams_total")
    return Totals(
        streams=int(after.total("lathe_streams")),
        waiting_frames=int(after.total("lathe_waiting_frames")),
        queue_age_seconds=window.gauge("lathe_queue_age_seconds"),
        answered_per_second=outcomes.get("answered", 0.0),
        drops_per_second={
            outcome.removeprefix(_DROPPED): rate for outcome, rate in outcomes.items() if outcome.startswith(_DROPPED)
        },
        rejected_per_second=outcomes.get("rejected", 0.0),
        failed_per_second=outcomes.get("failed", 0.0),
        currency=_currency(after),
        cost_usage_per_hour=None if usage is None else usage * HOUR_SECONDS,
        cost_allocation_per_hour=None if allocation is None else allocation * HOUR_SECONDS,
        watts=window.rate("lathe_energy_joules_total"),
        energy_source=_sources(window.rises("lathe_energy_joules_total", "source")),
        grams_per_hour=None if grams is None else grams * HOUR_SECONDS,
        workers=None if workers is None else int(workers),
        utilisation=busy / workers if workers and busy is not None else None,
        cores=window.rate("process_cpu_seconds_total"),
        gpu_utilisation=window.rate("lathe_gpu_seconds_total"),
        loop_lag_p99_seconds=window.quantiles(0.99, "lathe_event_loop_lag_seconds").get(()),
        memory_bytes=None if memory is None else int(memory),
        is_short_of_memory=after.total("lathe_memory_short") > 0,
    )


def _models(window: Window) -> tuple[ModelOverview, ...]:
    after = window.after
    judged = window.rises("lathe_objective_frames_total", "model", "result")
    levels = after.totals("lathe_degrade_level", "model")
    running = after.totals("lathe_experiment_running", "model")
    estimates = _estimates(after)
    variants = _variants(window)
    told = {variant.model for variant in variants} | {model for (model,) in levels} | {model for model, _ in judged}
    models = []
    for name in sorted(told - {""}):  # frames for a model that there is not have no name
        met, all_judged = judged.get((name, "met"), 0.0), sum(n for (model, _), n in judged.items() if model == name)
        models.append(
            ModelOverview(
                name,
                share_met=met / all_judged if all_judged else None,
                degrade_level=int(levels.get((name,), 0)),
                experiment=estimates.get(name, ()) if running.get((name,)) else None,
                variants=tuple(variant for variant in variants if variant.model == name),
            )
        )
    return tuple(models)


def _variants(window: Window) -> list[VariantOverview]:
    """All that the server has had in memory or on a route: by model, the weightiest first, then the busiest."""
    after = window.after
    of_variant = ("model", "variant", "version")
    outcomes = window.rates("lathe_frames_total", *of_variant, "outcome")
    frames = {key[:3]: rate for key, rate in outcomes.items() if key[3] == "answered"}
    stages = window.rates("lathe_stage_seconds_count", *of_variant, "stage")
    frames |= {key[:3]: rate for key, rate in stages.items() if key[3] == "infer"}  # and a pipeline's
    weights = after.totals("lathe_route_weight", *of_variant)
    states = {
        key[:3]: key[3] for key, is_so in after.totals("lathe_variant_state", *of_variant, "state").items() if is_so
    }
    medians = window.quantiles(0.5, "lathe_request_seconds", *of_variant)
    tails = window.quantiles(0.99, "lathe_request_seconds", *of_variant)
    cpu = window.rates("lathe_cpu_seconds_total", *of_variant)
    gpu = window.rates("lathe_gpu_seconds_total", *of_variant)
    cost = window.rates("lathe_cost_usage_total", *of_variant)
    joules = window.rates("lathe_energy_joules_total", *of_variant)
    by_source = window.rises("lathe_energy_joules_total", *of_variant, "source")
    grams = window.rates("lathe_carbon_grams_total", *of_variant)
    speedups = after.totals("lathe_variant_speedup", *of_variant)
    qualities: dict[tuple[str, ...], list[Quality]] = defaultdict(list)
    for key, value in after.totals("lathe_variant_quality", *of_variant, "metric", "data").items():
        qualities[key[:3]].append(Quality(key[3], key[4], value))
    known = {key for key in (*(key[:3] for key in outcomes), *weights, *states) if key[1]}  # not those of no model

    def of_a_frame(rates: Mapping[tuple[str, ...], float], key: tuple[str, ...], scale: float = 1.0) -> float | None:
        return rates[key] / frames[key] * scale if frames.get(key) and key in rates else None

    found = [
        VariantOverview(
            model=key[0],
            variant=key[1],
            version=int(key[2]) if key[2].isdecimal() else key[2],
            state=states.get(key, ""),
            weight=weights.get(key, 0.0),
            frames_per_second=frames.get(key, 0.0),
            p50_seconds=medians.get(key),
            p99_seconds=tails.get(key),
            cpu_ms_per_frame=of_a_frame(cpu, key, 1e3),
            gpu_ms_per_frame=of_a_frame(gpu, key, 1e3),
            cost_per_million=of_a_frame(cost, key, MILLION),
            joules_per_frame=of_a_frame(joules, key),
            energy_source=_sources({told[3:]: rise for told, rise in by_source.items() if told[:3] == key}),
            grams_per_million=of_a_frame(grams, key, MILLION),
            qualities=tuple(qualities.get(key, ())),
            speedup=speedups.get(key),
        )
        for key in known
    ]
    return sorted(found, key=_rank)


def _rank(one: VariantOverview) -> tuple[Any, ...]:
    newest_first = (0, -one.version) if isinstance(one.version, int) else (1, one.version)
    return (one.model, -one.weight, -one.frames_per_second, one.variant, newest_first)


def _streams(window: Window, now: float) -> tuple[StreamOverview, ...]:
    rates = window.rates("lathe_stream_frames_total", "stream", "outcome")
    ever = window.after.totals("lathe_stream_frames_total", "stream")
    ages = window.quantiles(0.99, "lathe_stream_age_seconds", "stream")
    last = window.after.totals("lathe_stream_last_frame_timestamp_seconds", "stream")
    by_stream: dict[str, dict[str, float]] = defaultdict(dict)
    for (name, outcome), rate in rates.items():
        if ever[name,]:  # `other` is told before there is one
            by_stream[name][outcome] = rate
    found = []
    for name, outcomes in by_stream.items():
        drops = sum(rate for outcome, rate in outcomes.items() if outcome.startswith(_DROPPED))
        failures = outcomes.get("rejected", 0.0) + outcomes.get("failed", 0.0)
        seen = last.get((name,))
        silent = max(0.0, now - seen) if seen else None  # clocks of two machines differ
        answered = outcomes.get("answered", 0.0)
        condition = _condition(answered, drops + failures, silent)
        found.append(StreamOverview(name, condition, answered, drops, failures, ages.get((name,)), silent))
    return tuple(sorted(found, key=trouble))


def _condition(answered: float, lost: float, silent_seconds: float | None) -> Condition:
    """
    Args:
        answered, lost: frames a second. Who sends frames is not silent, whatever clocks say.

    >>> [_condition(0.0, 0.0, seconds) for seconds in (1.0, 9.0, 99.0, None)]
    ['well', 'silent', 'gone', 'gone']
    >>> [_condition(1.0, 0.0, 99.0), _condition(1.0, 2.0, 0.0)]
    ['well', 'losing']
    """
    if lost:
        return "losing"
    if answered:
        return "well"
    if silent_seconds is None or silent_seconds > GONE_SECONDS:
        return "gone"
    return "silent" if silent_seconds > SILENT_SECONDS else "well"


def trouble(stream: StreamOverview) -> tuple[Any, ...]:
    """By which streams are sorted, the worst first. Ages count by powers of two, so that rows do not dance."""
    lost = stream.drops_per_second + stream.failures_per_second
    age = max(0, math.frexp((stream.p99_age_seconds or 0.0) * 1e3)[1])
    name = [int(part) if part.isdecimal() else part for part in re.split("([0-9]+)", stream.name)]
    return (CONDITIONS.index(stream.condition), -lost, -age, name)


def _estimates(after: Scrape) -> dict[str, tuple[Estimate, ...]]:
    bounds: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for (model, metric, bound), value in after.totals("lathe_experiment_estimate", "model", "metric", "bound").items():
        bounds[model, metric][bound] = value
    found: dict[str, tuple[Estimate, ...]] = defaultdict(tuple)
    for (model, metric), told in bounds.items():
        value, low, high = (told.get(bound, math.nan) for bound in ("value", "low", "high"))
        found[model] = (*found[model], Estimate(metric, value, low, high))
    return dict(found)


def _currency(after: Scrape) -> str:
    names = {
        labels.get("currency", "")
        for name in ("lathe_cost_usage_total", "lathe_cost_allocation_total")
        for labels, _ in after.series(name)
    }
    return "+".join(sorted(names))


def _sources(rises: Mapping[tuple[str, ...], float]) -> str:
    """Those that told of some energy; all that could, where none did."""
    told = sorted({source for (source,), rise in rises.items() if rise > 0} or {source for (source,) in rises})
    return "+".join(told)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
