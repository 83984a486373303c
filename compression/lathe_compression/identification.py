"""Searching a gallery: is the right person found first, and is nobody found who is not enrolled?

Closed set: every subject is enrolled with one picture, all other pictures are searched for; rank-1 is the share whose
own subject is the most similar. Open set (as of NIST's FRVT 1:N): half of the subjects are enrolled; a search for the
other half should find nobody. The false positive identification rate (FPIR) is the share of these searches that reach
the threshold, the false negative one (FNIR) the share of searches for the enrolled whose own subject is not the first
or does not reach it.

Pictures and halves are drawn at random ten times, and figures are the means. Ties are taken to be lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lathe.evidence import Resampled, resamples_of
from lathe_compression.comparisons import NO_MATCH, Faces
from lathe_compression.error_rates import EXPECTED_FALSE_MATCHES, RESAMPLES, lowest_threshold

FPIRS = (1e-2,)
DRAWS = 10

_ROWS = 1024


@dataclass(frozen=True)
class SearchPoint:
    """What a threshold gives that is as low as a false positive rate allows.

    Attributes:
        min_similarity: the mean over the draws.
        strangers: searches for people who are not enrolled, of one draw.
    """

    fpir: float
    min_similarity: float
    fnir: Resampled
    strangers: int


@dataclass(frozen=True)
class Identification:
    """Attributes:
    rank1: of the closed set; NaN where no subject has two pictures.
    at: by FPIR, those that the searches are enough for.
    gallery, searches: subjects enrolled and pictures searched for in the closed set.
    open_gallery, open_searches: the same of the open one.
    """

    rank1: Resampled
    at: Mapping[float, SearchPoint]
    gallery: int
    searches: int
    open_gallery: int
    open_searches: int


@dataclass(frozen=True)
class _Searches:
    """Searches of one draw: the subject, the similarity to its own enrolled picture (`NO_MATCH` where there is none),
    and the highest to another subject's."""

    subject: NDArray[np.int64]
    own: NDArray[np.float32]
    others: NDArray[np.float32]

    def __getitem__(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> _Searches:
        return _Searches(self.subject[chosen], self.own[chosen], self.others[chosen])


def identification(
    faces: Faces, fpirs: Sequence[float] = FPIRS, *, resamples: int = RESAMPLES, seed: int = 0
) -> Identification:
    """Closed and open set on the same faces; the intervals resample the people who are searched for."""
    random = np.random.default_rng(seed)
    subjects = len(faces.counts)
    closed, known, strangers, galleries = [], [], [], []
    for _ in range(DRAWS):
        enrolled = _one_picture_each(faces, random)
        closed.append(_search(faces, enrolled))
        half = np.zeros(subjects, bool)
        half[random.permutation(subjects)[: (subjects + 1) // 2]] = True
        searches = _search(faces, enrolled[half])
        is_known = half[searches.subject]
        known.append(searches[is_known])
        unknown = searches[~is_known]
        strangers.append(unknown[np.argsort(-unknown.others, kind="stable")])
        galleries.append(int(half.sum()))
    counts = [np.ones(subjects, np.int64), *resamples_of(subjects, resamples, seed)]
    rank1 = np.array([_mean([_share(one.own > one.others, one.subject, each) for one in closed]) for each in counts])
    fewest = min(len(one.subject) for one in strangers)
    at = {}
    for fpir in fpirs:
        if fpir * fewest < EXPECTED_FALSE_MATCHES or not all(len(one.subject) for one in known):
            continue
        found = np.array([_open_set(known, strangers, fpir, each) for each in counts])
        at[fpir] = SearchPoint(fpir, float(found[0, 1]), Resampled(float(found[0, 0]), found[1:, 0]), fewest)
    return Identification(
        Resampled(float(rank1[0]), rank1[1:]),
        at,
        subjects,
        len(closed[0].subject),
        galleries[0],
        round(float(np.mean([len(one.subject) for one in known]))),
    )


def _one_picture_each(faces: Faces, random: np.random.Generator) -> NDArray[np.intp]:
    """A picture of every subject, in the order of the subjects."""
    shuffled = random.permutation(len(faces))
    return shuffled[np.unique(faces.subjects[shuffled], return_index=True)[1]]


def _search(faces: Faces, gallery: NDArray[np.intp]) -> _Searches:
    """Searches a gallery of one picture each of some subjects for all the other pictures, those of strangers too."""
    is_probe = np.ones(len(faces), bool)
    is_probe[gallery] = False
    probes = np.flatnonzero(is_probe)
    place = np.full(len(faces.counts), -1)
    place[faces.subjects[gallery]] = np.arange(len(gallery))
    own, others = np.full(len(probes), NO_MATCH, np.float32), np.full(len(probes), NO_MATCH, np.float32)
    for start in range(0, len(probes), _ROWS):
        rows = slice(start, start + _ROWS)
        found = faces.similarity(gallery, probes[rows]).T
        at = place[faces.subjects[probes[rows]]]
        enrolled = np.flatnonzero(at >= 0)
        own[rows][enrolled] = found[enrolled, at[enrolled]]
        found[enrolled, at[enrolled]] = NO_MATCH
        others[rows] = found.max(axis=1, initial=NO_MATCH)
    return _Searches(faces.subjects[probes], own, others)


def _open_set(
    known: Sequence[_Searches], strangers: Sequence[_Searches], fpir: float, counts: NDArray[np.int64]
) -> tuple[float, float]:
    """FNIR and threshold, the means over the draws.

    Args:
        strangers: the highest similarity first.
    """
    found = []
    for mated, other in zip(known, strangers, strict=True):
        reached = np.cumsum(counts[other.subject])
        threshold = float(lowest_threshold(-other.others, reached, fpir * reached[-1]))
        missed = (mated.own < threshold) | (mated.own <= mated.others)
        found.append((_share(missed, mated.subject, counts), threshold))
    return _mean([one[0] for one in found]), _mean([one[1] for one in found])


def _share(hits: NDArray[np.bool_], subject: NDArray[np.int64], counts: NDArray[np.int64]) -> float:
    weights = counts[subject]
    total = weights.sum()
    return float(weights[hits].sum() / total) if total else float("nan")


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
