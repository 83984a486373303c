"""Exact search over all templates: one matrix in memory, one product."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FIRST_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Match:
    """A person, by the template of hers that is most alike.

    Attributes:
        similarity: the cosine, -1 to 1.
    """

    subject: str
    template: str
    similarity: float


def reaches(similarity: NDArray[np.float32], min_similarity: float) -> NDArray[np.bool_]:
    """Which similarities make a match: compared as they are computed, in float32."""
    return similarity >= np.float32(min_similarity)


class Index:
    """Templates of one embedding space; for one thread at a time.

    The rows lie without a gap: the last one moves to the place of one that is removed, and room for new ones is doubled
    when it is used up, so that both take the same short time however many there are. What leaves is overwritten.

    Args:
        dimensions: of every vector.

    >>> index = Index(2)
    >>> for name, subject, vector in (("1", "ann", [1, 0]), ("2", "ann", [0, 1]), ("3", "bob", [0.6, 0.8])):
    ...     index.add(name, subject, np.array(vector, np.float32))
    >>> matches = index.search(np.array([0.8, 0.6], np.float32), 0.5, 9)
    >>> [(match.subject, round(match.similarity, 3)) for match in matches]
    [('bob', 0.96), ('ann', 0.8)]
    """

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self._vectors = np.zeros((FIRST_ROWS, dimensions), np.float32)
        self._order = np.zeros(FIRST_ROWS, np.int64)  # in which the rows came
        self._added = 0
        self._templates: list[str] = []  # of each row, as the next
        self._subjects: list[str] = []
        self._rows: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._templates)

    def add(self, template: str, subject: str, vector: NDArray[np.float32]) -> None:
        """
        Args:
            vector: D, of length 1.
        """
        self.make_room()
        row = len(self)
        self._vectors[row], self._order[row] = vector, self._added
        self._added += 1
        self._templates.append(template)
        self._subjects.append(subject)
        self._rows[template] = row

    def remove(self, template: str) -> None:
        row, last = self._rows.pop(template), len(self) - 1
        if row != last:
            self._vectors[row], self._order[row] = self._vectors[last], self._order[last]
            self._templates[row], self._subjects[row] = self._templates[last], self._subjects[last]
            self._rows[self._templates[row]] = row
        self._vectors[last] = 0
        self._templates.pop()
        self._subjects.pop()

    def subject(self, template: str) -> str:
        """Whose it is."""
        return self._subjects[self._rows[template]]

    def search(self, probe: NDArray[np.float32], min_similarity: float, limit: int) -> list[Match]:
        """The people who reach a similarity, the most alike first; of equals who came first.

        Args:
            probe: D, of length 1.
            limit: most people.
        """
        similarity = self._vectors[: len(self)] @ probe
        (rows,) = np.nonzero(reaches(similarity, min_similarity))
        return self._best(rows, similarity[rows], limit)

    def nearest(self, probe: NDArray[np.float32], templates: Iterable[str]) -> Match:
        """Of some templates, at least one, the most alike, whatever its similarity."""
        rows = np.array([self._rows[template] for template in templates])
        return self._best(rows, self._vectors[rows] @ probe, 1)[0]

    def _best(self, rows: NDArray[np.intp], similarity: NDArray[np.float32], limit: int) -> list[Match]:
        found: dict[str, Match] = {}
        for place in np.lexsort((self._order[rows], -similarity)).tolist():
            row = int(rows[place])
            if (subject := self._subjects[row]) in found:
                continue
            if len(found) == limit:
                break
            value = min(1.0, max(-1.0, float(similarity[place])))
            found[subject] = Match(subject, self._templates[row], value)
        return list(found.values())

    def clear(self) -> None:
        self._vectors[: len(self)] = 0
        self._templates.clear()
        self._subjects.clear()
        self._rows.clear()

    def arrange(self) -> None:
        """Now and then, at a time when seconds may pass: prepares for the search, which needs nothing here."""

    def make_room(self) -> None:
        """For one more.

        Raises:
            MemoryError: there is none; all is as it was.
        """
        old = self._vectors
        if len(self) < len(old):
            return
        vectors = np.zeros((2 * len(old), self.dimensions), np.float32)
        self._order = np.concatenate((self._order, np.zeros_like(self._order)))
        vectors[: len(old)] = old
        self._vectors = vectors
        old[:] = 0
