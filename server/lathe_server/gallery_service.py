"""GalleryService: faces in, and who they are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from grpc import aio

from lathe.errors import Conflict, InvalidInput, PermissionDenied
from lathe.v1 import gallery_pb2, gallery_pb2_grpc
from lathe_server.access.gate import Gate
from lathe_server.calls import deadline_of
from lathe_server.embedding_checks import MAX_DIMENSIONS
from lathe_server.gallery.audit import Entry
from lathe_server.gallery.decision import Identification, Verdict, check_rate
from lathe_server.gallery.desk import Desk
from lathe_server.gallery.eyes import Eyes, Seen
from lathe_server.gallery.footing import Footing
from lathe_server.gallery.gallery import Gallery, check_subject
from lathe_server.gallery.probe import Probe
from lathe_server.gallery.re_enrolment import ReEnrolment
from lathe_server.gallery.record import Record
from lathe_server.origin import current
from lathe_server.peer import is_here
from lathe_server.wire import to_picture

Context: TypeAlias = "aio.ServicerContext[Any, Any]"  # generic in the stubs only

_RECORD_DIGITS = 32


@dataclass(frozen=True, slots=True)
class _Shown:
    """A face that came in: seen in a picture, or as the vector that it is.

    Attributes:
        seen: None where it came as a vector; how alike a vector is to a template is told to nobody, who could find the
            template by asking.
    """

    probe: Probe
    seen: Seen | None = None


class GalleryService(gallery_pb2_grpc.GalleryServiceServicer):
    """A thin layer over the gallery's desk.

    Args:
        fmr: false match rate, where a request names none; and the highest for callers who may not enrol.
    """

    def __init__(self, desk: Desk, eyes: Eyes, footing: Footing, gate: Gate, fmr: float, *, keeps_faces: bool) -> None:
        self._desk = desk
        self._eyes = eyes
        self._gate = gate
        self._footing = footing
        self._fmr = fmr
        self._keeps_faces = keeps_faces
        self._re_enrolment = ReEnrolment(desk, eyes, fmr)

    async def Enroll(  # noqa: N802  the contract's name
        self, request: gallery_pb2.EnrollRequest, context: Context
    ) -> gallery_pb2.EnrollResponse:
        self._check_place(context)
        subject = check_subject(request.subject)
        shown = await self._shown(request.face, context)
        kept = await self._eyes.keepsake(shown.seen) if self._keeps_faces and shown.seen else b""
        try:
            return await self._enroll(subject, shown.probe, kept)
        except Conflict:  # whoever was there is gone: the face is the first now
            return await self._enroll(subject, shown.probe, kept)

    async def _enroll(self, subject: str, probe: Probe, kept: bytes) -> gallery_pb2.EnrollResponse:
        async with self._footing.entry(probe.made_by) as may_be_first:

            def work(gallery: Gallery) -> tuple[str, int]:
                return gallery.enroll(subject, probe, kept, may_be_first=may_be_first), gallery.templates(subject)

            space = probe.made_by.space
            record, templates = await self._desk.do(_entry("enroll", subject, is_change=True, space=space), work)
        return gallery_pb2.EnrollResponse(record=record, space=space, templates=templates)

    async def Verify(  # noqa: N802
        self, request: gallery_pb2.VerifyRequest, context: Context
    ) -> gallery_pb2.VerifyResponse:
        subject, fmr = check_subject(request.subject), self._rate(request.fmr, context)
        shown = await self._shown(request.face, context)

        def outcome(verdict: Verdict) -> str:
            return "match" if verdict.match else "no match"

        found = await self._desk.do(
            _entry("verify", subject, fmr=fmr), lambda gallery: gallery.verify(subject, shown.probe, fmr), outcome
        )
        return gallery_pb2.VerifyResponse(
            match=found.match,
            similarity=(found.similarity or 0.0) if shown.seen else 0.0,
            threshold=found.threshold,
            comparisons=found.comparisons,
        )

    async def Identify(  # noqa: N802
        self, request: gallery_pb2.IdentifyRequest, context: Context
    ) -> gallery_pb2.IdentifyResponse:
        fmr, limit = self._rate(request.fmr, context), request.limit or 1
        shown = await self._shown(request.face, context)

        def outcome(found: Identification) -> str:
            return f"{len(found.matches)} candidates"

        found = await self._desk.do(
            _entry("identify", fmr=fmr), lambda gallery: gallery.identify(shown.probe, fmr, limit), outcome
        )
        response = gallery_pb2.IdentifyResponse(
            threshold=found.threshold, comparisons=found.comparisons, expected_false_matches=found.comparisons * fmr
        )
        for match in found.matches:
            similarity = match.similarity if shown.seen else 0.0
            response.candidates.add(subject=match.subject, record=match.template, similarity=similarity)
        return response

    async def Delete(  # noqa: N802
        self, request: gallery_pb2.DeleteRequest, context: Context
    ) -> gallery_pb2.DeleteResponse:
        self._check_place(context)
        subject, record = check_subject(request.subject), _check_record(request.record)
        about = {"record": record} if record else {}
        count = await self._desk.do(
            _entry("delete", subject, is_change=True, **about),
            lambda gallery: gallery.delete(subject, record),
            lambda count: f"{count} records",
            after=Gallery.tidy,
        )
        return gallery_pb2.DeleteResponse(records=count)

    async def Export(  # noqa: N802
        self, request: gallery_pb2.ExportRequest, context: Context
    ) -> AsyncIterator[gallery_pb2.ExportResponse]:
        self._check_place(context)
        subject = check_subject(request.subject) if request.subject else ""
        records = await self._desk.do(
            _entry("export", subject, is_change=True, vectors="yes" if request.vectors else "no"),
            lambda gallery: gallery.export(subject),
        )
        while (record := await self._desk.ask(lambda gallery: next(records, None))) is not None:
            yield gallery_pb2.ExportResponse(record=_to_message(record, vectors=request.vectors))

    async def ReEnroll(  # noqa: N802
        self, request: gallery_pb2.ReEnrollRequest, context: Context
    ) -> gallery_pb2.ReEnrollResponse:
        self._check_place(context)
        space, count = await self._re_enrolment.by(request.variant, _who())
        return gallery_pb2.ReEnrollResponse(space=space, records=count)

    async def Describe(  # noqa: N802
        self, request: gallery_pb2.DescribeRequest, context: Context
    ) -> gallery_pb2.DescribeResponse:
        return await self._desk.ask(
            lambda gallery: gallery_pb2.DescribeResponse(
                model=self._eyes.model,
                space=gallery.space,
                people=gallery.people,
                records=len(gallery),
                max_records=gallery.settings.max_records,
                retention_days=gallery.settings.retention_days,
                keeps_faces=self._keeps_faces,
                fmr=self._fmr,
            )
        )

    def _check_place(self, context: Context) -> None:
        self._gate.check_here("gallery", is_here=is_here(context))

    def _rate(self, asked: float, context: Context) -> float:
        """The false match rate to decide at.

        Raises:
            InvalidInput: that is none.
            PermissionDenied: it is higher than the gallery's, and the caller may not enrol.
        """
        fmr = check_rate(asked) if asked else self._fmr
        if fmr > self._fmr:
            if (caller := current.get().caller) and not caller.may("gallery"):
                raise PermissionDenied(f"{caller.name} may not ask at a false match rate above {self._fmr:g}")
            self._check_place(context)
        return fmr

    async def _shown(self, face: gallery_pb2.Face, context: Context) -> _Shown:
        """
        Raises:
            InvalidInput: it is none.
            Refused: its embedding space is unknown here.
        """
        kind = face.WhichOneof("source")
        if kind == "frame":
            seen = await self._eyes.face(to_picture(face.frame), deadline_of(context), largest=face.largest)
            return _Shown(seen.probe, seen)
        if kind != "embedding":
            raise InvalidInput("a face is shown by a frame, or by its embedding")
        if not 0 < len(face.embedding.values) <= MAX_DIMENSIONS:
            raise InvalidInput(f"an embedding has 1 to {MAX_DIMENSIONS} numbers")
        vector = np.array(face.embedding.values, np.float32)
        return _Shown(Probe(vector, self._eyes.meaning(face.embedding.space)))


def _entry(what: str, subject: str = "", *, is_change: bool = False, **about: str | float) -> Entry:
    return Entry(what, _who(), subject, is_change, tuple(about.items()))


def _who() -> str:
    caller = current.get().caller
    return caller.name if caller else ""


def _check_record(record: str) -> str:
    """
    Raises:
        InvalidInput: it names no record, and is not empty.
    """
    if record and (len(record) != _RECORD_DIGITS or set(record) - set("0123456789abcdef")):
        raise InvalidInput(f"a record is named by {_RECORD_DIGITS} hex digits in lower case")
    return record


def _to_message(record: Record, *, vectors: bool) -> gallery_pb2.EnrolledRecord:
    message = gallery_pb2.EnrolledRecord(record=record.id, subject=record.subject, space=record.space)
    message.enrolled_at.FromSeconds(record.enrolled_at)
    if vectors:
        message.vector.extend(record.vector.tolist())
    return message
