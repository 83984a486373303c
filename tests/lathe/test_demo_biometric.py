"""Bars of the biometric demo, what a deletion has to show, and the picture."""

from __future__ import annotations

import asyncio
import io
import json
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from rich.console import Console

from lathe.demo.biometric_findings import BiometricFindings, Judged, show
from lathe.demo.face_sheet import LEFT_OUT, NOBODY, NOT_ALONE, RIGHT, WRONG, draw_sheet, sheet, verdict
from lathe.demo.gallery_acts import Deletion, Planned, Unplanned, names_in, refusal
from lathe.demo.portraits import Cast, Portrait
from lathe.demo.searches import Search, Searches
from lathe.repository import VariantRef
from lathe.server_error import ServerError
from tests.models import embedding_card


def portrait(person: str, number: int) -> Portrait:
    return Portrait(person, number, np.full((112, 92), 128, np.uint8), f"{person}/{number}")


def findings(wrong: int = 0, wrong_after: int | None = None) -> BiometricFindings:
    """Of 2 people with 101 pictures each; `wrong` of the 200 probes find the other person, after the swap as many if
    nothing is said."""
    people = ("s1", "s2")
    probes = [portrait(person, number) for person in people for number in range(2, 102)]
    other = {"s1": "s2", "s2": "s1"}

    def searches(wrong: int) -> Searches:
        names = [other[one.person] if place < wrong else one.person for place, one in enumerate(probes)]
        return Searches(people, [Search(one, (name,), name, 0.005) for one, name in zip(probes, names, strict=True)])

    enrolled = [portrait(person, 1) for person in people]
    unseen = frozenset({one.digest for one in (*enrolled, *probes[:5])})
    before, after = (
        Judged(embedding_card("face-embed", name, name.encode()), 0.001, searches(count), 0.001)
        for name, count in (("a", wrong), ("b", wrong if wrong_after is None else wrong_after))
    )
    return BiometricFindings(
        VariantRef("face", "int8", 1),
        Cast(enrolled, probes, [portrait("s1", 102)], unseen),
        before,
        after,
        Unplanned("two spaces", "a", True),
        Planned(2, "two spaces", 0.1, 0.2, "b"),
        Deletion("s1", 1, 100, 99, 0, False, 1, 0, 1),
        0,
    )


def missed(found: BiometricFindings) -> list[str]:
    return [bar.text for bar in found.bars() if not bar.is_met]


@pytest.mark.parametrize(("wrong", "after", "bars"), [(0, 0, 0), (2, 2, 0), (3, 3, 1), (2, 6, 0), (2, 7, 1), (3, 8, 2)])
def test_the_right_person_first_in_99_of_100_and_hardly_less_after_the_swap(wrong: int, after: int, bars: int) -> None:
    assert len(missed(findings(wrong, after))) == bars


GOOD = findings()


@pytest.mark.parametrize(
    "bad",
    [
        replace(GOOD, unplanned=Unplanned("", "b", False)),
        replace(GOOD, unplanned=Unplanned("two spaces", "b", True)),
        replace(GOOD, unplanned=Unplanned("two spaces", "a", False)),
        replace(GOOD, planned=replace(GOOD.planned, between="")),
        replace(GOOD, planned=replace(GOOD.planned, records=1)),
        replace(GOOD, planned=replace(GOOD.planned, serves="a")),
        replace(GOOD, deletion=replace(GOOD.deletion, found_after=1)),
        replace(GOOD, deletion=replace(GOOD.deletion, is_known=True)),
        replace(GOOD, deletion=replace(GOOD.deletion, on_disk_after=1)),
        replace(GOOD, deletion=replace(GOOD.deletion, on_disk_before=0)),  # it was looked for in the wrong place
        replace(GOOD, deletion=replace(GOOD.deletion, found_before=0)),
        replace(GOOD, deletion=replace(GOOD.deletion, people=2)),
        replace(GOOD, server_exit_code=1),
    ],
)
def test_each_bar_can_be_missed(bad: BiometricFindings) -> None:
    assert len(missed(bad)) == 1


def shown(found: BiometricFindings) -> str:
    out = io.StringIO()
    show(found, Console(file=out, width=80))
    return out.getvalue()


def test_what_is_shown_fits_a_terminal_and_marks_what_is_missed() -> None:
    said = shown(findings(3))
    assert max(map(len, said.splitlines())) <= 80
    assert said.count("✗") == 1
    assert "✓ b finds the right person first: 197 of 200 (98.50 %); bar 2 points below a" in " ".join(said.split())
    assert "✗ a finds the right person first: 197 of 200 (98.50 %); bar 99 %" in said
    assert "two spaces" in said
    assert "✗" not in shown(GOOD)


def test_nothing_is_said_of_pictures_that_there_are_not() -> None:
    told = "did not make the detector"
    assert told in " ".join(shown(GOOD).split())
    assert told not in " ".join(shown(replace(GOOD, people=replace(GOOD.people, unseen=frozenset()))).split())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("unseen", [frozenset(), frozenset({GOOD.people.enrolled[0].digest})], ids=["none", "enrolled"])
def test_what_is_not_known_is_null(unseen: frozenset[str]) -> None:
    """No face embedded, no picture that no network has seen."""
    unknown = replace(GOOD, before=replace(GOOD.before, embed_seconds=None), people=replace(GOOD.people, unseen=unseen))
    figures = json.loads(json.dumps(unknown.as_json(), allow_nan=False))["variants"]["a"]
    assert figures["embed_ms"] is None
    assert figures["seen_by_no_network"]["probes"] == 0
    assert set(figures["seen_by_no_network"]["fmr"].values()) == {None}
    assert "nan" not in shown(unknown)


def test_figures_of_what_no_network_has_seen_stand_apart() -> None:
    figures = findings(3).as_json()["variants"]["a"]
    assert (figures["hits"], figures["probes"]) == (197, 200)
    assert (figures["seen_by_no_network"]["hits"], figures["seen_by_no_network"]["probes"]) == (2, 5)


def test_names_are_looked_for_in_all_files(tmp_path: Path) -> None:
    (tmp_path / "gallery").write_bytes(b"\x00first\x00")
    (tmp_path / "gallery-wal").write_bytes(b"..second")
    assert names_in(tmp_path, ["first", "second", "third"]) == 2


async def refuse() -> None:
    raise ServerError(grpc.StatusCode.FAILED_PRECONDITION, "two spaces")


async def do() -> None:
    pass


def test_a_refusal_is_its_reason_and_nothing_else_is_one() -> None:
    assert asyncio.run(refusal(refuse())) == "two spaces"
    assert asyncio.run(refusal(do())) == ""
    with pytest.raises(ServerError):
        asyncio.run(refusal(refuse(), "NOT_FOUND"))


@pytest.mark.parametrize(
    ("matches", "expected"),
    [
        (("s1",), ("s1", RIGHT)),
        (("s1", "s3"), ("s1+1", NOT_ALONE)),
        (("s3", "s1"), ("s3", WRONG)),
        ((), ("-", NOBODY)),
    ],
)
def test_what_stands_below_a_picture(matches: tuple[str, ...], expected: tuple[str, object]) -> None:
    assert verdict(Search(portrait("s1", 2), matches, "s1", 0.0)) == expected


def test_the_picture_shows_right_wrong_and_left_out() -> None:
    few = findings()
    probes = few.people.probes[:3]
    people = replace(few.people, probes=probes)

    def judged(second: str) -> Judged:
        done = [Search(one, (name,), name, 0.0) for one, name in zip(probes, ("s1", second, "s1"), strict=True)]
        return replace(few.before, searches=Searches(("s1", "s2"), done))

    def colors(second: str) -> set[tuple[int, ...]]:
        pixels = draw_sheet(people, judged(second), judged(second))[100:]  # without the legend
        return {tuple(map(int, color)) for color in np.unique(pixels.reshape(-1, 3), axis=0)}

    assert {RIGHT, LEFT_OUT} <= colors("s1")
    assert WRONG not in colors("s1")
    assert WRONG in colors("s2")
    assert sheet(people, judged("s1"), judged("s1")).startswith(b"\xff\xd8")
