"""A dashboard drawn without Grafana: one page of HTML that fetches nothing, from what Prometheus answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from lathe.plot import STYLE, Axis, Series, bands, lines, stacked, ticks
from lathe_dashboards.answers import Answers, Line, lines_of, table_of, unbroken
from lathe_dashboards.marks import MARKS
from lathe_dashboards.panels import BOUNDS, COLUMNS, OBJECTIVE, Dashboard, Panel, Query, Row
from lathe_dashboards.units import scale, written

WIDTH = 1500
_MARGIN, _GAP, _INSET, _ROW, _HEAD = 20, 10, 12, 31, 44
_BIGGEST, _LETTER = 34, 0.72  # of a number: its size in pixels, and its digits' width as a share of that
_MANY_COLUMNS = 12
_Y_MARKS = 5
COLORS = {
    "green": "#2f8f46",
    "yellow": "#b08800",
    "orange": "#d9650b",
    "red": "#c4162a",
    "blue": "#2463c4",
    "purple": "#8f3bb8",
    "gray": "#b9bdc4",
}
"""Grafana's names, as they can be read on white."""
PALETTE = (
    *("#2463c4", "#d9650b", "#2f9e5b", "#8f3bb8", "#0d98a8", "#b08800", "#d6498f", "#6b5b4b"),
    *("#6f8fe8", "#8a9a1f", "#5b3fa8", "#e39a4a", "#4fb38a", "#a86b9f", "#35607f", "#9c6a2f"),
)
"""Of lines, by their names; none is the objective's red."""
TIME_MARKS = (5, 10, 30, 60, 300, 600, 1800, 3600)
_STYLE = f"""
* {{ box-sizing: border-box }}
body {{ font: 13px/1.35 system-ui, sans-serif; color: #1d2127; background: #fff; margin: 0; padding: {_MARGIN}px;
  width: {WIDTH}px; font-variant-numeric: tabular-nums }}
h1 {{ font-size: 22px; margin: 0 }} header p {{ margin: 3px 0; color: #555c66 }}
header p i {{ display: inline-block; height: 12px; border-left: 2px dashed; margin: 0 5px -1px 14px }}
h2 {{ font-size: 15px; margin: 16px 0 8px }}
.grid {{ display: grid; grid-template-columns: repeat({COLUMNS}, minmax(0, 1fr)); gap: {_GAP}px }}
section {{ border: 1px solid #d5d9df; border-radius: 4px; padding: 8px {_INSET}px; display: flex;
  flex-direction: column }}
h3 {{ font-size: 13px; margin: 0 0 2px }} svg {{ display: block }}
.legend {{ display: flex; flex-wrap: wrap; gap: 1px 14px; padding: 3px 0 0; font-size: 12px; line-height: 17px }}
.legend span {{ white-space: nowrap }}
.legend i {{ display: inline-block; width: 16px; border-top: 3px solid; margin: 0 5px 3px 0 }}
.legend i.dashed {{ border-top-style: dashed; border-top-width: 2px }}
.empty {{ flex: 1; display: flex; align-items: center; justify-content: center; color: #6b727c; font-size: 15px }}
.numbers {{ flex: 1; display: flex; align-items: center; justify-content: space-evenly; text-align: center }}
.numbers b {{ display: block; line-height: 1.3; font-weight: 600; white-space: nowrap }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: right; padding: 5px 8px; border-bottom: 1px solid #e3e6ea; white-space: nowrap }}
table.wide {{ font-size: 12px }} table.wide th, table.wide td {{ padding: 5px 5px }}
th {{ border-bottom-color: #aab0b8 }} th.label, td.label {{ text-align: left }}
"""


@dataclass(frozen=True, slots=True)
class Span:
    """Attributes:
    began, ended: Unix time; times are told from the first on.
    step: seconds between two figures.
    """

    began: float
    ended: float
    step: float

    def axis(self) -> Axis:
        seconds = self.ended - self.began
        apart = next((one for one in TIME_MARKS if seconds / one <= 8), TIME_MARKS[-1])
        return Axis("", 0.0, seconds, range(0, int(seconds) + 1, apart), _clock)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def page(dashboard: Dashboard, answers: Answers, span: Span) -> str:
    """All rows and panels, in as many columns as Grafana has."""
    panels = [panel for panel in dashboard.panels() if not panel.is_instant]
    uses = Counter(name for panel in panels for name in dict.fromkeys(one.name for one in lines_of(panel, answers)))
    drawing = _Drawing(answers, span, [name for name, count in uses.items() if count > 1])
    rows = "".join(drawing.row(row) for row in dashboard.rows)
    marks = "".join(f'<i style="color:{COLORS[mark.color]}"></i>{escape(mark.title)}' for mark in MARKS)
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(dashboard.title)}</title>'
        f"<style>{STYLE}{_STYLE}</style></head><body><header><h1>{escape(dashboard.title)}</h1>"
        f"<p>{escape(dashboard.says)}</p><p>Time in minutes:seconds.{marks}</p></header>{rows}</body></html>\n"
    )


class _Drawing:
    """Attributes:
    shared: names of lines in several panels, where each has the same color.
    """

    def __init__(self, answers: Answers, span: Span, shared: Sequence[str]) -> None:
        self._answers, self._span, self._shared = answers, span, shared
        self._marks = [
            (seconds, COLORS[mark.color], mark.title)
            for mark in MARKS
            for seconds in sorted(
                {
                    float(value) / 1000 - span.began
                    for one in answers.get((mark.expr, False), ())
                    for _, value in one["values"]
                }
            )
            if 0 <= seconds <= span.ended - span.began
        ]

    def row(self, row: Row) -> str:
        panels = "".join(self._panel(panel) for panel in row.panels)
        return f'<h2>{escape(row.title)}</h2><div class="grid">{panels}</div>'

    def _panel(self, panel: Panel) -> str:
        found = lines_of(panel, self._answers)
        if not found:
            content = f'<div class="empty">{escape(panel.empty)}</div>'
        elif panel.kind == "table":
            content = self._table(panel)
        elif panel.kind == "stat":
            content = _numbers(panel, found, self._size_wh(panel)[0])
        elif panel.kind == "states":
            content = self._states(panel, found)
        else:
            content = self._lines(panel, found)
        least = 0 if panel.kind == "table" else panel.height * _ROW - 20
        style = f"grid-column:span {panel.width};min-height:{least}px"
        return f'<section style="{style}"><h3>{escape(panel.title)}</h3>{content}</section>'

    def _size_wh(self, panel: Panel) -> tuple[int, int]:
        column = (WIDTH - 2 * _MARGIN + _GAP) / COLUMNS
        return round(column * panel.width - _GAP - 2 * _INSET - 2), panel.height * _ROW - 20 - _HEAD

    def _lines(self, panel: Panel, found: Sequence[Line]) -> str:
        is_flat = [panel.kind == "lines" or line.name.startswith(OBJECTIVE) for line in found]
        colors = self._colors(found)
        layers = iter(stacked([line.values for line, flat in zip(found, is_flat, strict=True) if not flat]))
        drawn: list[tuple[Line, str, dict[float, float]]] = []
        series: list[Series] = []
        for line, flat, color in zip(found, is_flat, colors, strict=True):
            values = dict(line.values)
            if not flat:
                layer = next(layers)
                values = {at: high for at, low, high in layer if high != low}
                lower = {at: low for at, low, _ in layer}
                for part in unbroken({at: high for at, _, high in layer}, self._span.step):
                    corners = [(at - self._span.began, high) for at, high in part]
                    series.append(Series(corners, color, line.name, floor=[lower[at] for at, _ in part]))
            drawn.append((line, color, values))
        for line, color, values in drawn:
            for part in unbroken(values, self._span.step):
                corners = [(at - self._span.began, value) for at, value in (part if len(part) > 1 else part * 2)]
                series.append(Series(corners, color, line.name, is_dashed=_is_dashed(line.name)))
        low, high = _range(panel, [value for one in series for _, value in one.points])
        factor, suffix = scale(panel.unit, max(abs(low), abs(high)))
        numbers = ticks(low / factor, high / factor, _Y_MARKS)
        picture = lines(
            [_scaled(one, factor) for one in series],
            self._span.axis(),
            Axis("", numbers[0], numbers[-1], numbers, lambda value: f"{value:g}{suffix}"),
            marks=self._marks,
            levels=[(at / factor, COLORS[color]) for at, color in panel.thresholds],
            size_wh=self._size_wh(panel),
        )
        shown = dict(zip((line.name for line in found), colors, strict=True))
        return self._sized(picture, panel) + _legend(shown.items())

    def _states(self, panel: Panel, found: Sequence[Line]) -> str:
        words = {number: (word, COLORS[color]) for number, word, color in panel.words}
        rows = []
        for line in found:
            spans = []
            for part in unbroken(line.values, self._span.step):
                for number, same in groupby(part, key=lambda pair: pair[1]):
                    times = [at - self._span.began for at, _ in same]
                    word, color = words.get(int(number), (written(number, panel.unit), PALETTE[0]))
                    until = min(times[-1] + self._span.step, self._span.ended - self._span.began)
                    spans.append((times[0], until, color, word))
            rows.append((line.name, spans))
        seen = {word: color for _, spans in rows for *_, color, word in spans}
        return self._sized(bands(rows, self._span.axis(), self._size_wh(panel)), panel) + _legend(seen.items())

    def _table(self, panel: Panel) -> str:
        table = table_of(panel, self._answers)
        by_title = {query.legend: query for query in panel.queries}
        head = "".join(f"<th{_label(name, panel)}>{escape(name)}</th>" for name in table.columns)
        body = "".join(
            f"<tr>{''.join(_cell(row.get(name, ''), name, panel, by_title) for name in table.columns)}</tr>"
            for row in table.rows
        )
        style = ' class="wide"' * (len(table.columns) > _MANY_COLUMNS)
        return f"<table{style}><tr>{head}</tr>{body}</table>"

    def _sized(self, svg: str, panel: Panel) -> str:
        width, height = self._size_wh(panel)
        return svg.replace("<svg ", f'<svg width="{width}" height="{height}" ', 1)

    def _colors(self, found: Sequence[Line]) -> list[str]:
        """Shared names have their own, or the next that is free in this panel; all others take what is left."""
        taken: dict[str, str] = {}
        names = list(dict.fromkeys(line.name for line in found))
        for name in sorted(names, key=lambda name: name not in self._shared):
            if name.startswith(OBJECTIVE):
                taken[name] = COLORS["red"]
                continue
            first = self._shared.index(name) % len(PALETTE) if name in self._shared else 0
            order = PALETTE[first:] + PALETTE[:first]
            taken[name] = next((color for color in order if color not in taken.values()), order[0])
        return [taken[line.name] for line in found]


def _numbers(panel: Panel, found: Sequence[Line], width: int) -> str:
    """As big as all of them fit beside one another."""
    words = {number: (word, color) for number, word, color in panel.words}
    base = panel.base or ("green" if panel.thresholds else "blue")
    shown: list[tuple[str, str, str]] = []
    for line in found:
        (value,) = line.values.values()
        text = written(value, line.query.unit or panel.unit, panel.decimals)
        text, color = words.get(int(value), (text, _colored(value, panel.thresholds, base)))
        shown.append((line.name if len(found) > 1 else "", text, COLORS[color]))
    letters = sum(len(text) + 1 for _, text, _ in shown)
    size = min(_BIGGEST, round(width / (letters * _LETTER)))
    parts = (
        f'<div>{escape(name)}<b style="font-size:{size}px;color:{color}">{escape(text)}</b></div>'
        for name, text, color in shown
    )
    return f'<div class="numbers">{"".join(parts)}</div>'


def _cell(value: str | float, name: str, panel: Panel, by_title: dict[str, Query]) -> str:
    if isinstance(value, str):
        return f"<td{_label(name, panel)}>{escape(value)}</td>"
    query = by_title[name]
    words = {number: (word, color) for number, word, color in query.words}
    color = _colored(value, query.thresholds, "green") if query.thresholds else ""
    text, color = words.get(int(value), (written(value, query.unit or panel.unit), color))
    style = f' style="color:{COLORS[color]};font-weight:600"' if color else ""
    return f"<td{style}>{escape(text)}</td>"


def _label(name: str, panel: Panel) -> str:
    return ' class="label"' * (name in panel.columns)


def _colored(value: float, thresholds: Sequence[tuple[float, str]], base: str) -> str:
    return [base, *(color for at, color in thresholds if value >= at)][-1]


def _legend(names: Iterable[tuple[str, str]]) -> str:
    items = "".join(
        f'<span><i{" class=dashed" * _is_dashed(name)} style="color:{color}"></i>{escape(name)}</span>'
        for name, color in names
    )
    return f'<div class="legend">{items}</div>'


def _is_dashed(name: str) -> bool:
    return name.startswith(OBJECTIVE) or name.endswith(tuple(f" {bound}" for bound in BOUNDS))


def _range(panel: Panel, values: Sequence[float]) -> tuple[float, float]:
    low = min(values) if panel.low is None else panel.low
    high = max([*values, *([] if panel.high is None else [panel.high])])
    if high > low:
        return low, high
    return min(low, 0.0), max(low, 0.0) or 1.0


def _scaled(one: Series, factor: float) -> Series:
    points = [(at, value / factor) for at, value in one.points]
    return Series(points, one.color, one.tip, is_dashed=one.is_dashed, floor=[low / factor for low in one.floor])
