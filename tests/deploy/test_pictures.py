"""Dashboards drawn without Grafana: numbers in their units, tables merged, areas stacked, and no data said so."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any

import pytest

from lathe.plot import stacked
from lathe_dashboards.answers import Answers, lines_of, table_of, unbroken
from lathe_dashboards.catalogue import DASHBOARDS, queries
from lathe_dashboards.marks import MARKS
from lathe_dashboards.panels import Dashboard, Panel, Query, Row
from lathe_dashboards.pictures import COLORS, PALETTE, Span, page
from lathe_dashboards.units import written

SPAN = Span(1000.0, 1300.0, 10.0)
TIMES = [1000.0 + 10 * number for number in range(31)]


@pytest.mark.parametrize(
    ("value", "unit", "decimals", "text"),
    [
        (0.0, "s", None, "0 s"),
        (0.0000042, "s", None, "4.2 µs"),
        (0.01234, "s", None, "12.3 ms"),
        (0.9999, "s", None, "1000 ms"),
        (1.0, "s", None, "1 s"),
        (90.0, "s", None, "1.5 min"),
        (-0.02, "s", None, "-20 ms"),
        (0.9876, "percentunit", None, "98.8%"),
        (0.9876, "percentunit", 2, "98.76%"),
        (1.0, "percentunit", None, "100%"),
        (1023.0, "bytes", None, "1023 B"),
        (1981450.0, "bytes", None, "1.89 MiB"),
        (0.0, "bytes", None, "0 B"),
        (0.0421, "joule", None, "42.1 mJ"),
        (1530.0, "massg", None, "1.53 kg"),
        (12.0, "watt", 1, "12.0 W"),
        (14.44, "suffix:×", 1, "14.4×"),
        (123456.7, "suffix: frames/s", None, "123457 frames/s"),
        (0.000123456, "none", None, "0.000123"),
        (1200.0, "none", None, "1200"),
    ],
)
def test_a_number_is_written_as_its_unit_says(value: float, unit: str, decimals: int | None, text: str) -> None:
    assert written(value, unit, decimals) == text


def test_every_unit_and_color_of_the_dashboards_is_known() -> None:
    assert [written(0.5, query.unit) for query in queries()]
    for panel in (panel for dashboard in DASHBOARDS for panel in dashboard.panels()):
        colors = [color for _, color in panel.thresholds] + [color for *_, color in panel.words]
        for query in panel.queries:
            colors += [color for _, color in query.thresholds] + [color for *_, color in query.words]
        assert {*colors} <= COLORS.keys(), panel.title
    assert {mark.color for mark in MARKS} <= COLORS.keys()


def test_a_unit_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="lengthm"):
        written(1.0, "lengthm")


def instant(metric: Mapping[str, str], value: float | str) -> dict[str, Any]:
    return {"metric": metric, "value": [1300.0, str(value)]}


def over_time(metric: Mapping[str, str], values: Mapping[float, float | str]) -> dict[str, Any]:
    return {"metric": metric, "values": [[at, str(value)] for at, value in values.items()]}


TABLE = Panel(
    "Table",
    "",
    "none",
    (
        Query("info"),
        Query("size", "size", "bytes"),
        Query("late", "late", "percentunit", ((0.1, "red"),)),
        Query("state", "state", words=((0, "away", "gray"), (1, "ready", "green"))),
        Query("never", "never"),
    ),
    kind="table",
    columns=("model", "variant", "engine", "shape"),
)
INT8, FP32 = {"model": "face", "variant": "int8"}, {"model": "face", "variant": "fp32"}
OF_TABLE: Answers = {
    ("info", True): [instant({**INT8, "engine": "ort", "hidden": "x"}, 1), instant({**FP32, "engine": "ov"}, 1)],
    ("size", True): [instant(FP32, 2048), instant(INT8, 1024)],
    ("late", True): [instant(INT8, 0.5), instant(FP32, "NaN")],
    ("state", True): [instant(FP32, 1), instant({"model": "face", "variant": "away"}, 0)],
}


def test_series_whose_labels_agree_are_one_row() -> None:
    table = table_of(TABLE, OF_TABLE)
    assert table.columns == ("model", "variant", "engine", "size", "late", "state")
    assert table.rows == [
        {**INT8, "engine": "ort", "size": 1024.0, "late": 0.5},
        {**FP32, "engine": "ov", "size": 2048.0, "state": 1.0},
        {"model": "face", "variant": "away", "state": 0.0},
    ]


def test_a_table_has_units_colors_and_words() -> None:
    drawn = drawn_page([TABLE], OF_TABLE)
    cells = [re.sub("<[^>]+>", "|", row) for row in re.findall("<tr>(.*?)</tr>", drawn)]
    assert [re.sub(r"\|+", "|", row) for row in cells] == [
        "|model|variant|engine|size|late|state|",
        "|face|int8|ort|1 KiB|50%|",
        "|face|fp32|ov|2 KiB|ready|",
        "|face|away|away|",
    ]
    assert f'color:{COLORS["red"]};font-weight:600">50%' in drawn
    assert f'color:{COLORS["green"]};font-weight:600">ready' in drawn


def test_layers_lie_on_one_another_also_where_one_is_missing() -> None:
    low, middle, high = stacked([{0.0: 1.0, 2.0: 3.0}, {1.0: 2.0, 2.0: 2.0}, {0.0: 4.0, 1.0: 4.0, 2.0: 4.0}])
    assert low == [(0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (2.0, 0.0, 3.0)]
    assert middle == [(0.0, 1.0, 1.0), (1.0, 0.0, 2.0), (2.0, 3.0, 5.0)]
    assert high == [(0.0, 1.0, 5.0), (1.0, 2.0, 6.0), (2.0, 5.0, 9.0)]
    assert stacked([]) == []


def test_a_line_has_no_figure_where_prometheus_has_none() -> None:
    panel = Panel("Lines", "", "s", (Query("a", "{{x}} of {{y}}"),))
    answers = {
        ("a", False): [over_time({"x": "one"}, {1.0: 5, 2.0: "NaN", 3.0: "+Inf", 4.0: 6}), over_time({}, {1.0: "NaN"})]
    }
    (line,) = lines_of(panel, answers)
    assert (line.name, line.values) == ("one of ", {1.0: 5.0, 4.0: 6.0})
    assert unbroken(line.values, 1.0) == [[(1.0, 5.0)], [(4.0, 6.0)]]


def drawn_page(panels: Sequence[Panel], answers: Answers) -> str:
    return page(Dashboard("uid", "Title", "Says.", (Row("Row", tuple(panels)),)), answers, SPAN)


def drawings(text: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(svg) for svg in re.findall("<svg.*?</svg>", text)]


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda one: one.uid)
def test_every_panel_that_has_nothing_says_so(dashboard: Dashboard) -> None:
    drawn = page(dashboard, {}, SPAN)
    said = re.findall('<div class="empty">(.*?)</div>', drawn)
    assert said == [panel.empty for panel in dashboard.panels()]
    assert re.findall("<h3>(.*?)</h3>", drawn) == [escape(panel.title) for panel in dashboard.panels()]
    assert not drawings(drawn)


def corners_of(part: ElementTree.Element) -> list[tuple[float, float]]:
    x, y = zip(*(pair.split(",") for pair in part.attrib["points"].split()), strict=True)
    return list(zip(map(float, x), map(float, y), strict=True))


STACKED = Panel("Stack", "", "s", (Query("a", "{{x}}"), Query("b", "objective")), kind="stacked")
OF_STACKED: Answers = {
    ("a", False): [over_time({"x": name}, dict.fromkeys(TIMES, value)) for name, value in (("one", 1), ("two", 3))],
    ("b", False): [over_time({}, dict.fromkeys(TIMES, 2))],
}


def test_a_stacked_panel_adds_up_and_its_objective_does_not() -> None:
    (drawing,) = drawings(drawn_page([STACKED], OF_STACKED))
    lower, upper = (corners_of(part) for part in drawing.iter("polygon"))
    zero, one, four = lower[-1][1], lower[0][1], upper[0][1]
    assert upper[-1][1] == one
    assert zero - four == pytest.approx(4 * (zero - one), abs=0.5)
    (objective,) = (part for part in drawing.iter("polyline") if part.get("stroke-dasharray"))
    assert objective.attrib["stroke"] == COLORS["red"]
    assert zero - corners_of(objective)[0][1] == pytest.approx(2 * (zero - one), abs=0.5)


def test_an_area_ends_where_all_figures_end() -> None:
    panel = replace(STACKED, queries=STACKED.queries[:1])
    gone = {at: 1 for at in TIMES if not 1100 <= at <= 1200}
    (drawing,) = drawings(drawn_page([panel], {("a", False): [over_time({"x": "one"}, gone)]}))
    before, after = (corners_of(part) for part in drawing.iter("polygon"))
    assert max(x for x, _ in before) < min(x for x, _ in after) - 50


def test_the_time_axis_tells_minutes_and_seconds_since_the_beginning() -> None:
    (drawing,) = drawings(drawn_page([STACKED], OF_STACKED))
    texts = [part.text or "" for part in drawing.iter("text")]
    assert [text for text in texts if ":" in text] == ["0:00", "1:00", "2:00", "3:00", "4:00", "5:00"]
    assert [text for text in texts if text.endswith(" s")] == ["0 s", "1 s", "2 s", "3 s", "4 s"]


def test_bounds_are_dashed_and_a_gap_breaks_the_line() -> None:
    panel = Panel("Estimate", "", "percentunit", (Query("low", "face low"), Query("value", "face value")), low=None)
    answers = {
        ("low", False): [over_time({}, dict.fromkeys(TIMES, -0.5))],
        ("value", False): [over_time({}, dict.fromkeys([*TIMES[:5], *TIMES[20:]], 0.25))],
    }
    (drawing,) = drawings(drawn_page([panel], answers))
    lines = list(drawing.iter("polyline"))
    assert [bool(part.get("stroke-dasharray")) for part in lines] == [True, False, False]
    assert lines[0].attrib["stroke"] != lines[1].attrib["stroke"] == lines[2].attrib["stroke"]


@pytest.mark.parametrize(("value", "color", "text"), [(0.5, "green", "50%"), (2.0, "red", "200%")])
def test_a_big_number_has_the_color_of_its_threshold(value: float, color: str, text: str) -> None:
    panel = Panel("Burn", "", "percentunit", (Query("a", "now"),), kind="stat", thresholds=((1.0, "red"),))
    assert f'color:{COLORS[color]}">{text}</b>' in drawn_page([panel], {("a", True): [instant({}, value)]})


def test_states_are_bands_with_their_words() -> None:
    words = ((1, "loading", "blue"), (2, "ready", "green"))
    panel = Panel("State", "", "none", (Query("a", "{{v}}"),), kind="states", width=12, words=words)
    values = {at: 1 if at < 1100 else 2 for at in TIMES}
    (drawing,) = drawings(drawn_page([panel], {("a", False): [over_time({"v": "int8"}, values)]}))
    loading, ready = drawing.iter("rect")
    assert (loading.attrib["fill"], ready.attrib["fill"]) == (COLORS["blue"], COLORS["green"])
    end = float(loading.attrib["x"]) + float(loading.attrib["width"])
    assert end == pytest.approx(float(ready.attrib["x"]), abs=0.2)
    assert float(ready.attrib["width"]) == pytest.approx(2 * float(loading.attrib["width"]), abs=0.5)
    assert {"loading", "ready", "int8"} <= {part.text for part in drawing.iter("text")}


def test_names_keep_their_colors_over_panels_and_differ_within_one() -> None:
    many = [over_time({"x": f"cam-{number}"}, dict.fromkeys(TIMES, number)) for number in range(len(PALETTE) + 3)]
    first, second = (Panel(name, "", "none", (Query(name, "{{x}}"),)) for name in "ab")
    answers = {("a", False): many, ("b", False): [many[0], many[len(PALETTE)], many[2]]}
    one, other = drawings(drawn_page([first, second], answers))
    of_first = [part.attrib["stroke"] for part in one.iter("polyline")]
    of_second = [part.attrib["stroke"] for part in other.iter("polyline")]
    assert of_second == [of_first[0], of_first[len(PALETTE)], of_first[2]]
    assert len(set(of_second)) == 3
    assert len(set(of_first)) == len(PALETTE)


def test_what_happened_is_marked_in_every_plot() -> None:
    swaps = MARKS[0]
    marked = [over_time({"kind": "routed"}, dict.fromkeys(TIMES, 1_100_000))]
    (drawing,) = drawings(drawn_page([STACKED], {**OF_STACKED, (swaps.expr, False): marked}))
    (mark,) = (part for part in drawing.iter("line") if part.get("stroke") == COLORS[swaps.color])
    (third,) = (part for part in drawing.iter("polyline") if part.get("stroke-dasharray"))
    left, *_, right = (x for x, _ in corners_of(third))
    assert float(mark.attrib["x1"]) == pytest.approx(left + (right - left) / 3, abs=0.2)


def test_text_is_escaped_and_nothing_is_fetched() -> None:
    evil = '<script src="http://x">'
    panel = replace(STACKED, title=evil, queries=(Query("a", evil + "{{x}}"),))
    drawn = drawn_page([panel], {("a", False): [over_time({"x": evil}, dict.fromkeys(TIMES, 1))]})
    assert "<script" not in drawn
    assert not re.search(r"(?:src|href)=[\"']", drawn)
