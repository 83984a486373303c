"""Every face against every other: the similarities of one person, and the highest ones of two.

There are n²/2 comparisons, nearly all of two people and far below any threshold. They are made block by block; what is
kept is all that are of one person, the top of the others, and how many of the others reach each of the first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lathe.errors import InvalidInput

NO_MATCH = -2.0
"""Similarity where one side has no vector: below that of any two vectors, so that no threshold is reached."""

_BLOCK = 1 << 20
"""Comparisons made at a time: some tens of megabytes."""
_LEAST_TAIL = 1 << 17


class Faces:
    """Vectors of pictures of subjects.

    A picture in which no face was found has a row of NaN, and so has one whose vector holds a number that is none:
    its comparisons do not match.

    Attributes:
        subjects: N, from 0 up, in the order of their names.
        counts: pictures of each subject.
        enrolled, probes: N × D, unit rows or zeros; the same where both sides come from one network.
        is_cross: they come from two, so that picture i enrolled and j probed is not j enrolled and i probed.
        failures: pictures without a vector on one of the sides.
    """

    def __init__(
        self,
        subjects: NDArray[np.integer] | NDArray[np.str_],
        probes: NDArray[np.floating],
        enrolled: NDArray[np.floating] | None = None,
    ) -> None:
        """Raises InvalidInput where subjects and vectors are not of equal number, or of two dimensions."""
        if (
            probes.ndim != 2
            or len(subjects) != len(probes)
            or (enrolled is not None and enrolled.shape != probes.shape)
        ):
            raise InvalidInput("each picture must have one subject and one vector, all of the same length")
        _, inverse = np.unique(np.asarray(subjects), return_inverse=True)
        self.subjects: NDArray[np.int64] = inverse.astype(np.int64)
        self.counts: NDArray[np.int64] = np.bincount(self.subjects)
        self.probes, self._no_probe = _unit(probes)
        self.is_cross = enrolled is not None
        self.enrolled, self._not_enrolled = (self.probes, self._no_probe) if enrolled is None else _unit(enrolled)
        self.failures = int(np.count_nonzero(self._no_probe | self._not_enrolled))

    def __len__(self) -> int:
        return len(self.subjects)

    def similarity(self, enrolled: NDArray[np.intp] | slice, probes: NDArray[np.intp] | slice) -> NDArray[np.float32]:
        """Cosines of some pictures on the one side with some on the other: enrolled × probes."""
        found: NDArray[np.float32] = self.enrolled[enrolled] @ self.probes[probes].T
        found[self._not_enrolled[enrolled]] = NO_MATCH
        found[:, self._no_probe[probes]] = NO_MATCH
        return found

    def of_pairs(self, enrolled: NDArray[np.intp], probes: NDArray[np.intp]) -> NDArray[np.float32]:
        """Cosines of P pictures with P others, one by one."""
        found = np.einsum("nd,nd->n", self.enrolled[enrolled], self.probes[probes], dtype=np.float32)
        missing = self._not_enrolled[enrolled] | self._no_probe[probes]
        return np.where(missing, np.float32(NO_MATCH), found)

    def impostors(self, multiplicity: NDArray[np.int64] | None = None) -> int:
        """Comparisons of two people, where each subject counts so often; those of a subject with itself are none."""
        counts = self.counts if multiplicity is None else self.counts * multiplicity
        both_ways = int(counts.sum()) ** 2 - int(counts @ counts)
        return both_ways if self.is_cross else both_ways // 2

    def blocks(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.intp], NDArray[np.intp]]]:
        """All comparisons, none twice and none of a picture with itself: similarities, pictures enrolled and probed."""
        everyone = np.arange(len(self))
        step = max(1, _BLOCK // max(1, len(self)))
        for start in range(0, len(self), step):
            rows = everyone[start : start + step]
            columns = everyone if self.is_cross else everyone[start:]
            found = self.similarity(rows, columns)
            wanted = rows[:, None] != columns if self.is_cross else rows[:, None] < columns
            row, column = np.nonzero(wanted)
            yield found[row, column], rows[row], columns[column]


@dataclass(frozen=True)
class Compared:
    """What all comparisons of some faces gave.

    Attributes:
        faces: that were compared.
        genuine: of one person, lowest first.
        genuine_subject: whose each is.
        reached: how many comparisons of two people are at least as high as each of `genuine`.
        negated_tail: the highest comparisons of two people, highest first; below 0, so that they rise and can be
            searched.
        tail_subjects: 2 × K, whose each is.
        impostors: how many comparisons of two people there were.
    """

    faces: Faces
    genuine: NDArray[np.float32]
    genuine_subject: NDArray[np.int64]
    reached: NDArray[np.int64]
    negated_tail: NDArray[np.float32]
    tail_subjects: NDArray[np.int64]
    impostors: int


def compare(faces: Faces, tail_share: float, down_to: float = math.inf) -> Compared:
    """Makes all comparisons.

    Args:
        tail_share: of those of two people, so many are kept, the highest; all of them where they are few.
        down_to: all that reach this similarity are kept, too.
    """
    genuine, genuine_subject = _genuine(faces)
    wanted = max(_LEAST_TAIL, int(faces.impostors() * tail_share))
    below = np.zeros(len(genuine) + 1, np.int64)
    tail = _Tail(wanted, down_to)
    for similarity, enrolled, probes in faces.blocks():
        one, other = faces.subjects[enrolled], faces.subjects[probes]
        is_impostor = one != other
        impostor = similarity[is_impostor]
        below += np.bincount(np.searchsorted(genuine, impostor, side="right"), minlength=len(below))
        tail.add(impostor, one[is_impostor], other[is_impostor])
    reached = below[::-1].cumsum()[::-1][1:]
    negated, subjects = tail.highest()
    return Compared(faces, genuine, genuine_subject, reached, negated, subjects, faces.impostors())


def _genuine(faces: Faces) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    scores, subjects = [np.empty(0, np.float32)], [np.empty(0, np.int64)]
    in_order = np.argsort(faces.subjects, kind="stable")
    for whose, pictures in enumerate(np.split(in_order, np.cumsum(faces.counts)[:-1])):
        wanted = np.triu(np.ones((len(pictures),) * 2, bool), 1)
        similarity = faces.similarity(pictures, pictures)[wanted | wanted.T if faces.is_cross else wanted]
        scores.append(similarity)
        subjects.append(np.full(len(similarity), whose))
    score, subject = np.concatenate(scores), np.concatenate(subjects)
    order = np.argsort(score, kind="stable")
    return score[order], subject[order]


class _Tail:
    """The highest of many similarities, with their subjects.

    Holds those that are wanted, as many again, and a block; more where very many are equal.
    """

    def __init__(self, wanted: int, down_to: float) -> None:
        self._wanted = wanted
        self._down_to = down_to
        self._least = -math.inf
        self._held, self._room = 0, 2 * wanted
        self._parts: list[tuple[NDArray[np.float32], NDArray[np.int32]]] = []

    def add(self, score: NDArray[np.float32], one: NDArray[np.int64], other: NDArray[np.int64]) -> None:
        high = np.flatnonzero(score >= self._least)
        self._parts.append((score[high], np.stack((one[high], other[high]), axis=1).astype(np.int32)))
        self._held += len(high)
        if self._held > self._room:
            self._shrink()
            self._room = 2 * max(self._wanted, self._held)

    def _shrink(self) -> None:
        score = np.concatenate([np.empty(0, np.float32), *(part[0] for part in self._parts)])
        subjects = np.concatenate([np.empty((0, 2), np.int32), *(part[1] for part in self._parts)])
        if len(score) > self._wanted:
            self._least = min(self._down_to, float(np.partition(score, -self._wanted)[-self._wanted]))
            kept = score >= self._least
            score, subjects = score[kept], subjects[kept]
        self._parts, self._held = [(score, subjects)], len(score)

    def highest(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Negated similarities, and 2 × K subjects."""
        self._shrink()
        ((score, subjects),) = self._parts
        order = np.argsort(-score, kind="stable")
        return -score[order], np.ascontiguousarray(subjects[order].T, np.int64)


def _unit(vectors: NDArray[np.floating]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Rows of length 1, and which have none: they become zeros."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    missing = ~np.isfinite(lengths[:, 0]) | (lengths[:, 0] == 0)
    rows = np.where(missing[:, None], 0.0, vectors) / np.where(missing[:, None], 1.0, lengths)
    return rows.astype(np.float32), missing
