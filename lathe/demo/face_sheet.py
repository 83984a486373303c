"""One picture of the biometric demo: every person's portraits, and who was found with each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from lathe.demo.biometric_findings import Judged
from lathe.demo.portraits import CREDIT, Cast, Portrait
from lathe.demo.searches import Search

Rgb: TypeAlias = tuple[int, int, int]
Canvas: TypeAlias = NDArray[np.uint8]

RIGHT, NOT_ALONE, NOBODY, WRONG = (46, 125, 70), (112, 122, 24), (214, 126, 12), (190, 40, 40)
ENROLLED, LEFT_OUT = (52, 96, 170), (170, 170, 170)
INK, PAPER = (34, 34, 34), (250, 250, 248)
FACE_WH, STRIP, GAP, NAME, MARGIN, HEAD = (64, 78), 15, 6, 34, 24, 100
COLUMNS, JPEG_QUALITY = 2, 92


def verdict(search: Search) -> tuple[str, Rgb]:
    """What stands below a probe, and its color: who was found first, and how many others match.

    Whoever is alike, but not enough for the threshold, was not found.
    """
    if not search.matches:
        return "-", NOBODY
    first, *others = search.matches
    if first != search.probe.person:
        return first, WRONG
    return (f"{first}+{len(others)}", NOT_ALONE) if others else (first, RIGHT)


def sheet(people: Cast, before: Judged, after: Judged) -> bytes:
    """A JPEG file: a row for each person; below each picture who was found before and after the swap."""
    return bytes(simplejpeg.encode_jpeg(draw_sheet(people, before, after), JPEG_QUALITY, "RGB", "444"))


def draw_sheet(people: Cast, before: Judged, after: Judged) -> Canvas:
    """The same as pixels, RGB."""
    rows = {one.person: [one] for one in people.enrolled}
    for one in sorted([*people.probes, *people.left_out], key=lambda one: one.number):
        if one.person in rows:
            rows[one.person].append(one)
    longest, deep = max(map(len, rows.values())), -(-len(rows) // COLUMNS)
    across, down = FACE_WH[0] + GAP, FACE_WH[1] + STRIP + GAP
    block = NAME + longest * across + MARGIN
    size = (HEAD + deep * down + MARGIN, MARGIN + COLUMNS * block)
    canvas = np.full((*size, 3), PAPER, np.uint8)
    _head(canvas, before, after)
    searches = [{one.probe: one for one in judged.searches.done} for judged in (before, after)]
    for place, (person, portraits) in enumerate(rows.items()):
        left, top = MARGIN + place // deep * block, HEAD + place % deep * down
        _text(canvas, person, (left, top + FACE_WH[1] // 2), INK, 0.42)
        for number, portrait in enumerate(portraits):
            at = (left + NAME + number * across, top)
            _cell(canvas, portrait, at, is_enrolled=number == 0, found=[each.get(portrait) for each in searches])
    return canvas


def _head(canvas: Canvas, before: Judged, after: Judged) -> None:
    first = before.searches
    hits = " and ".join(f"{one.searches.hits} times by {one.variant}" for one in (before, after))
    title = (
        f"{len(first.done)} pictures of {len(first.people)} people, enrolled with one each: the right one first {hits}"
    )
    _text(canvas, title, (MARGIN, 30), INK, 0.72)
    legend: Mapping[str, Rgb] = {
        "enrolled": ENROLLED,
        "right": RIGHT,
        "right, and others match, too": NOT_ALONE,
        "nobody reaches the threshold": NOBODY,
        "wrong": WRONG,
        "left out: made a variant": LEFT_OUT,
    }
    left = MARGIN
    for word, color in legend.items():
        cv2.rectangle(canvas, (left, 48), (left + 14, 62), color, -1)
        left = _text(canvas, word, (left + 20, 60), INK, 0.48) + 22
    _text(
        canvas,
        f"below each: whom {before.variant} (left) and {after.variant} (right) find. {CREDIT}.",
        (MARGIN, 84),
        INK,
        0.45,
    )


def _cell(
    canvas: Canvas, portrait: Portrait, at: tuple[int, int], *, is_enrolled: bool, found: Sequence[Search | None]
) -> None:
    (left, top), (width, height) = at, FACE_WH
    face = cv2.cvtColor(cv2.resize(portrait.pixels, FACE_WH, interpolation=cv2.INTER_AREA), cv2.COLOR_GRAY2RGB)
    searches = [one for one in found if one]
    if not is_enrolled and not searches:
        face = (face * 0.25 + np.array(PAPER) * 0.75).astype(np.uint8)
    canvas[top : top + height, left : left + width] = face
    bottom = top + height
    if not searches:
        cv2.rectangle(
            canvas, (left, bottom), (left + width - 1, bottom + STRIP - 1), ENROLLED if is_enrolled else LEFT_OUT, -1
        )
        if is_enrolled:
            _centred(canvas, "enrolled", (left, bottom), width)
        return
    half = width // len(searches)
    for number, search in enumerate(searches):
        text, color = verdict(search)
        corner = (left + number * half, bottom)
        cv2.rectangle(canvas, corner, (corner[0] + half - 2, bottom + STRIP - 1), color, -1)
        _centred(canvas, text.removeprefix("s"), corner, half)
    colors = [color for _, color in map(verdict, searches)]
    if worst := next((color for color in (WRONG, NOBODY) if color in colors), None):
        cv2.rectangle(canvas, (left + 1, top + 1), (left + width - 2, bottom - 1), worst, 3)


def _centred(canvas: Canvas, text: str, corner: tuple[int, int], width: int) -> None:
    (wide, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.36, 1)
    _text(canvas, text, (corner[0] + (width - wide) // 2, corner[1] + 11), (255, 255, 255), 0.36)


def _text(canvas: Canvas, text: str, at: tuple[int, int], color: Rgb, scale: float) -> int:
    """Returns where it ends."""
    cv2.putText(canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, color, 1, cv2.LINE_AA)
    return at[0] + int(cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0])
