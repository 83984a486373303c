"""Figures of searches, by hand; and what a search makes of a gallery's answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import grpc
import numpy as np
import pytest

from lathe.demo.portraits import Portrait
from lathe.demo.searches import Search, Searches, search
from lathe.gallery_calls import AsyncGallery
from lathe.server_error import ServerError
from lathe.v1 import gallery_pb2


def portrait(person: str, number: int = 1) -> Portrait:
    return Portrait(person, number, np.zeros((2, 2), np.uint8), f"{person}/{number}")


def found(person: str, *matches: str, first: str = "", number: int = 1, seconds: float = 0.01) -> Search:
    return Search(portrait(person, number), matches, first or (matches[0] if matches else ""), seconds)


FOUR = Searches(
    ("a", "b", "c"),
    [
        found("a", "a"),
        found("a", "a", "b", number=2),  # somebody else, too
        found("b", first="b"),  # the most alike, and not enough
        found("c", "a", "c"),  # behind somebody else
    ],
)


def test_first_is_who_is_most_alike() -> None:
    assert FOUR.hits == 3
    assert FOUR.rank1.value == 0.75


def test_false_matches_are_of_comparisons_of_two_people() -> None:
    assert (FOUR.false_matches, FOUR.impostor_comparisons) == (2, 8)
    assert FOUR.fmr.value == 0.25


def test_false_non_matches_are_of_pictures() -> None:
    assert FOUR.false_non_matches == 1
    assert FOUR.fnmr.value == 0.25


def test_intervals_resample_people() -> None:
    """One person with all the trouble: resamples without her are free of it."""
    people = [f"p{number}" for number in range(20)]
    done = [found(one, one, number=number) for one in people[1:] for number in range(9)]
    done += [found("p0", "p1", number=number) for number in range(9)]
    searches = Searches(people, done)
    assert searches.rank1.value == pytest.approx(0.95)
    assert (searches.rank1.low, searches.rank1.high) == (pytest.approx(0.85, abs=0.05), 1.0)
    assert searches.fmr.low == 0.0 < searches.fmr.value < searches.fmr.high


def test_without_a_trouble_intervals_are_points() -> None:
    searches = Searches(("a", "b"), [found("a", "a"), found("b", "b")])
    assert (searches.fmr.low, searches.fmr.high, searches.rank1.low) == (0.0, 0.0, 1.0)


def test_fewer_people_have_fewer_comparisons() -> None:
    fewer = FOUR.among(("a", "c"), frozenset({"a/2", "b/1", "c/1"}))
    assert [one.probe.person for one in fewer.done] == ["a", "c"]
    assert [one.matches for one in fewer.done] == [("a",), ("a", "c")]
    assert (fewer.hits, fewer.false_matches, fewer.impostor_comparisons) == (1, 1, 2)


def test_quantiles_are_milliseconds() -> None:
    searches = Searches(("a", "b"), [found("a", "a", seconds=seconds / 1e3) for seconds in range(1, 102)])
    assert searches.milliseconds(0.5) == pytest.approx(51)
    assert searches.milliseconds(0.99) == pytest.approx(100)


class Answers:
    """A stub of the service: candidates by false match rate, or an error."""

    def __init__(self, by_fmr: Mapping[float, tuple[str, ...]], error: Exception | None = None) -> None:
        self._by_fmr, self._error = by_fmr, error
        self.asked: list[float] = []

    async def Identify(self, request: gallery_pb2.IdentifyRequest) -> gallery_pb2.IdentifyResponse:  # noqa: N802
        self.asked.append(request.fmr)
        if self._error:
            raise self._error
        candidates = [gallery_pb2.Candidate(subject=name) for name in self._by_fmr[request.fmr]]
        return gallery_pb2.IdentifyResponse(candidates=candidates)


def searched(stub: Any) -> Search:
    return asyncio.run(search(AsyncGallery(stub), portrait("a"), 0.001, 0.01))


def test_who_matches_is_asked_for_once() -> None:
    stub = Answers({0.001: ("a", "b")})
    one = searched(stub)
    assert (one.matches, one.first, one.others, stub.asked) == (("a", "b"), "a", 1, [0.001])


def test_where_nobody_matches_the_most_alike_is_asked_for() -> None:
    stub = Answers({0.001: (), 0.01: ("b", "a")})
    one = searched(stub)
    assert (one.matches, one.first, one.is_hit, one.others, stub.asked) == ((), "b", False, 0, [0.001, 0.01])


def refused(code: grpc.StatusCode, message: str) -> ServerError:
    return ServerError(code, message)


def test_a_picture_without_a_face_finds_nobody() -> None:
    message = "the picture shows no face that is large and clear enough"
    one = searched(Answers({}, refused(grpc.StatusCode.INVALID_ARGUMENT, message)))
    assert (one.matches, one.first, one.shows_face) == ((), "", False)


@pytest.mark.parametrize("code", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION])
def test_other_refusals_are_none_of_its_answers(code: grpc.StatusCode) -> None:
    with pytest.raises(ServerError, match="another reason"):
        searched(Answers({}, refused(code, "another reason")))
