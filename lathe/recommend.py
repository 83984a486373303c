"""Which variant to serve, given limits: a pure decision over figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lathe.errors import InvalidInput


@dataclass(frozen=True)
class Limits:
    """What a variant must keep to; None sets no limit.

    Raises:
        InvalidInput: a limit that is not a number above 0, or an AP above 1.
    """

    max_latency_ms: float | None = None
    min_ap: float | None = None
    max_size_mb: float | None = None

    def __post_init__(self) -> None:
        chosen = [one for one in (self.max_latency_ms, self.min_ap, self.max_size_mb) if one is not None]
        if not all(math.isfinite(one) and one > 0 for one in chosen) or (self.min_ap or 0) > 1:
            raise InvalidInput("limits must be above 0, and that of the AP at most 1")

    def each(self) -> dict[str, Limits]:
        """Each limit that is set, alone, by its words."""
        found = {}
        if self.max_latency_ms is not None:
            found[f"at most {self.max_latency_ms:g} ms"] = Limits(max_latency_ms=self.max_latency_ms)
        if self.min_ap is not None:
            found[f"an AP of at least {self.min_ap:g}"] = Limits(min_ap=self.min_ap)
        if self.max_size_mb is not None:
            found[f"at most {self.max_size_mb:g} MB"] = Limits(max_size_mb=self.max_size_mb)
        return found


@dataclass(frozen=True)
class Candidate:
    """Attributes:
    latency_ms: of the network.
    cost: of a prediction, in any unit.
    """

    variant: str
    quality: float
    latency_ms: float
    size_mb: float
    cost: float


@dataclass(frozen=True)
class Recommendation:
    """Attributes:
    variant: the one to serve; empty where none keeps to the limits.
    nearest: the one that breaks the limits least, where none keeps to them.
    failed: what of the limits the nearest breaks, as sentences.
    reasons: sentences.
    """

    variant: str
    reasons: Sequence[str]
    nearest: str = ""
    failed: Sequence[str] = ()


def recommend(
    candidates: Sequence[Candidate], limits: Limits, is_equal: Callable[[str, str], bool] = lambda one, other: False
) -> Recommendation:
    """The best quality within the limits; of those that are equal to it, the cheapest.

    Args:
        is_equal: whether the difference in quality of two variants cannot be told from nothing.

    >>> fp32, int8 = Candidate("fp32", 0.61, 6.0, 7.3, 2.0), Candidate("int8", 0.60, 3.0, 2.2, 1.0)
    >>> recommend([fp32, int8], Limits()).variant
    'fp32'
    >>> recommend([fp32, int8], Limits(max_latency_ms=4)).variant
    'int8'
    >>> recommend([fp32, int8], Limits(), is_equal=lambda one, other: True).variant
    'int8'
    >>> recommend([fp32, int8], Limits(max_size_mb=2)).nearest
    'int8'
    """
    if not candidates:
        return Recommendation("", ["No variant has both quality and latency, so none can be recommended."])
    within = [one for one in candidates if not _excesses(one, limits)]
    if not within:
        return _nearest(candidates, limits)
    best = max(within, key=lambda one: (one.quality, -one.cost))
    equals = [
        one for one in within if one is best or one.quality == best.quality or is_equal(best.variant, one.variant)
    ]
    chosen = min(equals, key=lambda one: (one.cost, -one.quality))
    if len(within) == len(candidates):
        scope = f"all {len(candidates)} variants"
    else:
        scope = f"the {len(within)} of {len(candidates)} variants within the limits"
    reasons = [f"{best.variant} has the best quality of {scope}: {best.quality:.3f}."]
    if chosen is not best:
        reasons.append(
            f"{chosen.variant} has {chosen.quality:.3f}, a difference that the interval does not tell from none, "
            f"and costs {1 - chosen.cost / best.cost:.0%} less."
        )
    return Recommendation(chosen.variant, reasons)


def _nearest(candidates: Sequence[Candidate], limits: Limits) -> Recommendation:
    nearest = min(candidates, key=lambda one: (max(_excesses(one, limits).values()), -one.quality))
    failed = list(_excesses(nearest, limits))
    unmet = [
        name for name, alone in limits.each().items() if all(_excesses(candidate, alone) for candidate in candidates)
    ]
    if unmet:
        why = f"No variant keeps to {' or '.join(unmet)}."
    else:
        why = "Each limit is met by some variant, but no variant meets them all."
    return Recommendation("", [why, f"Nearest is {nearest.variant}: {', '.join(failed)}."], nearest.variant, failed)


def _excesses(one: Candidate, limits: Limits) -> dict[str, float]:
    """How far beyond each broken limit, as a share of the limit, by a sentence's part."""
    found = {}
    if limits.max_latency_ms is not None and one.latency_ms > limits.max_latency_ms:
        words = f"{one.latency_ms:.2f} ms is more than {limits.max_latency_ms:g} ms"
        found[words] = one.latency_ms / limits.max_latency_ms - 1
    if limits.min_ap is not None and one.quality < limits.min_ap:
        found[f"an AP of {one.quality:.3f} is less than {limits.min_ap:g}"] = 1 - one.quality / limits.min_ap
    if limits.max_size_mb is not None and one.size_mb > limits.max_size_mb:
        words = f"{one.size_mb:.2f} MB is more than {limits.max_size_mb:g} MB"
        found[words] = one.size_mb / limits.max_size_mb - 1
    return found
