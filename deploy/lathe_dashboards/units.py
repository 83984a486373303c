"""Numbers as Grafana writes them in a unit of its own names: 0.0123 of `s` is 12.3 ms."""

from __future__ import annotations

import math
from typing import NamedTuple

SUFFIX = "suffix:"
DIGITS = 3


class Scale(NamedTuple):
    """What one of a unit is, and what is written behind the number of them."""

    factor: float
    suffix: str


def _of_si(symbol: str) -> tuple[Scale, ...]:
    prefixes = ("n", "µ", "m", "", "k", "M", "G")
    return tuple(Scale(10.0 ** (3 * power), f" {prefix}{symbol}") for power, prefix in enumerate(prefixes, -3))


SCALES: dict[str, tuple[Scale, ...]] = {
    "none": (Scale(1.0, ""),),
    "percentunit": (Scale(0.01, "%"),),
    "s": (*_of_si("s")[:4], Scale(60.0, " min"), Scale(3600.0, " h"), Scale(86400.0, " d")),
    "bytes": tuple(Scale(1024.0**power, f" {name}") for power, name in enumerate(("B", "KiB", "MiB", "GiB", "TiB"))),
    "joule": _of_si("J"),
    "massg": _of_si("g"),
    "watt": _of_si("W"),
}


def scale(unit: str, value: float) -> Scale:
    """In which a value is read best: the largest that it has at least one of.

    Raises:
        ValueError: this unit of Grafana's is not known here.
    """
    if unit.startswith(SUFFIX):
        return Scale(1.0, unit.removeprefix(SUFFIX))
    if unit not in SCALES:
        raise ValueError(f"no unit {unit!r}")
    scales = SCALES[unit]
    if not value:
        return min(scales, key=lambda one: abs(math.log(one.factor)))
    fitting = [one for one in scales if one.factor <= abs(value) * (1 + 1e-9)]
    return max(fitting, default=scales[0])


def written(value: float, unit: str, decimals: int | None = None) -> str:
    """A number with its unit: so many decimals, or three digits that say something.

    >>> written(0.0123, "s"), written(1234.0, "none"), written(0.5, "percentunit", 1), written(2, "suffix:×")
    ('12.3 ms', '1234', '50.0%', '2×')
    """
    factor, suffix = scale(unit, value)
    return f"{_digits(value / factor, decimals)}{suffix}"


def _digits(number: float, decimals: int | None) -> str:
    if not math.isfinite(number):
        return str(number)
    if decimals is not None:
        return f"{number:.{decimals}f}"
    if not number or float(number).is_integer():
        return f"{number:.0f}"
    places = max(0, DIGITS - 1 - math.floor(math.log10(abs(number))))
    return f"{number:.{places}f}".rstrip("0").rstrip(".") if places else f"{number:.0f}"
