"""Figures as a terminal shows them: short, and honest about what is nothing, nearly all, or not known."""

from __future__ import annotations

_MILLI = 1e3


def short(value: float | None) -> str:
    """Three figures, as far as they are worth reading; a dash where there is nothing to tell.

    >>> [short(value) for value in (None, 0.0, 0.00314159, 0.5, 6.283, 31.41, 999.9, 31415.9)]
    ['–', '0', '0.0031', '0.50', '6.28', '31.4', '1000', '31416']
    """
    if value is None:
        return "–"
    if value == 0:
        return "0"
    size = abs(value)
    if size < 0.1:
        return f"{value:.2g}"
    return f"{value:.{2 if size < 10 else 1 if size < 100 else 0}f}"


def milli(value: float | None) -> str:
    """
    >>> milli(0.0123)
    '12.3'
    """
    return short(None if value is None else value * _MILLI)


def share(value: float | None) -> str:
    """
    >>> share(0.98765), share(0.99996), share(1.0), share(None)
    ('98.77 %', '99.99 %', '100 %', '–')
    """
    if value is None:
        return "–"
    hundredths = int(value * 10_000 + 0.5)
    if value < 1:
        hundredths = min(hundredths, 9_999)  # nearly all is not all
    return f"{hundredths / 100:g} %"


def percent(value: float) -> str:
    """
    >>> percent(0.123)
    '12 %'
    """
    return f"{100 * value:.0f} %"


def ago(seconds: float | None) -> str:
    """
    >>> [ago(seconds) for seconds in (None, 0.04, 7.2, 61.0, 7300.0)]
    ['–', 'now', '7 s ago', '1 min ago', '2 h ago']
    """
    if seconds is None:
        return "–"
    if seconds < 1:
        return "now"
    if seconds < 60:
        return f"{seconds:.0f} s ago"
    return f"{seconds // 60:.0f} min ago" if seconds < 3600 else f"{seconds // 3600:.0f} h ago"
