"""Search in lists of templates that lie near each other: faiss' inverted file, for galleries beyond 100 000."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lathe.errors import Refused
from lathe_server.gallery.search import Index, Match, reaches
from lathe_server.settings import FAISS

log = logging.getLogger(__name__)

EXACT_UP_TO = 100_000
LISTS, PROBED = 1024, 320
"""Nearly a third: faces lie so that of true matches one in a thousand is missed then (decision 0023)."""
SAMPLE, SEED = 50_000, 0
SLACK = 1e-5
"""Of a similarity: faiss adds up in another order."""


class Inverted(Index):
    """As `Index`; of more templates than some it looks at those in the lists that are nearest to the probe.

    The lists are made by `arrange`, and until then all are looked at. What they give is compared anew, so that a match
    is the one that `Index` would find, and at worst it is not found. Where faiss has no memory the search is exact.

    Args:
        exact_up_to: templates.
        lists: how many there are.
        probed: how many of them are looked at.

    Raises:
        Refused: faiss is not installed.
    """

    def __init__(
        self, dimensions: int, *, exact_up_to: int = EXACT_UP_TO, lists: int = LISTS, probed: int = PROBED
    ) -> None:
        super().__init__(dimensions)
        self._faiss = loaded()
        self._exact_up_to = exact_up_to
        self._shape = lists, probed
        self._lists: Any = None  # an IndexIVFFlat; it names templates by their rows here
        self._arranged = 0  # how many templates there were when the lists were made

    def add(self, template: str, subject: str, vector: NDArray[np.float32]) -> None:
        super().add(template, subject, vector)
        if self._lists is not None:
            with self._or_exact():
                self._put_in(len(self) - 1)

    def remove(self, template: str) -> None:
        row, last = self._rows[template], len(self) - 1
        super().remove(template)
        if self._lists is not None:
            with self._or_exact():
                self._take_out(row)
                if row != last:
                    self._take_out(last)
                    self._put_in(row)

    def search(self, probe: NDArray[np.float32], min_similarity: float, limit: int) -> list[Match]:
        if self._lists is not None and len(self) > self._exact_up_to:
            with self._or_exact():
                _, _, rows = self._lists.range_search(probe[np.newaxis], min_similarity - SLACK)
                similarity = self._vectors[rows] @ probe
                enough = reaches(similarity, min_similarity)
                return self._best(rows[enough], similarity[enough], limit)
        return super().search(probe, min_similarity, limit)

    def clear(self) -> None:
        super().clear()
        self._let_go()

    def arrange(self) -> None:
        """Makes the lists where there are templates enough, and anew where those have doubled since: for seconds."""
        count = len(self)
        if count <= self._exact_up_to:
            self._let_go()
        elif self._lists is None or count >= 2 * self._arranged:
            self._let_go()
            with self._or_exact():
                self._lists, self._arranged = self._made(), count
                log.info("the %d templates of the gallery are searched by lists", count)

    def _made(self) -> Any:
        faiss, (lists, probed) = self._faiss, self._shape
        made = faiss.IndexIVFFlat(
            faiss.IndexFlatIP(self.dimensions), self.dimensions, lists, faiss.METRIC_INNER_PRODUCT
        )
        made.nprobe, made.cp.seed = probed, SEED
        made.set_direct_map_type(faiss.DirectMap.Hashtable)  # or removing one would look at all
        count = len(self)
        rows = np.random.default_rng(SEED).choice(count, min(count, SAMPLE), replace=False)
        sample = self._vectors[rows]
        made.train(sample)
        sample[:] = 0
        made.add_with_ids(self._vectors[:count], np.arange(count))
        return made

    def _put_in(self, row: int) -> None:
        self._lists.add_with_ids(self._vectors[row : row + 1], np.array([row]))

    def _take_out(self, row: int) -> None:
        """And overwrites it: faiss moves the last of a list into the gap, and leaves that one's place as it was."""
        number = self._faiss.lo_listno(self._lists.direct_map.get(row))
        self._lists.remove_ids(np.array([row]))
        kept, nothing = self._lists.invlists, np.zeros(self._lists.code_size, np.uint8)
        count = kept.list_size(number)
        kept.add_entry(number, -1, self._faiss.swig_ptr(nothing))
        kept.resize(number, count)

    def _let_go(self) -> None:
        lists, self._lists = self._lists, None
        if lists is not None:
            for number in range(lists.nlist):
                if size := lists.invlists.list_size(number) * lists.code_size:
                    self._faiss.rev_swig_ptr(lists.invlists.get_codes(number), size)[:] = 0

    @contextmanager
    def _or_exact(self) -> Iterator[None]:
        """Lists with which something went wrong are gone until the next `arrange`."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            self._let_go()
            log.error("the gallery is searched without lists, which takes longer: %s", str(error) or "no memory")


def index_of(search: str) -> Callable[[int], Index]:
    """What makes an index of so many dimensions, by the setting `gallery_search`.

    Raises:
        Refused: it is not installed.
    """
    if search != FAISS:
        return Index
    loaded()
    return Inverted


def loaded() -> Any:
    """The package, which uses one thread whenever the calling one calls it.

    Raises:
        Refused: it is not installed.
    """
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # it tells of each instruction set that it tries
    try:
        import faiss
    except ImportError as error:
        raise Refused(
            "a gallery that is searched by faiss needs faiss-cpu: install lathe[faiss]", detail=str(error)
        ) from error
    faiss.omp_set_num_threads(1)
    return faiss
