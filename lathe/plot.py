"""Plots as SVG text, drawn for reports that must open anywhere and fetch nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

WIDTH, HEIGHT = 760, 340
SMALL_WH = (330, 240)
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 20, 16, 46
_BARE_RIGHT, _BARE_BOTTOM = 14, 24  # of a drawing whose axes have no titles
LETTER_WIDTH = 7.2  # of a bold name, on average
NEAR, FAR = (-8, 18, 4), (-22, 32, -36, -50)  # of a name below its dot
MOST_CORNERS = 400
STYLE = """
svg { font-size: 12px } svg text { fill: currentColor }
svg .grid { stroke: #8883 } svg .span { fill: #dc6b19; opacity: .25 }
svg .title { font-size: 13px } svg .label { font-weight: 600 } svg .faint { opacity: .65 }
"""
"""What a page with drawings must say in its style sheet."""
COLORS = ("#3366cc", "#dc6b19", "#2a9d5c", "#a33bb5", "#c0392b", "#7a6a00")


_Box = tuple[float, float, float, float]
"""Left, top, right, bottom in the drawing's pixels."""


@dataclass(frozen=True)
class Point:
    """A dot with what is said of it when pointed at; a labelled dot has its name beside it.

    A faint one is drawn lighter, and its name goes where there is no room.
    """

    x: float
    y: float
    color: str
    tip: str = ""
    label: str = ""
    radius: float = 6.0
    is_faint: bool = False


@dataclass(frozen=True)
class Series:
    """A line through points in order of x, with its name at its end where it is labelled.

    Attributes:
        floor: of an area instead of a line, its lower edge at each point.
    """

    points: Sequence[tuple[float, float]]
    color: str
    tip: str = ""
    label: str = ""
    is_dashed: bool = False
    floor: Sequence[float] = ()


@dataclass(frozen=True)
class Axis:
    """Attributes:
    low, high: the range that must be visible; the plot widens it to round numbers.
    marks: the numbers to write, of a range that is not to be widened.
    text: how numbers are written.
    """

    title: str
    low: float
    high: float
    marks: Sequence[float] = ()
    text: Callable[[float], str] = "{:g}".format


def standalone(svg: str) -> str:
    """A drawing as a file of its own, dark on white."""
    style = f"{STYLE}svg {{ font-family: system-ui, sans-serif; color: #222; background: #fff }}\n"
    return svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(
        ">", f"><style>{style}</style>", 1
    )


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
    size_wh: tuple[int, int] = (WIDTH, HEIGHT),
) -> str:
    """Dots, with a dashed line through some of them and shaded spans of the x axis.

    Args:
        line: its corners in data coordinates.
        marks: spans as (from, to, what happened).
    """
    canvas = _Canvas(x, y, size_wh)
    for low, high, text in marks:
        canvas.span(low, high, text)
    if len(line) > 1:
        canvas.line(line, 'stroke="currentColor" stroke-dasharray="5 4" opacity=".6"')
        canvas.keep_clear(line)
    for point in points:
        canvas.dot(point)
    for point in sorted(points, key=lambda point: point.is_faint):
        if point.label:
            canvas.name(point)
    return canvas.svg()


def lines(
    series: Sequence[Series],
    x: Axis,
    y: Axis,
    *,
    marks: Sequence[tuple[float, str, str]] = (),
    levels: Sequence[tuple[float, str]] = (),
    size_wh: tuple[int, int] = (WIDTH, HEIGHT),
) -> str:
    """Lines and areas over one another; what each is, is said when it is pointed at.

    Args:
        marks: moments on the x axis as (when, color, what happened).
        levels: dashed lines over the whole width as (y, color); those out of the plot are left out.
    """
    canvas = _Canvas(x, y, size_wh)
    for when, color, text in marks:
        canvas.moment(when, color, text)
    for level, color in levels:
        canvas.level(level, color)
    for one in series:
        if one.floor:
            canvas.area(one)
        else:
            dashes = ' stroke-dasharray="7 5"' * one.is_dashed
            canvas.line(thinned(one.points), f'stroke="{one.color}" stroke-width="1.8"{dashes}', one.tip)
    for one in series:
        if one.label and one.points:
            canvas.name(Point(*one.points[-1], one.color, label=one.label))
    return canvas.svg()


def stacked(layers: Sequence[Mapping[float, float]]) -> list[list[tuple[float, float, float]]]:
    """Each layer's (x, lower edge, upper edge) over those before it, at every x that any of them has.

    >>> stacked([{0: 1.0, 1: 2.0}, {1: 5.0}])
    [[(0, 0.0, 1.0), (1, 0.0, 2.0)], [(0, 1.0, 1.0), (1, 2.0, 7.0)]]
    """
    edge = dict.fromkeys(sorted({x for layer in layers for x in layer}), 0.0)
    found = []
    for layer in layers:
        above = {x: low + layer.get(x, 0.0) for x, low in edge.items()}
        found.append([(x, edge[x], above[x]) for x in edge])
        edge = above
    return found


def bands(
    rows: Sequence[tuple[str, Sequence[tuple[float, float, str, str]]]], x: Axis, size_wh: tuple[int, int]
) -> str:
    """A band for each name, below one another, of spans as (from, to, color, what it was then)."""
    names = [name for name, _ in rows]
    canvas = _Canvas(x, Axis("", 0, len(rows), [row + 0.5 for row in range(len(rows))], _named(names)), size_wh)
    for number, (_, spans) in enumerate(rows):
        for span in spans:
            canvas.band(len(rows) - number, *span)
    return canvas.svg()


def _named(names: Sequence[str]) -> Callable[[float], str]:
    return lambda at: names[len(names) - 1 - int(at)]


def thinned(points: Sequence[tuple[float, float]], most: int = MOST_CORNERS) -> Sequence[tuple[float, float]]:
    """At most so many points: the means of neighbours where there are more.

    >>> thinned([(1, 4), (2, 6), (3, 8), (4, 8)], 2)
    [(1.5, 5.0), (3.5, 8.0)]
    """
    if len(points) <= most:
        return points
    bounds = [round(part * len(points) / most) for part in range(most + 1)]
    groups = [points[low:high] for low, high in pairwise(bounds)]
    return [(sum(a for a, _ in group) / len(group), sum(b for _, b in group) / len(group)) for group in groups]


def bars(rows: Sequence[tuple[str, float, str]], title: str) -> str:
    """Horizontal bars, one below the other.

    Args:
        rows: (name, length from 0 up, what is said when it is pointed at).
    """
    marks = ticks(0.0, max((value for _, value, _ in rows), default=1.0))
    left, right, height, bottom = 210, WIDTH - _RIGHT, 18, _TOP + 18 * len(rows)

    def at(value: float) -> float:
        return left + value / marks[-1] * (right - left)

    parts = [
        f'<line x1="{at(mark):.1f}" x2="{at(mark):.1f}" y1="{_TOP}" y2="{bottom}" class="grid"/>'
        f'<text x="{at(mark):.1f}" y="{bottom + 18}" text-anchor="middle">{mark:g}</text>'
        for mark in marks
    ]
    for number, (name, value, tip) in enumerate(rows):
        top = _TOP + height * number
        shown = name if len(name) <= 30 else f"…{name[-29:]}"
        parts.append(
            f'<g><title>{escape(tip or name)}</title><text x="{left - 8}" y="{top + 13}" text-anchor="end">'
            f'{escape(shown)}</text><rect x="{left}" y="{top + 3}" width="{max(0.0, at(value) - left):.1f}" '
            f'height="{height - 6}" fill="{COLORS[0]}" fill-opacity=".75"/></g>'
        )
    parts.append(
        f'<text x="{(left + right) / 2}" y="{bottom + 38}" text-anchor="middle" class="title">{escape(title)}</text>'
    )
    return _drawing(parts, (WIDTH, bottom + 46))


class _Canvas:
    def __init__(self, x: Axis, y: Axis, size_wh: tuple[int, int]) -> None:
        self._width, self._height = size_wh
        is_small = self._width < WIDTH
        self._x_ticks, self._y_ticks = (
            axis.marks or ticks(axis.low, axis.high, 4 if is_small else 6) for axis in (x, y)
        )
        self._x_span, self._y_span = (
            (axis.low, axis.high) if axis.marks else (marks[0], marks[-1])
            for axis, marks in ((x, self._x_ticks), (y, self._y_ticks))
        )
        longest = max(len(y.text(value)) for value in self._y_ticks)
        self._left = _LEFT if y.title else round(14 + LETTER_WIDTH * longest)
        self._right = self._width - (_RIGHT if x.title else _BARE_RIGHT)
        self._bottom = self._height - (_BOTTOM if x.title else _BARE_BOTTOM)
        self._parts: list[str] = []
        self._names: list[_Box] = []
        self._dots: list[_Box] = []
        self._lines: list[_Box] = []
        for value in self._x_ticks:
            at = self.x(value)
            self.add(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{self._bottom}" class="grid"/>')
            self.add(f'<text x="{at:.1f}" y="{self._bottom + 18}" text-anchor="middle">{escape(x.text(value))}</text>')
        for value in self._y_ticks:
            at = self.y(value)
            self.add(f'<line x1="{self._left}" x2="{self._right}" y1="{at:.1f}" y2="{at:.1f}" class="grid"/>')
            self.add(f'<text x="{self._left - 8}" y="{at + 4:.1f}" text-anchor="end">{escape(y.text(value))}</text>')
        middle = (self._left + self._right) / 2
        if x.title:
            self.add(
                f'<text x="{middle}" y="{self._height - 8}" text-anchor="middle" class="title">{escape(x.title)}</text>'
            )
        if y.title:
            self.add(
                f'<text transform="translate(14 {(_TOP + self._bottom) / 2}) rotate(-90)" text-anchor="middle" '
                f'class="title">{escape(y.title)}</text>'
            )

    def x(self, value: float) -> float:
        low, high = self._x_span
        return self._left + (value - low) / (high - low) * (self._right - self._left)

    def y(self, value: float) -> float:
        low, high = self._y_span
        return self._bottom - (value - low) / (high - low) * (self._bottom - _TOP)

    def add(self, part: str) -> None:
        self._parts.append(part)

    def line(self, corners: Sequence[tuple[float, float]], style: str, tip: str = "") -> None:
        at = " ".join(f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in corners)
        told = f"<title>{escape(tip)}</title>" if tip else ""
        self.add(f'<polyline points="{at}" fill="none" {style}>{told}</polyline>')

    def area(self, one: Series) -> None:
        """As many corners as it has points."""
        upper = [f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in one.points]
        lower = [f"{self.x(a):.1f},{self.y(low):.1f}" for (a, _), low in zip(one.points, one.floor, strict=True)]
        self.add(
            f'<polygon points="{" ".join([*upper, *reversed(lower)])}" fill="{one.color}" fill-opacity=".35">'
            f"<title>{escape(one.tip)}</title></polygon>"
        )

    def moment(self, when: float, color: str, text: str) -> None:
        at = f'x1="{self.x(when):.1f}" x2="{self.x(when):.1f}" y1="{_TOP}" y2="{self._bottom}"'
        self.add(
            f'<line {at} stroke="{color}" stroke-dasharray="3 3" opacity=".6"><title>{escape(text)}</title></line>'
        )

    def level(self, value: float, color: str) -> None:
        if self._y_span[0] < value <= self._y_span[1]:
            at = f'x1="{self._left}" x2="{self._right}" y1="{self.y(value):.1f}" y2="{self.y(value):.1f}"'
            self.add(f'<line {at} stroke="{color}" stroke-dasharray="7 5"/>')

    def band(self, top: float, low: float, high: float, color: str, word: str) -> None:
        """One row high, with its word where there is room."""
        left, width = self.x(low), self.x(high) - self.x(low)
        upper, height = self.y(top - 0.12), self.y(top - 0.88) - self.y(top - 0.12)
        self.add(
            f'<rect x="{left:.1f}" y="{upper:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{color}" '
            f'fill-opacity=".7"><title>{escape(word)}</title></rect>'
        )
        if LETTER_WIDTH * len(word) + 8 < width:
            middle = upper + height / 2 + 4
            self.add(f'<text x="{left + width / 2:.1f}" y="{middle:.1f}" text-anchor="middle">{escape(word)}</text>')

    def keep_clear(self, corners: Sequence[tuple[float, float]]) -> None:
        """No name is written over this line where there is another place for it."""
        at = [(self.x(a), self.y(b)) for a, b in corners]
        for (x1, y1), (x2, y2) in pairwise(at):
            parts = max(1, math.ceil(math.hypot(x2 - x1, y2 - y1) / 6))
            for part in range(parts + 1):
                x, y = x1 + (x2 - x1) * part / parts, y1 + (y2 - y1) * part / parts
                self._lines.append((x - 1, y - 1, x + 1, y + 1))

    def dot(self, point: Point) -> None:
        at_x, at_y = self.x(point.x), self.y(point.y)
        tip = f"<title>{escape(point.tip)}</title>" if point.tip else ""
        opacity = ".35" if point.is_faint else ".75"
        self.add(
            f'<circle cx="{at_x:.1f}" cy="{at_y:.1f}" r="{point.radius}" fill="{point.color}" '
            f'fill-opacity="{opacity}">{tip}</circle>'
        )
        if point.label:
            self._dots.append((at_x - 5, at_y - 5, at_x + 5, at_y + 5))

    def name(self, point: Point) -> None:
        """Writes a dot's name beside it: free of other names first, then of dots, then of lines.

        A faint one without room is left out.
        """
        at_x, at_y = self.x(point.x), self.y(point.y)
        wide = LETTER_WIDTH * len(point.label)
        sides = [
            (at_x + across if across > 0 else at_x + across - wide, at_y + down)
            for across in (10, -10)
            for down in (NEAR if point.is_faint else NEAR + FAR)
        ]
        within = [
            (left, base)
            for left, base in sides
            if left >= self._left and left + wide <= self._width and _TOP + 8 < base < self._bottom
        ] or sides[:1]
        off_names = self._free(within, wide, self._names)
        off_dots = self._free(off_names, wide, self._dots)
        off_lines = self._free(off_dots, wide, self._lines)
        if not off_dots and point.is_faint:
            return
        left, base = (off_lines or off_dots or off_names or within)[0]
        self._names.append(self._box((left, base), wide))
        style = 'class="faint"' if point.is_faint else 'class="label"'
        self.add(f'<text x="{left:.1f}" y="{base:.1f}" {style}>{escape(point.label)}</text>')

    def _free(
        self, sides: Sequence[tuple[float, float]], wide: float, taken: Sequence[_Box]
    ) -> list[tuple[float, float]]:
        return [side for side in sides if not any(_overlap(self._box(side, wide), box) for box in taken)]

    @staticmethod
    def _box(side: tuple[float, float], wide: float) -> _Box:
        left, base = side
        return left, base - 10, left + wide, base + 3

    def span(self, low: float, high: float, text: str) -> None:
        left, right = self.x(low), self.x(high)
        width = max(2.0, right - left)
        self.add(
            f'<rect x="{left:.1f}" y="{_TOP}" width="{width:.1f}" height="{self._bottom - _TOP}" '
            f'class="span"><title>{escape(text)}</title></rect>'
        )
        self.add(f'<text x="{left + width + 6:.1f}" y="{_TOP + 14}" class="label">{escape(text)}</text>')

    def svg(self) -> str:
        return _drawing(self._parts, (self._width, self._height))


def _overlap(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _drawing(parts: Sequence[str], size_wh: tuple[int, int]) -> str:
    return f'<svg viewBox="0 0 {size_wh[0]} {size_wh[1]}" role="img">{"".join(parts)}</svg>'
