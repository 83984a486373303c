"""A running experiment as the page shows it: what is asked of the candidate, and how far that is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from lathe.experiment import AGREEMENT, METRICS, STREAMS, TITLES
from lathe.v1 import experiment_pb2
from lathe.v1.experiment_pb2 import EXPERIMENT_STATE_SHADOW, EXPERIMENT_UNIT_STREAM
from lathe_server.rounds import worst
from lathe_server.running import MEMORY_ROUNDS

Told = Literal["holds", "open", "broken"]


def shown(message: experiment_pb2.Experiment, seconds: float) -> dict[str, Any]:
    """
    Args:
        seconds: since it began.
    """
    spec = message.spec
    return {
        "id": message.id,
        "model": spec.model,
        "baseline": f"{spec.baseline.variant}/{spec.baseline.version}",
        "candidate": f"{spec.candidate.variant}/{spec.candidate.version}",
        "state": "in the shadow" if message.state == EXPERIMENT_STATE_SHADOW else "running",
        "unit": "stream" if spec.unit == EXPERIMENT_UNIT_STREAM else "block",
        "promotes": spec.promote,
        "rounds": len(message.rounds),
        "seconds": round(seconds, 1),
        "max_seconds": spec.max_seconds,
        "level": 1 - spec.alpha,
        "reason": message.reason,
        "estimates": [_estimate(spec, one) for one in message.estimates],
        "guardrails": guardrails(spec, message.rounds[-MEMORY_ROUNDS:]),
    }


def _estimate(spec: experiment_pb2.ExperimentSpec, one: experiment_pb2.Estimate) -> dict[str, Any]:
    is_ratio = one.metric == STREAMS or (one.metric in METRICS and METRICS[one.metric].is_time)
    limit = limit_of(spec, one.metric)
    return {
        "metric": one.metric,
        "title": TITLES[one.metric],
        "unit": "%" if is_ratio or one.metric == AGREEMENT else "points",
        "value": finite(one.value),
        "low": finite(one.low),
        "high": finite(one.high),
        "limit": limit,
        "is_objective": one.metric == spec.objective,
        "told": told(one, limit, more_is_better=one.metric == AGREEMENT),
    }


def limit_of(spec: experiment_pb2.ExperimentSpec, metric: str) -> float | None:
    """What a metric has to come to for a promotion: below it, or above where it is the agreement."""
    if metric == spec.objective:
        return -spec.minimum_effect
    if metric == AGREEMENT:
        return spec.minimum_agreement
    return next((margin.margin for margin in spec.margins if margin.metric == metric), None)


def told(estimate: experiment_pb2.Estimate, limit: float | None, *, more_is_better: bool) -> Told | None:
    """Whether a limit holds by the bounds, whatever the truth between them; None where there is no limit.

    >>> between = experiment_pb2.Estimate(low=-0.1, high=0.1)
    >>> [told(between, limit, more_is_better=False) for limit in (0.2, 0.0, -0.2, None)]
    ['holds', 'open', 'broken', None]
    >>> [told(between, limit, more_is_better=True) for limit in (0.2, 0.0, -0.2)]
    ['broken', 'open', 'holds']
    """
    if limit is None:
        return None
    worst, best = (estimate.low, estimate.high) if more_is_better else (-estimate.high, -estimate.low)
    least = limit if more_is_better else -limit
    if math.isnan(worst) or math.isnan(best):
        return "open"
    return "holds" if worst >= least else "broken" if best < least else "open"


def guardrails(spec: experiment_pb2.ExperimentSpec, rounds: Sequence[experiment_pb2.Round]) -> list[dict[str, Any]]:
    """What ends it at once, with how the last round that has ended stood to it.

    Args:
        rounds: the newest, on which the guardrails look back.
    """
    effects = {effect.metric: effect for effect in rounds[-1].effects} if rounds else {}
    failed, latency = effects.get("failed_share"), effects.get("latency_p99_seconds")
    found: list[dict[str, Any]] = [
        {
            "title": "candidate's frames that failed",
            "unit": "share",
            "value": failed.candidate if failed else None,
            "limit": spec.max_failed_share,
        }
    ]
    if spec.unit != EXPERIMENT_UNIT_STREAM:  # sides that share a queue have the same latency
        usual = worst(rounds, "latency_p99_seconds")
        ratio = latency.candidate / usual if latency and usual > 0 else None
        found.append(
            {
                "title": "candidate's 99th percentile over the baseline's worst",
                "unit": "times",
                "value": ratio,
                "limit": spec.max_latency_ratio,
            }
        )
    return found


def finite(value: float) -> float | None:
    """JSON has no other numbers."""
    return value if math.isfinite(value) else None


def all_shown(running: Sequence[tuple[experiment_pb2.Experiment, float]]) -> list[dict[str, Any]]:
    """By the names of their models.

    Args:
        running: with the seconds since each began.
    """
    return sorted((shown(message, seconds) for message, seconds in running), key=lambda one: str(one["model"]))
