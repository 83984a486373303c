"""The report builder and its plots."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from lathe.pareto import pareto_front
from lathe.plot import Axis, Point, Series, bars, lines, scatter, ticks
from lathe.report import Report


def test_text_is_escaped_everywhere() -> None:
    evil = '<script>alert("x")</script>'
    report = Report(evil, evil)
    report.heading(evil)
    report.paragraph(evil, evil)
    report.table([evil], [[evil]])
    report.pictures([(b"", evil)])
    report.plot(scatter([Point(1, 1, "#000", evil, evil)], Axis(evil, 0, 1), Axis(evil, 0, 1)), evil)
    assert "<script" not in report.html()


def test_a_plot_is_well_formed_and_its_dots_lie_within() -> None:
    points = [Point(float(x), x / 7, "#000") for x in range(8)]
    svg = scatter(points, Axis("x", 0, 7), Axis("y", 0, 1), line=[(0, 0), (7, 1)], marks=[(2, 3, "swap")])
    tree = ElementTree.fromstring(svg)
    dots = [element for element in tree.iter() if element.tag == "circle"]
    assert len(dots) == 8
    for dot in dots:
        assert 0 <= float(dot.attrib["cx"]) <= 760
        assert 0 <= float(dot.attrib["cy"]) <= 340


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.58, 0.61), (-3, 250), (5, 5), (0, 1e-6)])
def test_ticks_span_the_range(low: float, high: float) -> None:
    marks = ticks(low, high)
    assert marks[0] <= low
    assert marks[-1] >= high - 1e-9
    assert 2 <= len(marks) <= 12


def test_the_front_holds_what_nothing_beats() -> None:
    assert pareto_front([(1.0, 0.5), (2.0, 0.4), (3.0, 0.9), (3.0, 0.8)]) == [0, 2]
    assert pareto_front([]) == []


def test_lines_and_bars_are_well_formed() -> None:
    evil = '<script>"&'
    curve = [(float(n), 1 / (n + 1)) for n in range(5000)]
    drawn = lines([Series(curve, "#000", evil, evil), Series([], "#000")], Axis(evil, 0, 5000), Axis(evil, 0, 1))
    (corners,) = [
        tag.attrib["points"] for tag in ElementTree.fromstring(drawn).iter("polyline") if tag.attrib["points"]
    ]
    assert len(corners.split()) <= 400
    ElementTree.fromstring(bars([(evil * 9, 0.5, evil), ("none", 0.0, "")], evil))
    ElementTree.fromstring(bars([], evil))


def test_names_of_dots_that_lie_close_do_not_overlap() -> None:
    points = [Point(0.5 + n / 1000, 0.5, "#000", label=f"variant-{n}") for n in range(4)]
    tree = ElementTree.fromstring(scatter(points, Axis("x", 0, 1), Axis("y", 0, 1)))
    names = [
        (float(tag.attrib["x"]), float(tag.attrib["y"])) for tag in tree.iter("text") if tag.get("class") == "label"
    ]
    assert len(names) == 4
    for number, (x, y) in enumerate(names):
        assert all(abs(x - a) > 60 or abs(y - b) > 12 for a, b in names[:number])


def test_parts_within_details_and_chains() -> None:
    report = Report("title", "summary")
    with report.details("more <b>"):
        report.table(["a"], [["b"]])
    report.chain([("step", "<i>")])
    report.facts([("size", "<2 MB")])
    page = report.html()
    assert page.index("<details>") < page.index("<table>") < page.index("</details>")
    assert not any(tag in page for tag in ("<b>&", "<i>", "<2"))
