"""Whose is what nobody used: pure arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lathe.repository import VariantRef


def shares(used: Mapping[VariantRef, float], routed: Iterable[VariantRef]) -> Mapping[VariantRef | None, float]:
    """Parts of what an interval cost, one in all.

    In proportion to what each variant used; of an interval in which none was used, even parts for those on a route;
    without any nobody's, which is None.

    Args:
        used: CPU seconds of the interval.

    >>> a, b = VariantRef("face", "a", 1), VariantRef("face", "b", 1)
    >>> list(shares({a: 3.0, b: 1.0}, [a]).values())
    [0.75, 0.25]
    >>> shares({}, [a, b])[b], shares({}, [])
    (0.5, {None: 1.0})
    """
    total = sum(used.values())
    if total > 0:
        return {ref: seconds / total for ref, seconds in used.items()}
    waiting = list(dict.fromkeys(routed))
    return {ref: 1 / len(waiting) for ref in waiting} if waiting else {None: 1.0}
