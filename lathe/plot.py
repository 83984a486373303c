"""Plots as SVG text, drawn for reports that must open anywhere and fetch nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 760, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 20, 16, 46
COLORS = ("#3366cc", "#dc6b19", "#2a9d5c", "#a33bb5", "#c0392b", "#7a6a00")


@dataclass(frozen=True)
class Point:
    """A dot with what is said of it when pointed at; a labelled dot has its name beside it."""

    x: float
    y: float
    color: str
    tip: str = ""
    label: str = ""
    radius: float = 6.0


@dataclass(frozen=True)
class Axis:
    """Attributes:
    low, high: the range that must be visible; the plot widens it to round numbers.
    """

    title: str
    low: float
    high: float


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round numbers that span a range: 1, 2 or 5 times a power of ten apart.

    >>> ticks(0.0, 9.3)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    span = max(high - low, 1e-9)
    rough = span / (count - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, max(last, first + 1) + 1)]


def scatter(
    points: Sequence[Point],
    x: Axis,
    y: Axis,
    *,
    line: Sequence[tuple[float, float]] = (),
    marks: Sequence[tuple[float, float, str]] = (),
) -> str:
    """Dots, with a dashed line through some of them and shaded spans of the x axis.

    Args:
        line: its corners in data coordinates.
        marks: spans as (from, to, what happened).
    """
    canvas = _Canvas(x, y)
    for low, high, text in marks:
        canvas.span(low, high, text)
    if len(line) > 1:
        corners = " ".join(f"{canvas.x(a):.1f},{canvas.y(b):.1f}" for a, b in line)
        canvas.add(
            f'<polyline points="{corners}" fill="none" stroke="currentColor" stroke-dasharray="5 4" opacity=".6"/>'
        )
    for point in points:
        canvas.dot(point)
    return canvas.svg()


class _Canvas:
    def __init__(self, x: Axis, y: Axis) -> None:
        self._x_ticks, self._y_ticks = ticks(x.low, x.high), ticks(y.low, y.high)
        self._parts: list[str] = []
        bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
        for value in self._x_ticks:
            at = self.x(value)
            self.add(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{bottom}" class="grid"/>')
            self.add(f'<text x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{value:g}</text>')
        for value in self._y_ticks:
            at = self.y(value)
            self.add(f'<line x1="{_LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}" class="grid"/>')
            self.add(f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{value:g}</text>')
        middle = (_LEFT + right) / 2
        self.add(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle" class="title">{escape(x.title)}</text>')
        half = (_TOP + bottom) / 2
        self.add(
            f'<text transform="translate(14 {half}) rotate(-90)" text-anchor="middle" class="title">'
            f"{escape(y.title)}</text>"
        )

    def x(self, value: float) -> float:
        low, high = self._x_ticks[0], self._x_ticks[-1]
        return _LEFT + (value - low) / (high - low) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self._y_ticks[0], self._y_ticks[-1]
        return HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)

    def add(self, part: str) -> None:
        self._parts.append(part)

    def dot(self, point: Point) -> None:
        at_x, at_y = self.x(point.x), self.y(point.y)
        tip = f"<title>{escape(point.tip)}</title>" if point.tip else ""
        self.add(
            f'<circle cx="{at_x:.1f}" cy="{at_y:.1f}" r="{point.radius}" fill="{point.color}" fill-opacity=".75">'
            f"{tip}</circle>"
        )
        if point.label:
            is_right = at_x > WIDTH * 0.8
            offset, anchor = (-10, "end") if is_right else (10, "start")
            above = -8 if at_y > _TOP + 16 else 18
            self.add(
                f'<text x="{at_x + offset:.1f}" y="{at_y + above:.1f}" text-anchor="{anchor}" class="label">'
                f"{escape(point.label)}</text>"
            )

    def span(self, low: float, high: float, text: str) -> None:
        left, right = self.x(low), self.x(high)
        width = max(2.0, right - left)
        self.add(
            f'<rect x="{left:.1f}" y="{_TOP}" width="{width:.1f}" height="{HEIGHT - _TOP - _BOTTOM}" class="span">'
            f"<title>{escape(text)}</title></rect>"
        )
        self.add(f'<text x="{left + width + 6:.1f}" y="{_TOP + 14}" class="label">{escape(text)}</text>')

    def svg(self) -> str:
        return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(self._parts)}</svg>'
