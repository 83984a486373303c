"""Enrolment, verification and identification over a store and what is searched in memory."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lathe.errors import Conflict, InvalidInput, LatheError, NotFound, Refused
from lathe.v1 import card_pb2
from lathe_server.gallery.decision import Identification, Verdict, threshold
from lathe_server.gallery.probe import Probe, unit_vector
from lathe_server.gallery.record import Record
from lathe_server.gallery.search import Index, reaches
from lathe_server.gallery.store import Store

MAX_SUBJECT = 128
MAX_TEMPLATES = 32
"""Of one person: each is one more comparison that may err."""
MAX_CANDIDATES = 100
DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class GallerySettings:
    """Attributes:
    keep_faces: what `enroll` is given of a face is kept for re-enrolment.
    retention_days: after which a record goes (`expire`); 0 keeps it until it is deleted.
    """

    keep_faces: bool = False
    max_records: int = 100_000
    retention_days: float = 0.0


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
        self._enrolled_at: dict[str, int] = {}  # by record, as the index has them
        self._templates: dict[str, list[str]] = {}  # of each subject, the oldest first
        self._space = ""
        self._index: Index | None = None
        for record in store.records():
            self._remember(record)

    @property
    def settings(self) -> GallerySettings:
        return self._settings

    def __len__(self) -> int:
        return len(self._enrolled_at)

    @property
    def space(self) -> str:
        """Of all templates; empty where there are none: the first one decides."""
        return self._space

    @property
    def people(self) -> int:
        return len(self._templates)

    def templates(self, subject: str) -> int:
        """How many a person has."""
        return len(self._templates.get(subject, ()))

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
        if not (self._space or may_be_first):
            raise Conflict("everybody was deleted meanwhile; enrol the face again")
        if self._space not in ("", face.made_by.space):
            raise Refused(
                f"the gallery's faces are in the embedding space {self._space}, this one is in {face.made_by.space}: "
                "re-enrol the gallery first"
            )
        if len(self) >= self._settings.max_records:
            raise Refused(f"the gallery is full: it may hold {self._settings.max_records} templates")
        if self.templates(subject) >= MAX_TEMPLATES:
            raise Refused(f"a person may have {MAX_TEMPLATES} templates; delete one first")
        record = Record(uuid.uuid4().hex, subject, face.made_by.space, int(self._now()), self._fitting(vector))
        self._store.add(record, kept if self._settings.keep_faces else b"")
        self._remember(record)
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
        decision = threshold(face.made_by, self._space, fmr)
        templates = self._of(subject)
        assert self._index, "whoever has a template has made it"
        best = self._index.nearest(self._fitting(vector), templates)
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
        decision = threshold(face.made_by, self._space, fmr)
        matches = self._index.search(self._fitting(vector), decision.min_similarity, limit) if self._index else []
        return Identification(matches, decision, len(self))

    def delete(self, subject: str, record: str = "") -> int:
        """Deletes a person's records, or one of them; for good with the next `tidy`.

        Returns:
            How many they were: more than none.

        Raises:
            NotFound: there is no such person, or she has no such record.
        """
        gone = list(self._of(subject))
        if record:
            if record not in gone:
                raise NotFound("this person has no such record")
            gone = [record]
        self._forget(gone)
        return len(gone)

    def expire(self) -> list[str]:
        """Deletes the records that are older than they may become; for good with the next `tidy`.

        Returns:
            Whose they were.
        """
        if not self._settings.retention_days or self._index is None:
            return []
        oldest = self._now() - self._settings.retention_days * DAY_SECONDS
        gone = [name for name, enrolled_at in self._enrolled_at.items() if enrolled_at < oldest]
        subjects = [self._index.subject(name) for name in gone]
        if gone:
            self._forget(gone)
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

    def export(self, subject: str = "") -> Iterator[Record]:
        """The records that there are now, of one person or of all, read from the store one by one: what is deleted
        meanwhile is not among them.

        Raises:
            NotFound: there is no such person.
        """
        wanted = list(self._of(subject) if subject else self._enrolled_at)
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
        return [name for name in self._enrolled_at if name not in than]

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
        self._store.replace(anew)
        self._reset()
        for record in anew:
            self._remember(record)
        return len(anew)

    def close(self) -> None:
        self._reset()
        self._store.close()

    def _of(self, subject: str) -> list[str]:
        templates = self._templates.get(subject)
        if not templates:
            raise NotFound("no such person is enrolled")
        return templates

    def _fitting(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._index and len(vector) != self._index.dimensions:
            raise InvalidInput(f"the vector has {len(vector)} numbers, the gallery's have {self._index.dimensions}")
        return vector

    def _remember(self, record: Record) -> None:
        if self._index is None:
            self._space, self._index = record.space, Index(len(record.vector))
        if record.space != self._space or len(record.vector) != self._index.dimensions:
            raise Refused("the gallery's records lie in several embedding spaces; put back a copy of its file")
        self._index.add(record.id, record.subject, record.vector)
        self._enrolled_at[record.id] = record.enrolled_at
        self._templates.setdefault(record.subject, []).append(record.id)

    def _forget(self, records: Iterable[str]) -> None:
        gone = list(records)
        self._store.remove(gone)
        assert self._index, "there are records"
        for name in gone:
            subject = self._index.subject(name)
            self._index.remove(name)
            del self._enrolled_at[name]
            self._templates[subject].remove(name)
            if not self._templates[subject]:
                del self._templates[subject]
        if not self._enrolled_at:
            self._reset()

    def _reset(self) -> None:
        if self._index:
            self._index.clear()
        self._enrolled_at.clear()
        self._templates.clear()
        self._index, self._space = None, ""


def check_subject(subject: str) -> str:
    """Returns a person's name in the gallery if it is one.

    Raises:
        InvalidInput: not 1 to 128 printable characters, or blanks around them.
    """
    if not (0 < len(subject) <= MAX_SUBJECT and subject.isprintable() and subject == subject.strip()):
        raise InvalidInput(f"a person is named by 1 to {MAX_SUBJECT} printable characters")
    return subject
