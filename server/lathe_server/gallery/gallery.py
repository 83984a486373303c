"""Enrolment, verification and identification over a store and what is searched in memory."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lathe.errors import Conflict, InvalidInput, LatheError, NotFound, Refused
from lathe.v1 import card_pb2
from lathe_server.gallery.decision import Identification, Verdict, threshold
from lathe_server.gallery.memory import Memory, remembered
from lathe_server.gallery.probe import Probe, unit_vector
from lathe_server.gallery.record import Record
from lathe_server.gallery.retention import Retention
from lathe_server.gallery.search import Index, reaches
from lathe_server.gallery.store import Store

MAX_SUBJECT = 128
MAX_TEMPLATES = 32
"""Of one person: each is one more comparison that may err."""
MAX_CANDIDATES = 100


@dataclass(frozen=True, slots=True)
class GallerySettings:
    """Attributes:
    keep_faces: what `enroll` is given of a face is kept for re-enrolment.
    retention_days: after which a record goes (`expire`); 0 keeps it until it is deleted.
    index: makes what searches, of so many dimensions.
    """

    keep_faces: bool = False
    max_records: int = 100_000
    retention_days: float = 0.0
    index: Callable[[int], Index] = Index


class Gallery:
    """For one thread at a time. What is in memory follows what is on disk, in this order.

    Args:
        now: Unix time.

    Raises:
        Refused: a record cannot be read, or they lie in several spaces.
    """

    def __init__(
        self,
        store: Store,
        settings: GallerySettings | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._settings = settings or GallerySettings()
        self._now = now
        self._retention = Retention(store, self._settings.retention_days)
        # exchanged as a whole: other threads look at `enrolled`
        self._memory = remembered(store.records(), self._settings.index)

    @property
    def settings(self) -> GallerySettings:
        return self._settings

    @property
    def enrolled(self) -> tuple[str, int]:
        """The templates' embedding space, empty where there are none, and how many there are; for all threads."""
        memory = self._memory
        return (memory.space, len(memory)) if memory is not None else ("", 0)

    def __len__(self) -> int:
        return self.enrolled[1]

    @property
    def space(self) -> str:
        """Of all templates; empty where there are none: the first one decides."""
        return self.enrolled[0]

    @property
    def people(self) -> int:
        return len(self._memory.templates) if self._memory is not None else 0

    def templates(self, subject: str) -> int:
        """How many a person has."""
        return len(self._memory.templates.get(subject, ())) if self._memory is not None else 0

    def enroll(self, subject: str, face: Probe, kept: bytes = b"", *, may_be_first: bool = True) -> str:
        """Adds a template to a person, who may be new.

        Args:
            kept: of the face, for re-enrolment (`kept_face`), where that is allowed.
            may_be_first: the space is one that the gallery may have, should nobody be enrolled.

        Returns:
            The record's id. The record is on the disk.

        Raises:
            InvalidInput: no such name can be, or the vector is no unit vector.
            Conflict: nobody is enrolled, and the face may not be the first.
            Refused: the templates lie in another space, the gallery is full, or the person has as many templates as can
                be.
        """
        check_subject(subject)
        vector = unit_vector(face)
        if self._memory is None and not may_be_first:
            raise Conflict("everybody was deleted meanwhile; enrol the face again")
        memory = self._memory
        if memory is None:
            memory = Memory(face.made_by.space, len(vector), self._settings.index)
        if memory.space != face.made_by.space:
            raise Refused(
                f"the gallery's faces are in the embedding space {memory.space}, this one is in {face.made_by.space}: "
                "re-enrol the gallery first"
            )
        if len(self) >= self._settings.max_records:
            raise Refused(f"the gallery is full: it may hold {self._settings.max_records} templates")
        if self.templates(subject) >= MAX_TEMPLATES:
            raise Refused(f"a person may have {MAX_TEMPLATES} templates; delete one first")
        record = Record(uuid.uuid4().hex, subject, face.made_by.space, int(self._now()), _fitting(vector, memory))
        memory.make_room()  # first, or the record would be on the disk and in no search
        self._store.add(record, kept if self._settings.keep_faces else b"")
        memory.add(record)
        self._memory = memory
        return record.id

    def verify(self, subject: str, face: Probe, fmr: float) -> Verdict:
        """Whether it is this person's face, by the best of her templates.

        Raises:
            InvalidInput: the vector is no unit vector.
            NotFound: there is no such person.
            Refused: the face's space must not be compared with the templates', or no threshold was measured at that
                false match rate.
        """
        vector = unit_vector(face)
        decision = threshold(face.made_by, self.space, fmr)
        memory, templates = self._of(subject)
        best = memory.index.nearest(_fitting(vector, memory), templates)
        match = bool(reaches(np.asarray(best.similarity, np.float32), decision.min_similarity))
        return Verdict(match, best.similarity if match else None, decision, len(templates))

    def identify(self, face: Probe, fmr: float, limit: int = 1) -> Identification:
        """Whose face it may be.

        Args:
            limit: most people, 1 to `MAX_CANDIDATES`.

        Raises:
            InvalidInput: the vector is no unit vector, or the limit none.
            Refused: as of `verify`.
        """
        if not 1 <= limit <= MAX_CANDIDATES:
            raise InvalidInput(f"1 to {MAX_CANDIDATES} people can be asked for")
        vector = unit_vector(face)
        decision, memory = threshold(face.made_by, self.space, fmr), self._memory
        if memory is None:
            return Identification([], decision, 0)
        matches = memory.index.search(_fitting(vector, memory), decision.min_similarity, limit)
        return Identification(matches, decision, len(self))

    def delete(self, subject: str, record: str = "") -> int:
        """Deletes a person's records, or one of them; for good with the next `tidy`.

        Returns:
            How many they were: more than none.

        Raises:
            NotFound: there is no such person, or she has no such record.
        """
        memory, templates = self._of(subject)
        gone = list(templates)
        if record:
            if record not in gone:
                raise NotFound("this person has no such record")
            gone = [record]
        self._forget(gone, memory)
        return len(gone)

    def expire(self) -> list[str]:
        """Deletes the records that are older than they may become (`retention`); for good with the next `tidy`.

        Returns:
            Whose they were.

        Raises:
            DiskFull, Refused, Unavailable: they are still there.
        """
        memory = self._memory
        gone = self._retention.due(memory.enrolled_at if memory is not None else {}, self._now())
        if memory is None or not gone:
            return []
        subjects = [memory.index.subject(name) for name in gone]
        self._forget(gone, memory, end_doubt=True)
        return subjects

    def tidy(self) -> None:
        """Cuts the file's log of changes, in which what was deleted lies longest.

        Raises:
            Refused: that is not possible now.
        """
        try:
            self._store.cut_log()
        except LatheError as error:
            raise Refused(
                "deleted, but the log of changes, where it may be left, could not be cut yet; that is tried every hour",
                detail=f"{error.message}: {error.detail}",
            ) from error

    def arrange(self) -> None:
        """Prepares for the search where that is due, which may take seconds (`Index.arrange`)."""
        if self._memory is not None:
            self._memory.index.arrange()

    def export(self, subject: str = "") -> Iterator[Record]:
        """The records that there are now, of one person or of all, read from the store one by one: what is deleted
        meanwhile is not among them.

        Raises:
            NotFound: there is no such person.
        """
        wanted = list(self._of(subject)[1]) if subject else self.others(())
        found = (self._store.record(name) for name in wanted)
        return (record for record in found if record)

    def kept_face(self, record: str) -> bytes:
        """What was kept of a face for re-enrolment; nothing where nothing was, or the record has gone."""
        return self._store.face(record)

    def bare(self) -> int:
        """How many records there are without a kept face."""
        return self._store.bare()

    def others(self, than: Collection[str]) -> list[str]:
        """Ids of the records that are not among some."""
        return [name for name in self._memory.enrolled_at if name not in than] if self._memory is not None else []

    def re_enroll(self, made_by: card_pb2.Embedding, vectors: Mapping[str, NDArray[np.float32]]) -> int:
        """Puts all templates into another space, all or none.

        Args:
            made_by: of the card of the network that has embedded the kept faces.
            vectors: by record; those that have gone in between are passed over.

        Returns:
            How many they are.

        Raises:
            InvalidInput: one is no unit vector of that space.
            Conflict: records have come in between, and have no vector.
        """
        if self.others(vectors):
            raise Conflict("people were enrolled meanwhile; embed their faces, too")
        anew = [
            replace(record, space=made_by.space, vector=unit_vector(Probe(vectors[record.id], made_by)))
            for record in self._store.records()
        ]
        memory = remembered(anew, self._settings.index)
        self._store.replace(anew)
        self._exchange(memory)
        return len(anew)

    def close(self) -> None:
        self._exchange(None)
        self._store.close()

    def _of(self, subject: str) -> tuple[Memory, list[str]]:
        """A person's templates, and where they are."""
        templates = self._memory.templates.get(subject) if self._memory is not None else None
        if self._memory is None or not templates:
            raise NotFound("no such person is enrolled")
        return self._memory, templates

    def _forget(self, records: list[str], memory: Memory, *, end_doubt: bool = False) -> None:
        self._store.remove(records, end_doubt=end_doubt)
        for name in records:
            memory.remove(name)
        if not len(memory):
            self._exchange(None)

    def _exchange(self, memory: Memory | None) -> None:
        old, self._memory = self._memory, memory
        if old is not None:
            old.clear()


def _fitting(vector: NDArray[np.float32], memory: Memory) -> NDArray[np.float32]:
    if len(vector) != memory.index.dimensions:
        raise InvalidInput(f"the vector has {len(vector)} numbers, the gallery's have {memory.index.dimensions}")
    return vector


def check_subject(subject: str) -> str:
    """Returns a person's name in the gallery if it is one.

    Raises:
        InvalidInput: not 1 to 128 printable characters, or blanks around them.
    """
    if not (0 < len(subject) <= MAX_SUBJECT and subject.isprintable() and subject == subject.strip()):
        raise InvalidInput(f"a person is named by 1 to {MAX_SUBJECT} printable characters")
    return subject
