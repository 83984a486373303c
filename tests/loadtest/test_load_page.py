"""A load test's page: validity first, every part there, and readable in a browser, narrow or wide."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lathe_loadtest import load_plots
from lathe_loadtest.judge import Check
from lathe_loadtest.latencies import Latencies
from lathe_loadtest.load_page import page
from lathe_loadtest.phases import Phase, phases, told
from lathe_loadtest.result import Event, LoadResult
from lathe_loadtest.scenario import Action, Cameras, Shape
from lathe_loadtest.timeline import Timeline
from tests.browser import browser
from tests.loadtest.synthetic import synthetic_result


def eventful() -> LoadResult:
    """Two variants, a spike, a swap that failed, drops."""
    result = synthetic_result(latency_ms={"int8": 20, "fp32": 60}, drops=0.1, seconds=40, warmup=5, cameras=6)
    scenario = replace(
        result.scenario,
        name="a <spike>",
        shape=Shape("spike", 1.0, 2.0, 15.0, 10.0),
        actions=(Action(30.0, "swap", weights={"int8": 1}),),
    )
    return replace(
        result, scenario=scenario, events=(Event(30.0, "swap", "int8 answers alone", 0.2, "no such variant"),)
    )


def headings(html: str) -> list[str]:
    return re.findall("<h[23]>(.*?)</h[23]>", html)


def test_a_page_has_all_parts_in_order() -> None:
    html = page(eventful()).html()
    assert headings(html) == [
        "Latency",
        "Latency over time",
        "By variant",
        "Frames offered, accepted, served",
        "Without an answer, by reason",
        "The server, by its own metrics",
        "Cameras",
        "The sender",
    ]
    assert "a &lt;spike&gt;" in html
    assert "<spike>" not in html
    drawings = re.findall("<svg.*?</svg>", html)
    assert len(drawings) == 6 + 4, "six large ones, and CPU, memory, cost and energy of the server"
    for drawing in drawings:
        ElementTree.fromstring(drawing)


def test_validity_comes_before_any_figure() -> None:
    valid = page(eventful()).html()
    invalid = page(replace(eventful(), why_invalid=("the sender was 45 ms late",))).html()
    assert valid.index("Valid: ") < valid.index("<svg")
    assert invalid.index("Not valid: the sender was 45 ms late.") < invalid.index("<svg")
    assert "Valid: " not in invalid


def test_what_went_wrong_is_said_at_the_top() -> None:
    lost = replace(eventful(), ended="server_lost", seconds=33.0, error="connection refused")
    checks = [Check("", "lost frames", "0", "0", True), Check("hot", "p99 latency", "≤ 50 ms", "140.0 ms", False)]
    html = page(lost, checks).html()
    top = html[: html.index("<svg")]
    assert "The server was lost after 33 of 40 s: connection refused." in top
    assert '<p class="bad">Not met: hot: p99 latency 140.0 ms, expected ≤ 50 ms</p>' in top
    assert "As expected." not in top
    assert "As expected." in page(eventful(), checks[:1]).html()
    assert "int8 answers alone failed: no such variant" in top


def test_unknown_figures_are_said_to_be_unknown() -> None:
    html = page(replace(synthetic_result(seconds=8), server=())).html()
    assert "Its metrics could not be read" in html
    assert "too short for intervals" in html
    assert "Every frame was answered." in html
    assert "The server has no price" in page(synthetic_result(price_per_hour=None)).html()
    assert not re.search(r"\bnan\b", html)


def test_more_variants_than_colours_are_drawn() -> None:
    names = {f"variant-{number}": 10.0 + number for number in range(9)}
    html = page(synthetic_result(latency_ms=names, seconds=5)).html()
    assert all(name in html for name in names)


def test_a_load_that_changes_by_plan_is_told_and_a_warm_up_is_none() -> None:
    steady = synthetic_result(seconds=40, warmup=5)
    ramp = replace(steady, scenario=replace(steady.scenario, shape=Shape("ramp")))
    assert ["changes by plan" in page(one).html() for one in (steady, ramp)] == [False, True]


def test_groups_of_cameras_stand_beside_each_other() -> None:
    result = synthetic_result()
    hot = replace(result.cameras[0], group="hot")
    html = page(replace(result, cameras=(hot, *result.cameras[1:]))).html()
    assert "By group of cameras" in html
    assert f"<td>hot</td><td>1</td><td>{hot.due:,}</td>" in re.sub(r' class="[^"]*"', "", html)
    assert "By group of cameras" not in page(result).html()


def test_an_action_that_is_done_again_and_again_is_told_once() -> None:
    swaps = tuple(Event(0.5 * at, "swap", "a=1", 0.1, "gone" if at == 7 else "") for at in range(20))
    found = phases(replace(synthetic_result(), events=(*swaps, Event(3.2, "rollback", ""))))
    assert [one.text for one in found if one.is_action] == ["the first of 20 times swap", "rollback", "a=1: gone"]


def test_a_run_without_answers_has_a_page() -> None:
    nothing = synthetic_result(drops=1.0)
    html = page(nothing).html()
    assert "No frame was answered." in html
    assert "dropped_superseded" in html


def test_nines_are_as_wide_as_one_another_and_bands_end_where_few_frames_are_slower() -> None:
    judged = Timeline.of(synthetic_result(seconds=60, cameras=4))  # 2,400 frames
    drawing = ElementTree.fromstring(load_plots.distribution({"all": judged.blocks.together}))
    at = {tag.text: float(tag.attrib["x"]) for tag in drawing.iter("text") if (tag.text or "").endswith("%")}
    gaps = [at[one] - at[other] for one, other in (("99 %", "90 %"), ("99.9 %", "99 %"), ("99.99 %", "99.9 %"))]
    assert gaps == pytest.approx([gaps[0]] * 3, abs=0.2)
    (line,) = drawing.iter("polyline")
    (band,) = drawing.iter("polygon")
    ends = [max(float(corner.split(",")[0]) for corner in one.attrib["points"].split()) for one in (line, band)]
    assert at["99.9 %"] < ends[0] < at["99.99 %"], "one of 2,400 frames is slower than 99.958 %"
    assert at["99 %"] < ends[1] < at["99.9 %"], "ten are slower than 99.58 %"


def test_bands_stay_within_the_drawing() -> None:
    """One second in which all is slow makes the interval of the slowest percent wider than anything that was seen."""
    calm, stall = synthetic_result(seconds=40), synthetic_result(latency_ms={"int8": 3000}, seconds=1).per_second[0]
    timeline = Timeline.of(replace(calm, per_second=(*calm.per_second[:-1], replace(stall, second=39))))
    drawing = ElementTree.fromstring(load_plots.distribution({"all": timeline.blocks.together}))
    corners = [corner.split(",") for band in drawing.iter("polygon") for corner in band.attrib["points"].split()]
    assert corners
    assert all(16 <= float(y) <= 340 for _, y in corners)


def test_a_stall_gets_an_axis_on_which_both_can_be_seen() -> None:
    calm = synthetic_result(seconds=30)
    slow = synthetic_result(latency_ms={"int8": 900}).per_second[0]
    stalled = replace(calm, per_second=(*calm.per_second[:-1], replace(slow, second=29)))
    for result, is_logarithmic in ((calm, False), (stalled, True)):
        assert ("logarithmic" in load_plots.latency_over_time(Timeline.of(result), [], {"p99": 0.99})) == is_logarithmic


def test_no_line_leads_over_seconds_without_answers() -> None:
    timeline = Timeline.of(synthetic_result(seconds=12))
    latencies = timeline.latencies["int8"]
    answers = np.where(np.isin(timeline.starts, (5, 6, 8))[:, None], 0, latencies.counts).astype(np.int32)
    gap = replace(timeline, latencies={"int8": Latencies(latencies.values, answers)})
    drawing = ElementTree.fromstring(load_plots.latency_over_time(gap, [], {"p50": 0.5}))
    corners = [line.attrib["points"].split() for line in drawing.iter("polyline")]
    assert [len(line) for line in corners] == [5, 2, 3], "the second alone between two gaps is seen, too"
    assert corners[1][0] != corners[1][1]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (Shape(), []),
        (Shape("spike", 1, 3, 10, 5), [(10, "the load jumps to 3 times"), (15, "the load falls back to 1 times")]),
        (Shape("step", 1, 2, 0, 0, 2), [(0, "the load is 1 times"), (20, "the load is 2 times")]),
        (Shape("ramp", 1, 2, 10), [(10, "the load begins to go from 1 to 2 times")]),
    ],
)
def test_the_loads_changes_are_phases(shape: Shape, expected: list[tuple[float, str]]) -> None:
    result = synthetic_result(seconds=40)
    found = phases(replace(result, scenario=replace(result.scenario, shape=shape)))
    assert [(one.at_seconds, one.text) for one in found] == expected


def test_cameras_that_come_and_go_are_phases_as_far_as_the_run_went() -> None:
    result = synthetic_result(seconds=40)
    cameras = (Cameras("early", 2, leaves_seconds=20), Cameras("late", 3, joins_seconds=35))
    cut = replace(result, scenario=replace(result.scenario, cameras=cameras), seconds=30.0)
    assert [one.text for one in phases(cut)] == ["2 of early leave"]


def test_many_phases_are_told_in_short() -> None:
    assert told([Phase(float(number), "a swap") for number in range(100)]).endswith("at 11 s a swap, and 88 more.")


@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_stands_alone_in_a_browser(tmp_path: Path, width: int) -> None:
    """It fetches nothing, complains of nothing, and only tables and drawings are scrolled sideways."""
    path = tmp_path / "page.html"
    page(eventful()).save(path)
    assert not re.findall(r"""(?:src|href)=["']?(?!data:)[^"'> ]+""", path.read_text("utf-8"))
    with browser(tmp_path) as tab:
        tab.resize(width, 900)
        for scheme in ("light", "dark"):
            tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            tab.open(path.as_uri())
            assert tab.run("document.documentElement.scrollWidth - innerWidth") <= 0
            assert tab.run("performance.getEntriesByType('resource').length") == 0
            colors = tab.run(
                "[getComputedStyle(document.querySelector('svg text')).fill,"
                "getComputedStyle(document.querySelector('.key i')).backgroundColor]"
            )
            assert colors == ["rgb(255, 255, 255)" if scheme == "dark" else "rgb(0, 0, 0)", "rgb(51, 102, 204)"]
        assert tab.complaints == []
