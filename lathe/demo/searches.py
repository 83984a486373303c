"""Looking for people in a gallery, and how often the right one is found, or another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lathe.demo.portraits import Portrait
from lathe.evidence import Interval, bootstrap
from lathe.gallery_calls import AsyncGallery
from lathe.server_error import ServerError

MOST_PEOPLE = 100
"""The longest answer that a gallery gives."""


@dataclass(frozen=True, slots=True)
class Search:
    """What came of one picture.

    Attributes:
        matches: people who reach the threshold, the most alike first.
        first: the most alike person; also below the threshold, as far down as the gallery tells; empty where nobody is
            alike enough for that, or no face was found in the picture.
        seconds: from the picture to the answer.
        shows_face: the server has found one.
    """

    probe: Portrait
    matches: tuple[str, ...]
    first: str
    seconds: float
    shows_face: bool = True

    @property
    def is_hit(self) -> bool:
        return self.first == self.probe.person

    @property
    def others(self) -> int:
        """People who match and are somebody else."""
        return len(self.matches) - (self.probe.person in self.matches)


@dataclass(frozen=True)
class Searches:
    """Many of them in one gallery, which holds one template of each of `people`.

    A picture in which no face was found matches nobody, and its comparisons count. Intervals are of 95 %, by resampling
    people: a comparison of i and j counts w_i · w_j times.
    """

    people: Sequence[str]
    done: Sequence[Search]

    def among(self, people: Sequence[str], digests: frozenset[str]) -> Searches:
        """As if only these people were enrolled, and only these pictures of them looked for. Who is first stays so:
        whoever was behind somebody else counts as missed."""
        known = set(people)
        kept = [one for one in self.done if one.probe.digest in digests and one.probe.person in known]
        return Searches(people, [replace(one, matches=tuple(filter(known.__contains__, one.matches))) for one in kept])

    @property
    def hits(self) -> int:
        return sum(one.is_hit for one in self.done)

    @property
    def false_matches(self) -> int:
        return sum(one.others for one in self.done)

    @property
    def impostor_comparisons(self) -> int:
        return len(self.done) * (len(self.people) - 1)

    @property
    def false_non_matches(self) -> int:
        return sum(one.probe.person not in one.matches for one in self.done)

    @cached_property
    def rank1(self) -> Interval:
        """The share of pictures whose own person is the most alike."""
        return self._share([one.is_hit for one in self.done])

    @cached_property
    def fnmr(self) -> Interval:
        return self._share([one.probe.person not in one.matches for one in self.done])

    @cached_property
    def fmr(self) -> Interval:
        """The share of comparisons with other people's templates that match."""
        place = self._place
        matched = np.zeros((len(place), len(place)))
        for one in self.done:
            for person in one.matches:
                matched[place[one.probe.person], place[person]] += 1
        compared = np.repeat(self._searches_of_each[:, None], len(place), axis=1)
        for table in (matched, compared):
            np.fill_diagonal(table, 0)

        def share(weights: NDArray[np.int64]) -> float:
            return _ratio(weights @ matched @ weights, weights @ compared @ weights)

        return bootstrap(share, len(place))

    def milliseconds(self, share: float) -> float:
        """A quantile of the time for a picture."""
        return float(np.quantile([one.seconds for one in self.done], share)) * 1e3

    @cached_property
    def _place(self) -> dict[str, int]:
        return {person: place for place, person in enumerate(self.people)}

    @cached_property
    def _searches_of_each(self) -> NDArray[np.float64]:
        counts = np.zeros(len(self.people))
        for one in self.done:
            counts[self._place[one.probe.person]] += 1
        return counts

    def _share(self, of: Sequence[bool]) -> Interval:
        found = np.zeros(len(self.people))
        for one, is_so in zip(self.done, of, strict=True):
            found[self._place[one.probe.person]] += is_so
        return bootstrap(lambda weights: _ratio(weights @ found, weights @ self._searches_of_each), len(self.people))


def _ratio(part: Any, whole: Any) -> float:
    return float(part) / float(whole) if whole else float("nan")


async def search_all(
    gallery: AsyncGallery,
    people: Sequence[str],
    probes: Sequence[Portrait],
    fmr: float,
    loosest_fmr: float,
    advance: Callable[[], None] = lambda: None,
) -> Searches:
    """Looks for one picture after the other.

    Args:
        fmr: false match rate to decide at.
        loosest_fmr: the highest with a threshold: who is alike enough for it is told where nobody is for the other.
        advance: called after each.
    """
    done = []
    for probe in probes:
        done.append(await search(gallery, probe, fmr, loosest_fmr))
        advance()
    return Searches(people, done)


async def search(gallery: AsyncGallery, probe: Portrait, fmr: float = 0.0, loosest_fmr: float = 0.0) -> Search:
    """Looks for one picture; see `search_all`. Rates are the gallery's own where none are given.

    Raises:
        LatheError: the server has refused, or does not answer.
    """
    from grpc import StatusCode

    began = perf_counter()
    try:
        matches = await _asked(gallery, probe, fmr)
        seconds = perf_counter() - began
        alike = matches or (await _asked(gallery, probe, loosest_fmr) if loosest_fmr > fmr else ())
    except ServerError as error:
        if error.code is StatusCode.INVALID_ARGUMENT and "shows no face" in error.message:
            return Search(probe, (), "", perf_counter() - began, shows_face=False)
        raise
    return Search(probe, matches, alike[0] if alike else "", seconds)


async def _asked(gallery: AsyncGallery, probe: Portrait, fmr: float) -> tuple[str, ...]:
    found = await gallery.identify(probe.pixels, fmr=fmr, limit=MOST_PEOPLE, largest=True)
    return tuple(one.subject for one in found.candidates)
